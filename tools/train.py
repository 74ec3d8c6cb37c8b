"""Trains the model of a config.

In one process:      python tools/train.py CONFIG
In N processes:      torchrun --nproc-per-node N tools/train.py CONFIG --launcher pytorch
Through mim:         mim train mmdf2 CONFIG
"""

import argparse

from mmdf2.command_line import UserError, start

if __name__ == '__main__':
    start('The same command with --resume continues from the last checkpoint in the work dir.')

from mmengine.config import Config
from mmengine.device import get_device

from mmdf2.engine import add_common_arguments, guard_checkpoint_loading, load_config, run_training


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='the config file')
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint; without a name, from the last one in the work dir if there is one',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on a CPU')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate to the batch size, as the config's auto_scale_lr says",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Reads the config, applies the command line and trains."""
    args = parse_args(argv)
    guard_checkpoint_loading()
    config = load_config(args)
    if args.amp:
        use_mixed_precision(config)
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise UserError(
                '--auto-scale-lr: the config sets no auto_scale_lr.base_batch_size; set it, or leave the option out.'
            )
        config.auto_scale_lr.enable = True
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    run_training(config)


def use_mixed_precision(config: Config) -> None:
    """Replaces the config's optimizer wrapper by one of mixed precision that fits the machine."""
    if get_device() == 'cpu':
        config.optim_wrapper.type = 'mmdf2.CpuAmpOptimWrapper'
    else:
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.loss_scale = 'dynamic'


if __name__ == '__main__':
    main()

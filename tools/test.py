"""Tests a trained model: boxes, masks, landmarks and retrieval.

In one process:      python tools/test.py CONFIG CHECKPOINT
In N processes:      torchrun --nproc-per-node N tools/test.py CONFIG CHECKPOINT --launcher pytorch
Through mim:         mim test mmdf2 CONFIG --checkpoint CHECKPOINT
"""

import argparse
from pathlib import Path

from mmdf2.command_line import UserError, require_folder, start

if __name__ == '__main__':
    start()

from mmengine.config import Config

from mmdf2.engine import add_common_arguments, guard_checkpoint_loading, load_config, run_test


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='the checkpoint file')
    add_common_arguments(parser)
    parser.add_argument('--dump', metavar='DIR', help='folder for the predictions, in the official result files')
    parser.add_argument('--subsets', action='store_true', help="the paper's thirteen columns, not only the overall one")
    parser.add_argument('--show-dir', metavar='DIR', help='folder for drawings of ground truth and predictions')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Reads the config, applies the command line and tests."""
    args = parse_args(argv)
    guard_checkpoint_loading()
    config = load_config(args)
    config.load_from = args.checkpoint
    config.resume = False
    for option, folder in (('--dump', args.dump), ('--show-dir', args.show_dir)):
        if folder:
            require_folder(option, folder)
    if args.dump:
        set_up_metrics(config, '--dump', outfile_prefix=str(Path(args.dump) / 'results'))
    if args.subsets:
        set_up_metrics(config, '--subsets', subsets=True)
    if args.show_dir:
        config.default_hooks.visualization = {
            'type': 'mmdf2.ClothesVisualizationHook',
            'draw': True,
            'test_out_dir': str(Path(args.show_dir).absolute()),
        }
    run_test(config)


def set_up_metrics(config: Config, option: str, **arguments) -> None:
    """Passes arguments to those metrics of the config that are mmdf2's, for an option of the command line."""
    evaluators = config.test_evaluator
    metrics = [
        metric
        for metric in (evaluators if isinstance(evaluators, (list, tuple)) else [evaluators or {}])
        if metric.get('type', '').startswith('mmdf2.')
    ]
    if not metrics:
        raise UserError(
            f'{option}: test_evaluator has no mmdf2.DeepFashion2Metric or mmdf2.RetrievalMetric; add one, or leave the '
            'option out.'
        )
    for metric in metrics:
        metric.update(arguments)


if __name__ == '__main__':
    main()

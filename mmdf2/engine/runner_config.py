"""From a command line to a runner's config, the same for training and testing."""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what MMDetection's tools, ``mim`` and torch's launchers give to both tools."""
    parser.add_argument('--work-dir', help='where logs and checkpoints go; by default work_dirs/<name of the config>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config: a.b=value, or a.b="[1,2]" for a list',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='what started the processes')
    # torch.distributed.launch gives one or the other spelling, by its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config that ``args`` names, changes it as they say and prepares processes for it.

    Args:
        args: Parsed arguments, of :func:`add_common_arguments` and with ``config``.

    Raises:
        ValueError: A launcher that cannot start processes on a machine without an accelerator.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = Config.fromfile(args.config)
    config.launcher = args.launcher
    if args.cfg_options:
        config.merge_from_dict(args.cfg_options)
    if args.work_dir:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs', Path(args.config).stem))
    if args.launcher != 'none' and get_device() == 'cpu':
        _distribute_on_cpu(config)
    return config


def _distribute_on_cpu(config: Config) -> None:
    """MMEngine chooses a GPU for each process in starting and in wrapping the model, whatever the backend."""
    if config.launcher != 'pytorch':
        raise ValueError(
            f'--launcher {config.launcher} needs a GPU for each process; on CPUs start the tool with '
            "'torchrun --nproc-per-node N' and --launcher pytorch"
        )
    config.merge_from_dict({'env_cfg.dist_cfg': {'backend': 'gloo'}})
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = {'type': 'MMDistributedDataParallel', 'broadcast_buffers': False, 'device_ids': None}
    wrapper['find_unused_parameters'] = config.get('find_unused_parameters', False)
    config.model_wrapper_cfg = {**wrapper, **(config.get('model_wrapper_cfg') or {})}

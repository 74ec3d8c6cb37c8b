"""Starting tools/train.py on all that a machine has: one process on a GPU, two on the cores of a CPU."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import torch
from mmengine.config import Config

from mmdf2.command_line import UserError
from mmdf2.engine.runner_config import read_config
from mmdf2.files import AnyPath, usable_cores


def config_of_run(path: AnyPath, work_dir: AnyPath, seed: int) -> Config:
    """Reads a recipe for a run with its wardrobe in ``work_dir/wardrobe`` and without validation."""
    config = read_config(path)
    config.work_dir = str(work_dir)
    config.randomness = dict(seed=seed)
    config.data_root = str(Path(work_dir, 'wardrobe'))
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.train_cfg.pop('val_interval', None)
    config.train_dataloader.dataset.data_root = config.data_root
    return config


def last_checkpoint(config: Config) -> Path:
    """Path of the checkpoint with which a run by epochs ends."""
    return Path(config.work_dir) / f'epoch_{config.train_cfg.max_epochs}.pth'


def launch_training(config: Config, tool: Path, output: IO | None = None) -> None:
    """Runs tools/train.py, in one process on a GPU, and without a GPU in two processes with half of the cores each.

    Two processes with half a batch each use two cores better than one process with two threads, because RoIAlign, the
    proposals and MMDetection's Python do not run in parallel. A run that was interrupted continues.

    Args:
        config: The config; what is run is written to ``work_dir/config.py``.
        tool: Path of tools/train.py.
        output: File for what the processes print; by default they print to the screen.

    Raises:
        UserError: The training has failed.
    """
    config = config.copy()
    processes = 1 if torch.cuda.is_available() else min(2, usable_cores())
    config.train_dataloader.batch_size //= processes
    path = Path(config.work_dir) / 'config.py'
    config.dump(path)
    command = [str(tool), str(path), '--work-dir', config.work_dir, '--resume']
    environment = dict(os.environ)
    if processes > 1:
        launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
        command = [*launch, *command, '--launcher', 'pytorch']
        environment['OMP_NUM_THREADS'] = str(max(1, usable_cores() // processes))
    done = subprocess.run([sys.executable, *command], check=False, env=environment, stdout=output, stderr=output)
    if done.returncode:
        where = f'at the end of {output.name}' if output else 'above'
        raise UserError(f'training stopped with the error {where}; cure it and start the same command again.')

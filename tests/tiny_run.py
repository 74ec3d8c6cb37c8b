"""A config for whole runs on a tiny dataset, and the tools, started on it as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config
from models.tiny import tiny_config

ROOT = Path(__file__).resolve().parents[1]
BASES = ('datasets/deepfashion2.py', 'schedules/schedule_1x.py', 'default_runtime.py')


def write_config(folder: Path, data_root: Path, **changes) -> Path:
    """Writes the paper's config with a tiny model and small images as one file.

    Args:
        folder: Where to write ``config.py``.
        data_root: Folder of the dataset.
        changes: Settings to change, by keys with dots.

    Returns:
        Path of the config.
    """
    bases = [str(ROOT / 'configs/_base_' / name) for name in BASES]
    config = Config.fromstring(f'_base_ = {bases!r}', '.py')
    config.model = tiny_config()
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    for loader in (config.train_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.data_root = str(data_root)
        for transform in loader.dataset.pipeline:
            if transform['type'] == 'mmdf2.Resize':
                transform['scale'] = (96, 64)
    for metric in config.test_evaluator:
        metric.data_root = str(data_root)
    config.randomness = {'seed': 0}
    config.param_scheduler = [{'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 20}]
    config.default_hooks.logger.interval = 1
    config.default_hooks.update(epoch_seed={'type': 'mmdf2.EpochSeedHook'})
    config.log_processor.window_size = 1
    config.optim_wrapper = {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.005, 'momentum': 0.9}}
    config.merge_from_dict({'train_cfg.max_epochs': 1, **changes})
    folder.mkdir(parents=True, exist_ok=True)
    config.dump(folder / 'config.py')
    return folder / 'config.py'


def run_tool(name: str, *arguments, processes: int = 1, cwd=None, expect: int | None = 0, folder: str = 'tools') -> str:
    """Starts ``<folder>/<name>`` in as many processes; returns everything that it printed.

    Raises:
        AssertionError: It ended with another exit status than ``expect``; None accepts any.
    """
    command = [sys.executable]
    if processes > 1:
        command += ['-m', 'torch.distributed.launch', '--standalone', f'--nproc-per-node={processes}']
        arguments = (*arguments, '--launcher', 'pytorch')
    command += [str(ROOT / folder / name), *map(str, arguments)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    output = done.stdout + done.stderr
    assert expect in (None, done.returncode), f'{" ".join(command)} ended with {done.returncode}:\n{output[-6000:]}'
    return output


def logged(work_dir: Path) -> list[dict]:
    """The entries that the latest run in ``work_dir`` logged, one per iteration and per test."""
    latest = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in latest.read_text().splitlines()]


def losses(work_dir: Path) -> dict[int, dict[str, float]]:
    """Iteration -> name of the loss -> its value, in the latest run in ``work_dir``."""
    return {
        entry['iter']: {name: value for name, value in entry.items() if 'loss' in name}
        for entry in logged(work_dir)
        if 'loss' in entry
    }


def metrics(work_dir: Path) -> dict[str, float]:
    """The metrics of the latest test in ``work_dir``."""
    latest = max(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(latest.read_text())

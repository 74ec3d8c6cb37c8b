"""A run that is resumed repeats the uninterrupted one bit for bit: every loop, sampler and kind of checkpoint."""

import itertools
import json
import os
import random
import re
from pathlib import Path

import mmengine.runner.runner
import numpy as np
import pytest
import torch
import torch.distributed
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from processes import run_in_processes
from torch import nn
from torch.utils.data import Dataset

from mmdf2.engine import guard_checkpoint_loading, load_checkpoint_file
from mmdf2.engine.hooks import _seed_on_cpu

IMAGES = 22
NUMBER = itertools.count()


@TRANSFORMS.register_module()
class Jitter:
    """Noise of all three generators, as an augmentation."""

    def __call__(self, value: float) -> torch.Tensor:
        noise = random.random() + np.random.rand()  # noqa: NPY002
        return torch.tensor([value, noise]) + torch.rand(2)


@DATASETS.register_module()
class Numbers(Dataset):
    """Numbers instead of images, of users and of shops by turns, with an identity for each two.

    ``opened``, a file, gets a line for each number that is read.
    """

    def __init__(self, opened=None):
        self.opened, self.transform = opened, Jitter()

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        if self.opened:
            with open(self.opened, 'a') as file:
                file.write(f'{index}\n')
        return {'inputs': self.transform(index / IMAGES)}

    def sources(self):
        return np.arange(IMAGES) % 2

    def identity_table(self):
        images = np.arange(IMAGES - 6)
        return images, images // 2 % 5


@MODELS.register_module()
class Noisy(BaseModel):
    """A model with everything that a checkpoint must hold: statistics of a batch norm, and dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, inputs, mode='loss'):
        """The loss of a batch, or what is predicted."""
        if mode == 'predict':
            return [{'prediction': value} for value in self.layers(torch.stack(inputs))]
        return {'loss': (self.layers(torch.stack(inputs)) - 1).square().mean()}


@METRICS.register_module()
class Score(BaseMetric):
    """The mean prediction, which is better the nearer it is to 1."""

    def process(self, data_batch, data_samples):
        self.results.extend(sample['prediction'].item() for sample in data_samples)

    def compute_metrics(self, results):
        return {'score': -abs(float(np.mean(results)) - 1)}


def config(folder: Path, loop='epoch', sampler='mmdf2.PairSampler', workers=0, **changes) -> Config:
    """A run of three epochs of six batches; ``changes`` have keys with dots."""
    by_epoch = loop == 'epoch'
    loops = {
        'epoch': {'type': 'EpochBasedTrainLoop', 'max_epochs': 3},
        'iter': {'type': 'IterBasedTrainLoop', 'max_iters': 18},
    }
    settings = {
        'model': {'type': 'Noisy'},
        'work_dir': str(folder),
        'experiment_name': f'resuming{next(NUMBER)}',
        'train_dataloader': {
            'dataset': {'type': 'Numbers', 'opened': str(folder / 'opened')},
            'sampler': {'type': sampler},
            'batch_size': 4,
            'num_workers': workers,
            'persistent_workers': False,
        },
        'train_cfg': loops[loop],
        'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
        'param_scheduler': [
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 9},
            {'type': 'ExponentialLR', 'gamma': 0.7, 'by_epoch': by_epoch},
        ],
        'default_hooks': {
            'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 1},
            'logger': {'type': 'LoggerHook', 'interval': 2, 'ignore_last': False},
        },
        'custom_hooks': [
            {'type': 'mmdf2.EpochSeedHook'},
            {'type': 'EMAHook', 'ema_type': 'ExpMomentumEMA', 'momentum': 0.05, 'update_buffers': True},
        ],
        'log_processor': {'by_epoch': by_epoch, 'window_size': 3},
        'log_level': 'WARNING',
        'default_scope': 'mmdet',
    }
    result = Config(settings)
    result.merge_from_dict(changes)
    return result


def train(settings: Config) -> Runner:
    guard_checkpoint_loading()
    Path(settings.work_dir).mkdir(parents=True, exist_ok=True)
    runner = Runner.from_cfg(settings)
    runner.train()
    return runner


def resumed_from(checkpoint: Path) -> dict:
    return {'resume': True, 'load_from': str(checkpoint)}


def logged(folder: Path, after: int = 0) -> list[dict]:
    (file,) = folder.glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    kept = ('loss', 'lr', 'iter', 'step', 'epoch')
    return [{key: entry[key] for key in kept if key in entry} for entry in entries if entry['step'] > after]


def opened_images(folder: Path) -> list[str]:
    return (folder / 'opened').read_text().splitlines()


def log_of(folder: Path) -> str:
    (file,) = folder.glob('*/*.log')
    return file.read_text()


def assert_same(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def assert_same_end(folder: Path, expected: Path, name: str) -> None:
    found, wanted = (load_checkpoint_file(path / name) for path in (folder, expected))
    for part in ('state_dict', 'optimizer', 'ema_state_dict', 'param_schedulers'):
        assert_same(found[part], wanted[part])
    assert found['meta']['seed'] == wanted['meta']['seed']
    assert found['meta']['position_in_epoch'] == wanted['meta']['position_in_epoch']


@pytest.fixture(autouse=True)
def without_descriptions(monkeypatch):
    """Logs begin with versions of compilers, and checkpoints hold the config, which take long to find and to format."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr(Config, 'pretty_text', '')


CASES = [
    ('epoch', 'mmdf2.PairSampler', 0),
    ('epoch', 'DefaultSampler', 0),
    ('epoch', 'mmdf2.PairSampler', 2),
    ('iter', 'mmdf2.PairSampler', 0),
    ('iter', 'InfiniteSampler', 0),
    ('iter', 'InfiniteSampler', 2),
]


@pytest.mark.parametrize(('loop', 'sampler', 'workers'), CASES)
def test_a_run_without_a_seed_is_resumed_at_any_iteration(tmp_path, loop, sampler, workers):
    straight = train(config(tmp_path / 'straight', loop, sampler, workers))
    # Iteration 6 ends an epoch.
    for number in (7,) if workers else (1, 6, 7, 17):
        folder = tmp_path / f'from{number}'
        changes = resumed_from(tmp_path / 'straight' / f'iter_{number}.pth')
        resumed = train(config(folder, loop, sampler, workers, **changes))
        assert resumed.seed == straight.seed
        assert_same_end(folder, tmp_path / 'straight', f'iter_{straight.iter}.pth')
        assert logged(folder) == logged(tmp_path / 'straight', number)
        # No image is loaded that was used before the checkpoint, beyond what the workers of the other run loaded ahead.
        opened, before = (opened_images(path) for path in (folder, tmp_path / 'straight'))
        if workers:
            assert len(opened) < len(before) - 4 * 3
        else:
            used = len(before) // 3 * (number // 6) + 4 * (number % 6)
            assert opened == before[used:]


def test_checkpoints_by_epoch_and_another_seed_for_each_process(tmp_path):
    """With ``diff_rank_seed`` the sampler's seed is not the run's."""
    changes = {'randomness': {'seed': None, 'diff_rank_seed': True}, 'default_hooks.checkpoint.by_epoch': True}
    straight = train(config(tmp_path / 'straight', **changes))
    seed = straight.train_dataloader.sampler.seed
    assert seed != straight.seed
    changes |= resumed_from(tmp_path / 'straight' / 'epoch_2.pth')
    resumed = train(config(tmp_path / 'resumed', **changes))
    assert resumed.train_dataloader.sampler.seed == resumed.train_dataloader.batch_sampler.sampler.seed == seed
    assert_same_end(tmp_path / 'resumed', tmp_path / 'straight', 'epoch_3.pth')
    assert logged(tmp_path / 'resumed') == logged(tmp_path / 'straight', 12)


def test_the_best_checkpoint_is_that_of_the_uninterrupted_run(tmp_path):
    loader = {'dataset': {'type': 'Numbers'}, 'batch_size': 5, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}}
    changes = {
        'val_dataloader': loader,
        'val_evaluator': {'type': 'Score'},
        'val_cfg': {'type': 'ValLoop'},
        'default_hooks.checkpoint': {'by_epoch': True, 'save_best': 'score', 'rule': 'greater'},
    }
    ends = []
    for name, more in (('straight', {}), ('resumed', resumed_from(tmp_path / 'straight' / 'epoch_2.pth'))):
        train(config(tmp_path / name, **changes, **more))
        info = load_checkpoint_file(tmp_path / name / 'epoch_3.pth')['message_hub']['runtime_info']
        ends.append((info['best_score'], Path(info['best_ckpt']).name))
        assert_same_end(tmp_path / name, tmp_path / 'straight', 'epoch_3.pth')
    assert ends[0] == ends[1] and ends[0][0] < 0


def test_the_config_decides_about_the_seed_of_a_sampler(tmp_path):
    changes = {'train_dataloader.sampler.seed': 4}
    straight = train(config(tmp_path / 'straight', **changes))
    changes |= resumed_from(tmp_path / 'straight' / 'iter_12.pth')
    same = train(config(tmp_path / 'same', **changes))
    assert same.train_dataloader.sampler.seed == 4 != same.seed
    assert_same_end(tmp_path / 'same', tmp_path / 'straight', f'iter_{straight.iter}.pth')
    other = train(config(tmp_path / 'other', **changes | {'train_dataloader.sampler.seed': 5}))
    assert other.train_dataloader.sampler.seed == 5
    assert opened_images(tmp_path / 'other') != opened_images(tmp_path / 'same')


def test_a_checkpoint_of_an_earlier_version_has_the_seed_of_the_run_alone(tmp_path):
    straight = train(config(tmp_path / 'straight'))
    checkpoint = load_checkpoint_file(tmp_path / 'straight' / 'iter_7.pth')
    del checkpoint['meta']['position_in_epoch']
    torch.save(checkpoint, tmp_path / 'old.pth')
    resumed = train(config(tmp_path / 'resumed', **resumed_from(tmp_path / 'old.pth')))
    assert resumed.train_dataloader.sampler.seed == straight.seed
    # It does not say where in the epoch it was saved, so the epoch begins anew.
    epoch = len(opened_images(tmp_path / 'straight')) // 3
    assert opened_images(tmp_path / 'resumed') == opened_images(tmp_path / 'straight')[epoch:]


@pytest.mark.parametrize('loop', ['epoch', 'iter'])
def test_the_number_of_workers_makes_no_difference(tmp_path, loop):
    for workers in (0, 1, 2):
        changes = {'randomness': {'seed': 3}, 'default_hooks.checkpoint.interval': 6}
        train(config(tmp_path / str(workers), loop, workers=workers, **changes))
    for workers in (1, 2):
        assert_same_end(tmp_path / str(workers), tmp_path / '0', 'iter_18.pth')


def test_persistent_workers_augment_each_epoch_anew(tmp_path):
    changes = {'randomness': {'seed': 3}, 'default_hooks.checkpoint.interval': 6}
    train(config(tmp_path / 'new', workers=1, **changes))
    train(config(tmp_path / 'kept', workers=1, **changes, **{'train_dataloader.persistent_workers': True}))
    assert_same_end(tmp_path / 'kept', tmp_path / 'new', 'iter_18.pth')


def test_an_epoch_of_another_length_goes_on_at_the_same_share(tmp_path):
    straight = train(config(tmp_path / 'straight'))
    changes = resumed_from(tmp_path / 'straight' / 'iter_10.pth') | {'train_dataloader.batch_size': 2}
    resumed = train(config(tmp_path / 'resumed', **changes))
    length = len(resumed.train_dataloader)
    told = f'after 4 of 6 batches of an epoch, which now has {length}: {4 * length // 6} of them'
    assert told in log_of(tmp_path / 'resumed')
    assert resumed.iter == 10 + length - 4 * length // 6 + length
    opened, before = (opened_images(tmp_path / name) for name in ('resumed', 'straight'))
    assert opened == before[-len(opened) :] and resumed.seed == straight.seed


def test_gradients_that_are_being_accumulated_are_warned_of(tmp_path):
    train(config(tmp_path, **{'optim_wrapper.accumulative_counts': 2}))
    warned = re.findall(
        'iteration (.*) is saved while gradients are accumulated.* accumulative_counts=2', log_of(tmp_path)
    )
    assert [int(number) for number in warned] == list(range(1, 18, 2))


def test_random_numbers_differ_between_iterations_images_processes_and_runs():
    found = set()
    for entropy in itertools.product((0, 1), (5, 6), (0, 2), (0, 1)):
        torch_seed = _seed_on_cpu(*entropy)
        found.add((random.random(), np.random.rand(), torch_seed))  # noqa: NPY002
    assert len({value for values in found for value in values}) == 3 * 16


def process(rank: int, folder: Path) -> None:
    """One of two processes that train, and train again from a checkpoint."""
    mmengine.runner.runner.collect_env = dict
    os.environ['LOCAL_RANK'] = str(rank)
    wrapper = {'type': 'MMDistributedDataParallel', 'broadcast_buffers': False, 'device_ids': None}
    common = {'launcher': 'pytorch', 'env_cfg.dist_cfg.backend': 'gloo', 'model_wrapper_cfg': wrapper}
    changes = {'train_dataloader.batch_size': 2, 'train_dataloader.dataset.opened': None, **common}
    changes['default_hooks.checkpoint.interval'] = 5
    straight = train(config(folder / 'straight', **changes))
    resumed = train(config(folder / 'resumed', **changes, **resumed_from(folder / 'straight' / 'iter_10.pth')))
    assert (resumed.iter, resumed.seed) == (straight.iter, straight.seed) == (18, straight.seed)
    parameters = zip(straight.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in parameters)
    torch.distributed.barrier()


def test_two_processes_resume_without_a_seed(tmp_path):
    run_in_processes(process, 2, tmp_path)
    assert_same_end(tmp_path / 'resumed', tmp_path / 'straight', 'iter_18.pth')
    assert logged(tmp_path / 'resumed') == logged(tmp_path / 'straight', 10)

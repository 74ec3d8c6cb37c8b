"""Random numbers of an epoch depend on seed, epoch and process, and on nothing else."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmdf2.engine import EpochSeedHook


class Noise(Dataset):
    """Random numbers of Python, NumPy and torch, drawn in the process that loads the data."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def numbers_of_epoch(epoch, seed=0, rank=0, num_workers=0):
    loader = DataLoader(Noise(), num_workers=num_workers, collate_fn=list)
    runner = SimpleNamespace(seed=seed, epoch=epoch, rank=rank, train_dataloader=loader)
    random.random(), torch.rand(epoch + 1)
    EpochSeedHook().before_train_epoch(runner)
    return [item for batch in loader for item in batch]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_an_epoch_repeats_and_differs_from_all_others(num_workers):
    first = numbers_of_epoch(3, num_workers=num_workers)
    assert numbers_of_epoch(3, num_workers=num_workers) == first
    for other in ({'epoch': 4}, {'epoch': 3, 'seed': 1}, {'epoch': 3, 'rank': 1}):
        different = numbers_of_epoch(**other, num_workers=num_workers)
        assert all(a != b for item, its in zip(first, different, strict=True) for a, b in zip(item, its, strict=True))
    assert len({value for item in first for value in item}) == 18


def test_persistent_workers_are_warned_of():
    loader = DataLoader(Noise(), num_workers=1, persistent_workers=True)
    runner = SimpleNamespace(seed=0, epoch=0, rank=0, train_dataloader=loader)
    with pytest.warns(UserWarning, match='persistent_workers=False'):
        EpochSeedHook().before_train_epoch(runner)

"""Randomness by epoch, so that a resumed run goes on as if it had never stopped."""

import random
import warnings
from functools import partial

import numpy as np
import torch
from mmengine.hooks import Hook

from mmdf2.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds all random numbers anew at each epoch, from the run's seed, the epoch and the process.

    MMEngine seeds once at the start and saves no random state, so a resumed run samples and augments otherwise than the
    run it resumes; and it gives a loader's worker processes the same seeds in every epoch. With this hook an epoch's
    random numbers depend on nothing that came before. Loaders with workers need ``persistent_workers=False`` for it.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner) -> None:
        """Seeds this process, and the worker processes that the loader is about to start."""
        sequence = np.random.SeedSequence([runner.seed, runner.epoch, runner.rank])
        _seed(sequence)
        loader = runner.train_dataloader
        if loader.num_workers and loader.persistent_workers:
            warnings.warn(
                'EpochSeedHook cannot seed persistent workers: a resumed run will augment images otherwise than an '
                'uninterrupted one. Set train_dataloader.persistent_workers=False',
                stacklevel=2,
            )
        elif loader.num_workers:
            loader.worker_init_fn = partial(_seed_worker, sequence.entropy)


def _seed_worker(entropy: list[int], worker_id: int) -> None:
    _seed(np.random.SeedSequence([*entropy, worker_id]))


def _seed(sequence: np.random.SeedSequence) -> None:
    for_python, for_numpy, for_torch = sequence.generate_state(3).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)  # noqa: NPY002  (mmcv's transforms draw from it)
    torch.manual_seed(for_torch)

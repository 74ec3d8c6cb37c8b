"""Training hooks: random numbers per epoch, so that a resumed run repeats the uninterrupted one, and memory layout."""

import random
import warnings
from functools import partial

import numpy as np
import torch
from mmengine.hooks import Hook

from mmdf2.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds all random number generators at the start of each epoch, from the run's seed, the epoch and the process.

    MMEngine seeds once at the start of a run and saves no random state. A resumed run therefore samples and augments
    differently from the run it resumes, and the worker processes of a loader get the same seeds in every epoch. With
    this hook the random numbers of an epoch do not depend on anything that happened before. For loaders with workers it
    needs ``persistent_workers=False``.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner) -> None:
        """Seeds this process, and the worker processes that the loader is about to start."""
        sequence = np.random.SeedSequence([runner.seed, runner.epoch, runner.rank])
        _seed(sequence)
        loader = runner.train_dataloader
        if loader.num_workers and loader.persistent_workers:
            warnings.warn(
                'EpochSeedHook cannot seed persistent workers: a resumed run will augment images differently from an '
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


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Stores convolution weights in channels-last order, in which the kernels of CPUs and tensor cores are fastest."""

    def before_run(self, runner) -> None:
        """Converts the model once; the activations follow the layout of the weights."""
        runner.model.to(memory_format=torch.channels_last)

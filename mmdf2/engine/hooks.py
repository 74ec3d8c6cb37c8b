"""Training hooks: a resumed run repeats the uninterrupted one, a trial of the validation, and memory layout."""

import difflib
import itertools
import logging
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import autocast
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from mmdf2.command_line import UserError
from mmdf2.registry import HOOKS

# Key in the ``meta`` of a checkpoint.
_POSITION = 'position_in_epoch'


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Makes a resumed run repeat the uninterrupted one bit for bit, wherever in an epoch its checkpoint was saved.

    MMEngine saves no random state, builds the sampler before it restores the seed of the run, and begins an epoch anew
    when a checkpoint was saved within it. This hook sees to it that

    - all random numbers of an iteration follow from the run's seed and the iteration's number: those of the model also
      from the process, and those that augment an image also from the image. The number of workers, and what they load
      ahead, make no difference;
    - a sampler whose seed the config does not set goes on with the seed that it had, or with that of the run if an
      earlier version wrote the checkpoint;
    - the batches that were used before the checkpoint are left out, and their images are not loaded. When an epoch now
      has another number of batches, the same share of it is left out.

    It works with MMEngine's loops by epoch and by iteration. Gradients that are being accumulated when a checkpoint is
    saved are not restored; a warning says so.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._batches: _SeededBatches | None = None
        self._loaded: dict = {}
        # Number of the present epoch, and the iteration with which it began.
        self._begun = (0, 0)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keeps what :meth:`before_save_checkpoint` has written."""
        self._loaded = (checkpoint.get('meta') or {}).get(_POSITION) or {}

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Writes the sampler's seed, and how much of the epoch is done, into the checkpoint."""
        wrapper, meta = runner.optim_wrapper, checkpoint['meta']
        if isinstance(wrapper, OptimWrapper) and not wrapper.should_update():
            print_log(
                f'The checkpoint of iteration {meta["iter"]} is saved while gradients are accumulated, and a run that '
                'is resumed from it begins without them. Save checkpoints at multiples of '
                f'accumulative_counts={wrapper._accumulative_counts}',
                'current',
                logging.WARNING,
            )
        loader, (epoch, begin) = runner.train_dataloader, self._begun
        meta[_POSITION] = {
            'sampler_seed': getattr(_sampler(loader), 'seed', None),
            'batches_done': meta['iter'] - begin if meta['epoch'] == epoch else 0,
            'batches_of_epoch': len(loader),
        }

    def before_train(self, runner) -> None:
        """Gives the sampler its seed, and numbers the batches of the loader."""
        loop, loader = runner.train_loop, runner.train_dataloader
        if runner.iter == 0:
            self._loaded = {}
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            print_log(
                f'EpochSeedHook cannot number the samples of a {type(loader.dataset).__name__} without batches of '
                'indices: a resumed run will load other samples than an uninterrupted one',
                'current',
                logging.WARNING,
            )
            return
        by_iteration = hasattr(loop, 'dataloader_iterator')
        _renew_sampler(runner, self._loaded.get('sampler_seed'), always=by_iteration)
        self._batches = _SeededBatches(loader.batch_sampler, runner.seed)
        # A loader refuses a new batch sampler, because it may be in use. This one is not: the first epoch comes now.
        object.__setattr__(loader, 'batch_sampler', self._batches)
        loader.dataset.__getitems__ = _SeededSamples(loader.dataset)
        if by_iteration:
            loader._iterator = None
            loop.dataloader_iterator = _Passes(
                loader, runner.iter, 0 if hasattr(loop.dataloader_iterator, 'skip_iter') else runner.iter
            )

    def before_train_epoch(self, runner) -> None:
        """Leaves out the batches of the epoch that were used before the checkpoint."""
        loop, loader = runner.train_loop, runner.train_dataloader
        if self._batches is None or hasattr(loop, 'dataloader_iterator'):
            return
        done = self._batches_done(len(loader))
        self._begun = (runner.epoch, runner.iter - done)
        _set_epoch(loader, runner.epoch)
        self._batches.begin(runner.iter, done)
        if done:
            # The loop counts the batches that are left from 0; the log and other hooks expect numbers in the epoch.
            run_iter = loop.run_iter
            loop.run_iter = lambda idx, data_batch: run_iter(idx + done, data_batch)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Seeds all random number generators of this process, on all devices."""
        # The last number keeps these seeds apart from those of the samples.
        torch.manual_seed(_seed_on_cpu(runner.seed, runner.iter, runner.rank, 1))

    def after_train_epoch(self, runner) -> None:
        """Ends the special numbering of a resumed epoch."""
        vars(runner.train_loop).pop('run_iter', None)

    def _batches_done(self, length: int) -> int:
        """How many batches of a resumed epoch of this length were used before; 0 in every later epoch."""
        loaded, self._loaded = self._loaded, {}
        done, of = loaded.get('batches_done', 0), loaded.get('batches_of_epoch', length)
        if not done or of == length:
            return done
        print_log(
            f'The checkpoint was saved after {done} of {of} batches of an epoch, which now has {length}: '
            f'{done * length // of} of them are left out',
            'current',
            logging.WARNING,
        )
        return done * length // of


class _SeededBatch(list):
    """Indices of the images of a batch, with ``seed``: the seed of the run and the number of the iteration."""

    seed: tuple[int, int]


class _SeededBatches(BatchSampler):
    """The batches of another batch sampler, numbered by iteration.

    Args:
        batches: The other batch sampler.
        seed: The seed of the run.
    """

    def __init__(self, batches, seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.sampler = getattr(batches, 'sampler', None)
        self.batch_size, self.drop_last = getattr(batches, 'batch_size', None), getattr(batches, 'drop_last', False)
        self._number = 0
        self._order: Iterator | None = None

    def begin(self, number: int, skip: int) -> int:
        """Draws the next pass, leaves out some of its batches and numbers the others.

        Args:
            number: Number of the iteration of the first batch that is not left out.
            skip: Number of batches to leave out.

        Returns:
            Number of batches that were left out; less than ``skip`` when the pass has no more.
        """
        self._number, self._order = number, iter(self.batches)
        return sum(1 for _ in itertools.islice(self._order, skip))

    def __iter__(self) -> Iterator[_SeededBatch]:
        order, self._order = self._order, None
        for indices in iter(self.batches) if order is None else order:
            batch = _SeededBatch(indices)
            batch.seed = (self.seed, self._number)
            self._number += 1
            yield batch

    def __len__(self) -> int:
        return len(self.batches)


class _SeededSamples:
    """Reads the samples of a batch, each with its own random numbers, in the process that loads them.

    It takes the place of ``dataset.__getitems__``, which torch's loaders call where it exists.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, batch: list[int]) -> list:
        samples = []
        for index in batch:
            if isinstance(batch, _SeededBatch):
                # torch.manual_seed would prepare the seeds of all devices too, which takes longer than all the rest.
                torch.default_generator.manual_seed(_seed_on_cpu(*batch.seed, int(index)))
            samples.append(self.dataset[index])
        return samples


class _Passes:
    """What ``IterBasedTrainLoop`` takes its batches from: pass after pass through a loader.

    MMEngine's own goes back to the first pass when a run is resumed, and in the original line it loads all images again
    that were used before.

    Args:
        loader: The loader, whose batches are numbered.
        begin: Number of the first iteration.
        discard: How often the loop asks for a batch that it will not use; it gets None.
    """

    def __init__(self, loader: DataLoader, begin: int, discard: int) -> None:
        self._loader, self._begin, self._discard = loader, begin, discard
        self._number = 0
        self._iterator: Iterator | None = None

    def skip_iter(self, num_iters: int) -> None:
        """Called when a run is resumed; nothing is left to do."""

    def __next__(self):
        if self._discard:
            self._discard -= 1
            return None
        if self._iterator is None:
            self._iterator = self._first_pass()
        for batch in self._iterator:
            return batch
        self._number += 1
        _set_epoch(self._loader, self._number)
        self._iterator = iter(self._loader)
        return next(self._iterator)

    def _first_pass(self) -> Iterator:
        left = self._begin
        while True:
            _set_epoch(self._loader, self._number)
            found = self._loader.batch_sampler.begin(self._begin, left)
            if found == left:
                return iter(self._loader)
            if not found:
                raise ValueError('the train dataloader has no batch; give it more images or a smaller batch_size')
            left -= found
            self._number += 1


def _sampler(loader: DataLoader):
    return getattr(loader.batch_sampler, 'sampler', None)


def _set_epoch(loader: DataLoader, epoch: int) -> None:
    if hasattr(_sampler(loader), 'set_epoch'):
        _sampler(loader).set_epoch(epoch)


def _renew_sampler(runner, seed: int | None, always: bool) -> None:
    """Builds the sampler of the train loader anew, as the config says, if its seed was not that of the resumed run.

    Args:
        runner: The runner, with its seed restored.
        seed: The seed of the sampler in the checkpoint; None takes that of the run.
        always: Whether to build it anew in any case, because indices may have been drawn from it already.
    """
    loader, config = runner.train_dataloader, runner._train_dataloader
    old = _sampler(loader)
    if old is None or not isinstance(config, dict) or not isinstance(config.get('sampler'), dict):
        return
    if config['sampler'].get('seed') is not None:
        seed = config['sampler']['seed']
    elif seed is None:
        seed = old.seed if runner._randomness_cfg.get('diff_rank_seed') else runner.seed
    if not always and getattr(old, 'seed', seed) == seed:
        return
    new = DATA_SAMPLERS.build(config['sampler'], default_args={'dataset': loader.dataset, 'seed': seed})
    loader.batch_sampler.sampler = new
    if loader.sampler is old:
        object.__setattr__(loader, 'sampler', new)


def _seed_on_cpu(*entropy: int) -> int:
    """Seeds the generators of Python and NumPy; returns a seed for torch's."""
    for_python, for_numpy, for_torch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)  # noqa: NPY002  (mmcv's transforms draw from it)
    return for_torch


@HOOKS.register_module()
class ValidationTrialHook(Hook):
    """Tries the validation on its first batch before training, so that what cannot work fails now, not after an epoch.

    The metrics must find in the predictions what they need, and ``save_best`` of ``CheckpointHook`` must name figures
    that they give. Names are not checked beside a metric that has no ``figure_names``.
    """

    def before_train(self, runner) -> None:
        """Predicts the first batch and asks the metrics.

        Raises:
            UserError: A metric needs what the model does not predict, or ``save_best`` names an unknown figure.
        """
        loop = runner.val_loop
        if loop is None:
            return
        loader, metrics = loop.dataloader, loop.evaluator.metrics
        # The loader's own processes would load several batches.
        batch = loader.collate_fn([loader.dataset[index] for index in next(iter(loader.batch_sampler))])
        runner.model.eval()
        with torch.no_grad(), autocast(enabled=loop.fp16):
            outputs = runner.model.val_step(batch)
        try:
            loop.evaluator.process(data_samples=outputs, data_batch=batch)
            known = [metric.figure_names() if hasattr(metric, 'figure_names') else None for metric in metrics]
        except (KeyError, ValueError) as error:
            raise UserError(f'The validation cannot be done: {error.args[0]}') from error
        for metric in metrics:
            metric.results.clear()
        if None not in known:
            _check_save_best(runner, set().union(*known))


def _check_save_best(runner, known: set[str]) -> None:
    for hook in runner.hooks:
        for name in (isinstance(hook, CheckpointHook) and hook.save_best) or ():
            if name not in {'auto', *known}:
                close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0) or ['None']
                raise UserError(
                    f'CheckpointHook should keep the checkpoint with the best {name}, but the validation gives no such '
                    f'figure; set default_hooks.checkpoint.save_best={close[0]}, or to None.'
                )


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Stores convolution weights in channels-last order, in which the kernels of CPUs and tensor cores are fastest."""

    def before_run(self, runner) -> None:
        """Converts the model once; the activations follow the layout of the weights."""
        runner.model.to(memory_format=torch.channels_last)

"""Measures training steps of a config's Match R-CNN beside those of MMDetection's Mask R-CNN with the same backbone.

    python benchmarks/benchmark_training.py CONFIG --device cuda --out training.json
    python benchmarks/benchmark_training.py CONFIG --device cpu --iterations 4 --turn 2

Both models are trained with and without mixed precision, on the batches of the config's data loader, taking turns of
some iterations each, so that a busy machine is equally unfair to all; the first turn warms up and does not count. Then
the time of some steps is divided among their parts. The weights are those of the config's ``load_from``, if it has one.
"""

import argparse
import copy
import itertools
import math
import statistics
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from mmdf2.engine import load_checkpoint_file, load_weights, read_config
from mmdf2.files import write_json

# Low enough for weights that were not trained.
LEARNING_RATE = 2e-4
REST = 'assignment and the rest'
# Part of a step -> the parts of a detector that do it.
PARTS = {
    'backbone and neck': ('backbone', 'neck'),
    'RPN': ('rpn_head',),
    'box': ('roi_head.bbox_head', 'roi_head.bbox_roi_extractor'),
    'mask': ('roi_head.mask_head', 'roi_head.mask_roi_extractor'),
    'landmarks': ('roi_head.keypoint_head', 'roi_head.keypoint_roi_extractor'),
    'matching': ('roi_head.match_head',),
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='config of a Match R-CNN, with its training data')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--iterations', type=int, default=200, help='iterations of each contender (default: 200)')
    parser.add_argument('--turn', type=int, default=25, help='iterations of a turn (default: 25)')
    parser.add_argument('--parts', type=int, default=10, help='steps to divide among their parts (default: 10)')
    parser.add_argument('--out', type=Path, help='JSON file for what was measured')
    args = parser.parse_args(argv)
    if args.turn < 1 or args.iterations < 2 * args.turn:
        parser.error('--iterations must be two turns or more, as the first one warms up')
    return args


def main(argv=None):
    args = parse_args(argv)
    config = read_config(args.config)
    init_default_scope(config.get('default_scope', 'mmdet'))
    torch.manual_seed(0)
    weights = load_checkpoint_file(config.load_from) if config.get('load_from') else None
    models = {'Match R-CNN': config.model, 'Mask R-CNN': mask_rcnn_of(config.model)}
    contenders = {
        f'{name}{" with amp" if amp else ""}': Contender(model, weights, config.optim_wrapper, args.device, amp)
        for amp in (False, True)
        for name, model in models.items()
        # The non-maximum suppression of mmcv has no bfloat16 on a CPU.
        if not (amp and args.device == 'cpu' and name == 'Mask R-CNN')
    }
    batches = Batches(config.train_dataloader)
    for turn in range(args.iterations // args.turn):
        for contender in contenders.values():
            contender.take_turn(batches, args.turn, warm_up=turn == 0)
        if turn > 0:
            rates = ', '.join(f'{name} {contender.images_per_second():.2f}' for name, contender in contenders.items())
            print(f'turn {turn + 1} of {args.iterations // args.turn}, images/s so far: {rates}', flush=True)
    result = {name: contender.summary() for name, contender in contenders.items()}
    for name, contender in contenders.items():
        result[name]['parts'] = contender.parts(batches, args.parts)
    print_tables(result)
    if args.out:
        write_json(args.out, {'batch_size': batches.size, 'input_shapes': batches.shapes(), 'contenders': result})
    broken = [name for name, facts in result.items() if not facts['finite']]
    if broken:
        raise SystemExit(f'not finite: the losses of {", ".join(broken)}')


def mask_rcnn_of(model: Config) -> Config:
    """MMDetection's Mask R-CNN with the parts of a Match R-CNN's config, without its streams."""
    model = copy.deepcopy(model)
    model.type = 'mmdet.MaskRCNN'
    head = model.roi_head
    head.type = 'mmdet.StandardRoIHead'
    for name in ('keypoint_roi_extractor', 'keypoint_head', 'match_head'):
        head.pop(name, None)
    head.mask_head.type = 'mmdet.FCNMaskHead'
    model.train_cfg.rcnn.pop('match_rois_per_image', None)
    return model


class Batches:
    """The batches of a data loader, epoch after epoch, and how long each one was waited for."""

    def __init__(self, loader):
        self.loader = Runner.build_dataloader(loader, seed=0)
        self.size = loader['batch_size']
        self.batches = self._endless()
        self.waited = 0.0
        self.seen = Counter()

    def _endless(self):
        for epoch in itertools.count():
            self.loader.sampler.set_epoch(epoch)
            yield from self.loader

    def next(self):
        start = time.perf_counter()
        batch = next(self.batches)
        self.waited += time.perf_counter() - start
        self.seen.update('x'.join(map(str, image.shape[1:])) for image in batch['inputs'])
        return batch

    def shapes(self):
        """The five most frequent shapes of images, height x width, with their numbers."""
        return dict(self.seen.most_common(5))


class Contender:
    """A model in training, and what was measured of it."""

    def __init__(self, model, weights, optimizer, device, amp):
        self.device = device
        self.model = MODELS.build(model)
        self.model.init_weights()
        if weights:
            # Mask R-CNN takes the parts that it has in common with Match R-CNN.
            load_weights(self.model, weights, 'load_from', other_model=True)
        self.model.to(device).train()
        self.optimizer = build_optim_wrapper(self.model, wrapper_of(optimizer, device, amp))
        self.seconds, self.waits, self.images, self.peak = [], [], [], 0
        self.losses = []

    def take_turn(self, batches, iterations, warm_up):
        """Trains for some iterations, measuring them together; a turn that warms up counts for the memory alone."""
        own, before = self.own_bytes(), memory(self.device)
        batches.waited, images = 0.0, 0
        with peak_of(self.device) as peak:
            synchronise(self.device)
            start = time.perf_counter()
            for _ in range(iterations):
                batch = batches.next()
                images += len(batch['inputs'])
                self.losses.append(self.step(batch)['loss'].detach())
            synchronise(self.device)
            seconds = time.perf_counter() - start
        # Other models lie in the memory as well. This one's own tensors were there before, but for the first turn's.
        self.peak = max(self.peak, peak() - before + own)
        if not warm_up:
            self.seconds.append(seconds)
            self.waits.append(batches.waited)
            self.images.append(images)

    def step(self, batch):
        return self.model.train_step(batch, optim_wrapper=self.optimizer)

    def own_bytes(self):
        """Bytes of the weights, their gradients and the optimizer's state that exist now."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += [p.grad for p in self.model.parameters() if p.grad is not None]
        for state in self.optimizer.optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def images_per_second(self):
        return sum(self.images) / sum(self.seconds)

    def summary(self):
        """Rates over all turns but the first, in images per second; memory in GiB, None on a CPU."""
        losses = [float(loss) for loss in self.losses]
        computing = sum(self.seconds) - sum(self.waits)
        scaler = getattr(self.optimizer, 'loss_scaler', None)
        return {
            'images_per_second': self.images_per_second(),
            'images_per_second_without_waiting_for_data': sum(self.images) / computing,
            'slowest_turn': min(i / s for i, s in zip(self.images, self.seconds, strict=True)),
            'fastest_turn': max(i / s for i, s in zip(self.images, self.seconds, strict=True)),
            'peak_memory_GiB': self.peak / 2**30 if self.device != 'cpu' else None,
            'first_loss': finite(losses[0]),
            'last_loss': finite(statistics.mean(losses[-5:])),
            # With float16, the first steps may overflow until the scaler has found its scale; their losses are finite.
            'finite': all(map(math.isfinite, losses)),
            'loss_scale': scaler.get_scale() if scaler is not None else None,
        }

    def parts(self, batches, steps):
        """Seconds of each part of a step, the mean over ``steps`` steps, each part waited for."""
        watch = Stopwatch(self.device)
        for part, names in PARTS.items():
            for module in filter(None, (find(self.model, name) for name in names)):
                watch.watch_module(module, part)
        watch.watch(self.model.data_preprocessor, 'forward', 'preparing the batch')
        watch.watch(self.optimizer, 'backward', 'backward')
        for method in ('step', 'zero_grad'):
            watch.watch(self.optimizer, method, 'optimizer')
        for _ in range(steps):
            with watch.part('data'):
                batch = batches.next()
            with watch.part(REST):
                self.step(batch)
        return {part: seconds / steps for part, seconds in watch.seconds.items()}


def finite(value):
    """The number, or None in place of one that is not finite, which JSON cannot hold."""
    return value if math.isfinite(value) else None


def wrapper_of(optimizer, device, amp):
    """Config of the optimizer wrapper; tools/train.py --amp chooses the same ones."""
    wrapper = copy.deepcopy(optimizer)
    wrapper.optimizer.lr = LEARNING_RATE
    if amp and device == 'cpu':
        wrapper.type = 'mmdf2.CpuAmpOptimWrapper'
    elif amp:
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    return wrapper


def find(model, name):
    """The part of a model by its name with dots; None if it has none."""
    for attribute in name.split('.'):
        model = getattr(model, attribute, None)
    return model


class Stopwatch:
    """Divides the time among parts; what runs inside another part counts for the inner one alone."""

    def __init__(self, device):
        self.device = device
        self.seconds = Counter()
        self.stack = []
        self.mark = None

    @contextmanager
    def part(self, name):
        self._charge()
        self.stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self.stack.pop()

    def _charge(self):
        synchronise(self.device)
        now = time.perf_counter()
        if self.stack:
            self.seconds[self.stack[-1]] += now - self.mark
        self.mark = now

    def watch(self, owner, method, name):
        """Counts what a method of an object takes."""
        call = getattr(owner, method)

        def timed(*args, **kwargs):
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, method, timed)

    def watch_module(self, module, name):
        """Counts what the public methods of a module take that compute something."""
        for method in ('forward', 'loss', 'predict', 'loss_and_predict', 'loss_and_target', 'forward_features'):
            if callable(getattr(module, method, None)):
                self.watch(module, method, name)
        for method in ('forward_logits', 'embed', 'pair_logits', 'get_targets'):
            if callable(getattr(type(module), method, None)):
                self.watch(module, method, name)


def synchronise(device):
    if device != 'cpu':
        torch.cuda.synchronize()


def memory(device):
    return torch.cuda.memory_allocated() if device != 'cpu' else 0


@contextmanager
def peak_of(device):
    """Yields a function that tells the most bytes that were in use inside the block."""
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
    yield lambda: torch.cuda.max_memory_allocated() if device != 'cpu' else 0


def print_tables(result):
    print(
        '\n| | images/s | without waiting for data | peak memory, GiB | loss, first and last |\n|---|---|---|---|---|'
    )
    for name, facts in result.items():
        peak = '' if facts['peak_memory_GiB'] is None else f'{facts["peak_memory_GiB"]:.2f}'
        rates = f'{facts["images_per_second"]:.2f} | {facts["images_per_second_without_waiting_for_data"]:.2f}'
        print(f'| {name} | {rates} | {peak} | {facts["first_loss"]}, {facts["last_loss"]} |')
    names = list(dict.fromkeys(part for facts in result.values() for part in facts['parts']))
    print(f'\n| ms per step | {" | ".join(result)} |\n|---{"|---" * len(result)}|')
    for part in names:
        times = (facts['parts'].get(part) for facts in result.values())
        print(f'| {part} | {" | ".join("" if time is None else f"{time * 1000:.1f}" for time in times)} |', flush=True)


if __name__ == '__main__':
    main()

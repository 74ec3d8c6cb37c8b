"""Compares ways of sharing a batch among processes, and sizes of the whole batch, by training only the match head.

    python benchmarks/compare_match_batches.py work_dirs/demo/config.py work_dirs/demo/epoch_2.pth --processes 1 2 4 8
    python benchmarks/compare_match_batches.py work_dirs/demo/config.py work_dirs/demo/epoch_2.pth --pairs 1 2 4 8

The RoI features of the ground-truth boxes of a frozen detector are extracted once into the file --features. Per row of
the table and seed a match head is trained on those of the training split, by as many processes as the row says, and
evaluated on the validation split by the official protocol with ground-truth boxes. All rows of a seed see the same
image pairs: with half the pairs per batch they take twice as many iterations, at a learning rate that is smaller by the
square root of two, as Adam wants it.
"""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from cached_features import Split, add_detector_arguments, open_splits
from compare_match_options import Option, batches, garment_rows, garments_of, judge, positive, spread
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from mmdf2.engine import guard_checkpoint_loading, load_checkpoint_file
from mmdf2.files import write_text
from mmdf2.models import MatchHead
from mmdf2.registry import MODELS

FIGURES = ('top1', 'top10', 'map', 'loss')
PAPER_PAIRS = 8
WARM_UP = 0.15
LATE = 0.1
# What the head does in training with the garments of a batch, as changes of its config.
HEADS = {
    'default': {},
    'norm per process': {'memory': 0},
    'memory 128': {'memory': 128},
    'no memory': {'memory': 0},
    'LN, no memory': {'norm_cfg': {'type': 'LN'}, 'memory': 0},
    'no norm, no memory': {'norm_cfg': None, 'memory': 0},
}


class NormPerProcess(MatchHead):
    """The head as it would be if each process normalised its own garments."""

    def project(self, features: list[Tensor]) -> Tensor:
        return self.norm(super().project(features))

    def _normalise(self, projections: Tensor) -> Tensor:
        return projections


class Loss(nn.Module):
    """The sum of a head's losses as a forward pass, which DistributedDataParallel needs."""

    def __init__(self, head: MatchHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, labels: list[Tensor]) -> Tensor:
        return sum(self.head.loss(self.head.project([features]), *labels).values())


def main() -> None:
    """Trains and evaluates the heads, and prints the table."""
    args = parse_args()
    guard_checkpoint_loading()
    splits, config = open_splits(args)
    del splits['train']
    rows = [(head, count, pairs) for head in args.heads for count in args.processes for pairs in args.pairs]
    results = {row: [] for row in rows}
    with tqdm(total=len(rows) * args.seeds, unit='head', disable=None) as bar:
        for seed in range(args.seeds):
            for row in rows:
                figures = train_and_judge(args, config, splits['validation'], seed, *row)
                results[row].append(figures)
                tqdm.write(f'{row} seed {seed}: {figures}')
                bar.update()
    print(table(results, args))
    if args.out:
        lines = {', '.join(map(str, row)): values for row, values in results.items()}
        write_text(args.out, json.dumps(lines, indent=2) + '\n')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_detector_arguments(parser)
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=['default'], help='ways to train the head')
    parser.add_argument('--processes', nargs='+', type=positive, default=[1], help='numbers of processes')
    parser.add_argument('--pairs', nargs='+', type=positive, default=[PAPER_PAIRS], help='image pairs per whole batch')
    parser.add_argument('--seeds', type=positive, default=2, help='number of seeds')
    parser.add_argument(
        '--iterations', type=positive, default=600, help=f'iterations of {PAPER_PAIRS} pairs to train a head'
    )
    parser.add_argument('--out', type=Path, help='also write the figures of every seed to this JSON file')
    return parser.parse_args()


def build_head(config: Config, name: str) -> MatchHead:
    """The head of a row of the table."""
    settings = {**config.model.roi_head.match_head, **HEADS[name]}
    if name == 'norm per process':
        settings.pop('type')
        return NormPerProcess(**settings)
    return MODELS.build(settings)


def train_and_judge(
    args: argparse.Namespace, config: Config, split: Split, seed: int, name: str, processes: int, pairs: int
) -> dict[str, float]:
    """Trains a head in as many processes; returns its figures and the mean loss of the last tenth."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, folder, args, seed, name, pairs)
        torch.multiprocessing.spawn(train, args=arguments, nprocs=processes)
        head = build_head(config, name)
        head.load_state_dict(load_checkpoint_file(Path(folder, 'head.pth')))
        losses = json.loads(Path(folder, 'losses.json').read_text())
    late = max(1, round(LATE * len(losses)))
    return {**judge(head.eval(), split, Option()), 'loss': float(np.mean(losses[-late:]))}


def train(rank: int, processes: int, folder: str, args: argparse.Namespace, seed: int, name: str, pairs: int) -> None:
    """One process of a training; the first one leaves ``head.pth`` and ``losses.json`` in the folder."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    distributed.init_process_group('gloo', init_method=f'file://{folder}/init', rank=rank, world_size=processes)
    splits, config = open_splits(args)
    split = splits['train']
    torch.manual_seed(seed)
    head = build_head(config, name)
    head.init_weights()
    model = DistributedDataParallel(Loss(head.train()), broadcast_buffers=False)
    wrapper = build_optim_wrapper(head, config.optim_wrapper)
    iterations = args.iterations * PAPER_PAIRS // pairs
    rate = torch.optim.lr_scheduler.LambdaLR(
        wrapper.optimizer, lambda step: rate_at(step / iterations) * math.sqrt(pairs / PAPER_PAIRS)
    )
    labels = garments_of(split.store)
    losses = []
    for rows, mirrored in shares_of_batches(split, seed, iterations, pairs, rank, processes):
        features = split.joined(head.sources, rows, mirrored)
        with wrapper.optim_context(head):
            loss = model(features, [column[rows] for column in labels])
        wrapper.update_params(loss)
        rate.step()
        losses.append(loss.item())
    if rank == 0:
        torch.save(head.state_dict(), Path(folder, 'head.pth'))
        Path(folder, 'losses.json').write_text(json.dumps(losses))
    distributed.barrier()
    distributed.destroy_process_group()


def rate_at(progress: float) -> float:
    """The learning rate at a part of the training, relative to the largest: a warm-up, then a cosine."""
    return min(1, progress / WARM_UP) * (1 + math.cos(math.pi * progress)) / 2


def shares_of_batches(
    split: Split, seed: int, iterations: int, pairs: int, rank: int, processes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of one process's garments in each batch, and whether each is mirrored."""
    rng = np.random.default_rng(seed)
    for images in batches(split.store, rng, iterations, pairs):
        rows, mirrored = garment_rows(split.store, images, rng)
        of_process = np.isin(split.store.item_images[rows], images.reshape(-1, 2)[rank::processes])
        yield rows[of_process], mirrored[of_process]


def table(results: dict[tuple, list[dict]], args: argparse.Namespace) -> str:
    """The table of results in Markdown."""
    queries = int(next(iter(results.values()))[0]['queries'])
    lines = [
        f'{queries} queries; mean and standard deviation over {args.seeds} seeds, {args.iterations * PAPER_PAIRS} '
        'image pairs in all',
        '',
        '| head | processes | image pairs per batch | top-1 | top-10 | mAP | late loss |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    for row, figures in results.items():
        cells = [spread([100 * found[name] for found in figures]) for name in FIGURES[:3]]
        cells.append(f'{np.mean([found["loss"] for found in figures]):.3f}')
        lines.append(f'| {" | ".join([*map(str, row), *cells])} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()

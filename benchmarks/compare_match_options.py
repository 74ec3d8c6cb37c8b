"""Compares the options of matching that go beyond the paper, by training only the match head of a frozen detector.

    python benchmarks/compare_match_options.py work_dirs/demo/config.py work_dirs/demo/epoch_2.pth

The RoI features of the ground-truth boxes of both splits are extracted once into the file --features. Per option and
seed a match head is trained on the features of the training split, in batches of image pairs, and evaluated on the
validation split by the official protocol with ground-truth boxes. All options of a seed start from the same random
numbers and see the same batches. The table shows the mean and standard deviation over the seeds, and the mean and
standard deviation of the differences from the plain head of the same seed, in percent and percentage points.
"""

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from cached_features import Split, add_detector_arguments, open_splits
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor
from tqdm import tqdm

from mmdf2.categories import Source
from mmdf2.datasets.samplers import IdentityPairs
from mmdf2.datasets.store import Store
from mmdf2.engine import guard_checkpoint_loading
from mmdf2.evaluation.metrics.retrieval_metric import EmbeddedBoxes, find
from mmdf2.evaluation.retrieval import RetrievalItems, summarize
from mmdf2.evaluation.truth import retrieval_items
from mmdf2.files import write_text
from mmdf2.models import MatchHead
from mmdf2.registry import MODELS
from mmdf2.retrieval.expansion import expand_queries
from mmdf2.retrieval.similarity import Similarity

FIGURES = ('top1', 'top10', 'map')
WARM_UP = 100


@dataclass(frozen=True)
class Option:
    """An option that is compared: settings of the match head, and of the use of its embeddings.

    Attributes:
        head: Keys of the match head's config that differ from the plain head.
        flip: Whether embeddings are averaged with those of the mirrored images.
        hits: Number of hits that expand a query.
        power: Exponent of the weights of the expansion, see ``expand_queries``.
        sources: The streams that feed the head; None for those of the config.
    """

    head: dict = field(default_factory=dict)
    flip: bool = False
    hits: int = 0
    power: float = 1.0
    sources: tuple[str, ...] | None = None


PLAIN = 'plain'
OPTIONS = {
    PLAIN: Option(),
    'true metric': Option({'true_metric': True}),
    'contrastive, weight 0.3': Option({'contrastive_weight': 0.3}),
    'contrastive, weight 1': Option({'contrastive_weight': 1.0}),
    'contrastive, weight 1, temperature 0.3': Option({'contrastive_weight': 1.0, 'temperature': 0.3}),
    'contrastive, weight 1, temperature 3': Option({'contrastive_weight': 1.0, 'temperature': 3.0}),
    'hard negatives, twice': Option({'same_category_weight': 2.0}),
    'hard negatives, 4 times': Option({'same_category_weight': 4.0}),
    'hard negatives, 10 times': Option({'same_category_weight': 10.0}),
    'query expansion, 1 hit': Option(hits=1),
    'query expansion, 3 hits': Option(hits=3),
    'query expansion, 3 hits, power 3': Option(hits=3, power=3.0),
    'flip averaging': Option(flip=True),
    'flip averaging, true metric': Option({'true_metric': True}, flip=True),
    'flip averaging, query expansion, 1 hit': Option(flip=True, hits=1),
}
# The paper's five variants.
VARIANTS = {
    '+'.join(sources): Option(sources=sources)
    for sources in (('class',), ('mask',), ('pose',), ('mask', 'class'), ('pose', 'class'))
}


def main() -> None:
    """Trains and evaluates the heads, and prints the table."""
    args = parse_args()
    guard_checkpoint_loading()
    splits, config = open_splits(args)
    options = {PLAIN: Option(), **VARIANTS} if args.variants else OPTIONS
    names = list(dict.fromkeys([PLAIN, *(args.only or options)]))
    results = {name: [] for name in names}
    trained = {}
    with tqdm(total=len(names) * args.seeds, unit='head', disable=None) as bar:
        for seed in range(args.seeds):
            for name in names:
                option = options[name]
                # Options that do not change the training are evaluated on the plain head itself.
                changes = {**option.head, **_sources(option, splits['train'])}
                key = (seed, json.dumps(changes, sort_keys=True))
                if key not in trained:
                    trained[key] = train(config, changes, splits['train'], seed, args.iterations, args.pairs)
                results[name].append(judge(trained[key], splits['validation'], option))
                bar.update()
    print(table(results, args))
    if args.out:
        write_text(args.out, json.dumps(results, indent=2) + '\n')


def _sources(option: Option, split: Split) -> dict:
    """The keys of the head's config that say which streams feed it."""
    if option.sources is None:
        return {}
    channels = sum(split.features[source].shape[2] for source in option.sources)
    return {'sources': option.sources, 'in_channels': channels}


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_detector_arguments(parser)
    parser.add_argument('--seeds', type=positive, default=3, help='number of seeds')
    parser.add_argument('--iterations', type=positive, default=1500, help='iterations to train a head')
    parser.add_argument('--pairs', type=positive, default=8, help='image pairs per batch')
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument('--only', nargs='+', choices=OPTIONS, help='compare only these options with the plain head')
    chosen.add_argument('--variants', action='store_true', help="compare the paper's five variants of matching instead")
    parser.add_argument('--out', type=Path, help='also write the figures of every seed to this JSON file')
    return parser.parse_args()


def positive(text: str) -> int:
    """Parses an integer of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be 1 or more, got {value}')
    return value


def train(config: Config, changes: dict, split: Split, seed: int, iterations: int, pairs: int) -> MatchHead:
    """Trains a head with the optimiser of the config; the learning rate is warmed up and then falls as a cosine."""
    torch.manual_seed(seed)
    # As the paper's head does, all of them compare the garments of one batch alone.
    head = MODELS.build({**config.model.roi_head.match_head, 'memory': 0, **changes})
    head.init_weights()
    head.train()
    wrapper = build_optim_wrapper(head, config.optim_wrapper)
    warm_up = min(WARM_UP, iterations // 2)
    rate = torch.optim.lr_scheduler.LambdaLR(
        wrapper.optimizer,
        lambda step: min(1, (step + 1) / (warm_up + 1)) * (1 + math.cos(math.pi * step / iterations)) / 2,
    )
    labels = garments_of(split.store)
    rng = np.random.default_rng(seed)
    for images in batches(split.store, rng, iterations, pairs):
        rows, mirrored = garment_rows(split.store, images, rng)
        features = split.joined(head.sources, rows, mirrored)
        with wrapper.optim_context(head):
            losses = head.loss(head.project([features]), *(column[rows] for column in labels))
        wrapper.update_params(sum(losses.values()))
        rate.step()
    return head.eval()


def garments_of(store: Store) -> tuple[Tensor, ...]:
    """``is_shop``, ``identities``, ``pair_ids`` and ``labels`` of all items, as ``MatchHead.loss`` takes them."""
    columns = (
        store.sources[store.item_images] == Source.SHOP,
        store.identities,
        store.pair_ids[store.item_images],
        store.category_ids - 1,
    )
    return tuple(torch.from_numpy(np.asarray(column).astype(np.int64)) for column in columns)


def batches(store: Store, rng: np.random.Generator, iterations: int, pairs: int):
    """Yields the images of each batch: user images, each once per epoch, with a shop image of the same identity."""
    known = np.flatnonzero(store.identities >= 0)
    sampler = IdentityPairs(store.item_images[known], store.identities[known], store.sources)
    size = min(pairs, len(sampler.user_images))
    left = np.zeros((0, 2), dtype=np.int64)
    for _ in range(iterations):
        if len(left) < size:
            left = sampler.draw(rng)
        batch, left = left[:size], left[size:]
        yield batch.reshape(-1)


def garment_rows(store: Store, images: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The rows (n,) of all items of the images, and whether each is mirrored (n,), as half of the images are."""
    spans = [np.arange(store.item_offsets[image], store.item_offsets[image + 1]) for image in images]
    mirrored = np.repeat(rng.random(len(images)) < 0.5, [len(span) for span in spans])
    return torch.from_numpy(np.concatenate(spans)), torch.from_numpy(mirrored)


@torch.no_grad()
def judge(head: MatchHead, split: Split, option: Option) -> dict[str, float]:
    """Top-1, top-10 and mAP of a head, and the share of dimensions whose weight is positive."""
    embeddings = embed(head, split, mirrored=False)
    if option.flip:
        embeddings = (embeddings + embed(head, split, mirrored=True)) / 2
    parameters = {name: value.numpy() for name, value in head.similarity_parameters().items()}
    similarity = Similarity(**parameters)
    store, embeddings = split.store, embeddings.numpy()
    is_shop = store.sources[store.item_images] == Source.SHOP
    items, gallery = (retrieval_items(store, source) for source in (Source.USER, Source.SHOP))
    vectors, queries = embeddings[is_shop], embeddings[~is_shop]
    queries = expand_queries(similarity, queries, vectors, option.hits, option.power)
    boxes = as_boxes(gallery, vectors)
    outcome = find(items, as_boxes(items, queries), boxes, parameters).judged(items, gallery, boxes)
    figures = summarize(outcome)
    return {
        **{name: figures[name] for name in FIGURES},
        'queries': figures['queries'],
        'positive_weights': float((similarity.difference > 0).mean()),
    }


def embed(head: MatchHead, split: Split, mirrored: bool) -> Tensor:
    """(n, D) embeddings of all items, of the images or of the mirrored ones."""
    rows = torch.arange(len(split.store.item_images))
    parts = [split.joined(head.sources, part, torch.full((len(part),), mirrored)) for part in rows.split(256)]
    return torch.cat([head([part]) for part in parts])


def as_boxes(items: RetrievalItems, embeddings: np.ndarray) -> EmbeddedBoxes:
    """The boxes of items as detections of score 1."""
    return EmbeddedBoxes(
        image_ids=items.image_ids,
        boxes=items.boxes,
        labels=items.labels,
        scores=np.ones(len(items.boxes)),
        embeddings=embeddings,
    )


def table(results: dict[str, list[dict]], args: argparse.Namespace) -> str:
    """The table of results in Markdown."""
    queries = int(results[PLAIN][0]['queries'])
    lines = [
        f'{queries} queries; mean and standard deviation over {args.seeds} seeds, {args.iterations} iterations of '
        f'{args.pairs} image pairs',
        '',
        '| option | top-1 | top-10 | mAP | top-1, gain | top-10, gain | mAP, gain | positive weights |',
        '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    for name, rows in results.items():
        cells = [spread([100 * row[figure] for row in rows]) for figure in FIGURES]
        for figure in FIGURES:
            differences = [100 * (row[figure] - plain[figure]) for row, plain in zip(rows, results[PLAIN], strict=True)]
            cells.append('' if name == PLAIN else spread(differences, sign='+'))
        share = np.mean([row['positive_weights'] for row in rows])
        lines.append(f'| {" | ".join([name, *cells, f"{share:.0%}"])} |')
    return '\n'.join(lines)


def spread(values: list[float], sign: str = '') -> str:
    """Mean and standard deviation as text; ``sign`` is that of the format specification."""
    deviation = f' ± {np.std(values, ddof=1):.1f}' if len(values) > 1 else ''
    return f'{np.mean(values):{sign}.1f}{deviation}'


if __name__ == '__main__':
    main()

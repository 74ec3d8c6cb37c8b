"""Measures galleries on made embeddings: recall, time, memory and build time of each index, and of plain faiss.

    python benchmarks/benchmark_gallery.py --dir /some/disk                  # 1,000,000 items
    python benchmarks/benchmark_gallery.py --dir /some/disk --items 100000 --shape low-rank
    python benchmarks/benchmark_gallery.py --dir /some/disk --shape embeddings.npy

The embeddings have a shape: 'clusters' like those of a gallery (styles, identities, several photos per identity) of
equal size or 'uneven', 'low-rank', or 'gaussian' without any structure. With a file (n, D), such as a trained model's
embeddings, they are drawn around its rows. The similarity has weights of either sign. Queries are searched one at a
time, and a hundred together. Recall is the share of the exact 20 best that are among the 20 found. Each index is
measured in a process of its own; its memory is what the process holds after the search, with the table of items and
without the vectors, which are a mapped file. 'open' is the time to open the gallery with its saved index, without
hashing its files.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.local.graph import GraphSettings
from mmdf2.retrieval.local.lists import ListSettings
from mmdf2.retrieval.similarity import Similarity

WIDTH, K, QUERIES = 256, 20, 300
SHAPES = ('clusters', 'uneven', 'low-rank', 'gaussian')
LOW_RANK = 16
# Name -> settings of the gallery's index; None for the exact search.
INDEXES = {
    'exact': None,
    'lists, 128 probes': ListSettings(probes=128),
    'lists, recall .99': ListSettings(),
    'lists, 512 probes': ListSettings(probes=512),
    'lists of 64 bytes, recall .99': ListSettings(code_bytes=64),
    'graph': GraphSettings(),
}
PLAIN = {'plain faiss, flat L2': 'Flat', 'plain faiss, IVF L2, 256 probes': 'IVF{lists},Flat'}


def main() -> None:
    """Makes the gallery if it is missing, measures each index and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', type=Path, required=True, help='folder for the made galleries (1.2 KB per item)')
    parser.add_argument('--items', type=int, default=1_000_000)
    parser.add_argument('--categories', type=int, default=1, choices=range(1, 14), metavar='N', help='1 to 13')
    parser.add_argument('--shape', default=SHAPES[0], help=f'{", ".join(SHAPES)} or FILE.npy (default: {SHAPES[0]})')
    parser.add_argument('--only', nargs='+', choices=[*INDEXES, *PLAIN], help='measure only these indexes')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.dir / f'{Path(args.shape).stem}-{args.items}-{args.categories}'
    if args.run:
        print(json.dumps(run(folder, args.run)))
        return
    if not (folder / 'finished').exists():
        make(folder, args.items, args.categories, args.shape)
    print(
        f'{args.items:,} items, shape: {args.shape}, categories: {args.categories}, all searched; {QUERIES} queries, '
        f'the {K} best, {os.cpu_count()} cores'
    )
    print(f'{"index":<34}{"recall":>8}{"ms":>8}{"ms of 100":>11}{"build, s":>10}{"open, s":>9}{"MB":>8}')
    for name in args.only or [*INDEXES, *PLAIN]:
        options = ['--dir', args.dir, '--items', args.items, '--categories', args.categories, '--shape', args.shape]
        options += ['--run', name]
        command = [sys.executable, __file__, *map(str, options)]
        figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(
            f'{name:<34}{figures["recall"]:>8.3f}{figures["single"]:>8.2f}{figures["batch"]:>11.2f}'
            f'{figures["build"]:>10.1f}{figures["open"]:>9.2f}{figures["megabytes"]:>8.0f}',
            flush=True,
        )


def identities_of(shape: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """The identities of a shape: (n, D) float32 embeddings, (n,) families from 0 to 12, and their photos' noise."""
    family = rng.integers(0, 13, count)
    if shape == 'gaussian':
        return np.zeros((count, WIDTH), np.float32), family, 1.0
    if shape == 'low-rank':
        points = rng.normal(size=(count, LOW_RANK)) @ rng.normal(size=(LOW_RANK, WIDTH))
        return points.astype(np.float32), family, 0.05
    if shape not in SHAPES:
        known = np.load(shape)
        centres = known[rng.integers(0, len(known), count)] + rng.normal(size=(count, known.shape[1])) * known.std() / 8
        return centres.astype(np.float32), family, float(known.std() / 8)
    families, styles = rng.normal(size=(13, WIDTH)) * 0.6, rng.normal(size=(3000, WIDTH)) * 0.6
    style = rng.integers(0, 3000, count) if shape == 'clusters' else np.minimum(rng.zipf(1.3, count) - 1, 2999)
    centres = families[family] + styles[style] + rng.normal(size=(count, WIDTH)) * 0.45
    return centres.astype(np.float32), family, 0.35


def make(folder: Path, count: int, categories: int, shape: str) -> None:
    """Writes a gallery, queries and their exact top-k."""
    rng = np.random.default_rng(0)
    identities = max(count // 8, 1)
    centres, family, noise = identities_of(shape, identities, rng)
    width = centres.shape[1]
    weight = -np.abs(rng.normal(size=width)) / width
    weight[rng.random(width) < 0.2] *= -0.5
    gallery = FaissGallery(Similarity(np.stack([weight, -weight]), np.zeros(2)), model='made')

    def photos(number: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
        rows = rng.integers(0, identities, number)
        embeddings = centres[rows] + rng.normal(size=(number, width)).astype(np.float32) * np.float32(noise)
        return embeddings, family[rows] % categories + 1

    step = 50_000
    for start in tqdm(range(0, count, step), desc='making items', disable=None):
        number = min(step, count - start)
        embeddings, category_ids = photos(number, noise)
        items = [
            GalleryItem(f'{start + row}.jpg', (0, 0, 9, 9), category)
            for row, category in enumerate(category_ids.tolist())
        ]
        gallery.add(embeddings, items)
    queries, _ = photos(QUERIES, noise * 1.3)
    folder.mkdir(parents=True, exist_ok=True)
    gallery.save(folder / 'gallery')
    np.save(folder / 'queries.npy', queries)
    np.save(folder / 'exact.npy', gallery.search_ids(queries, K, range(1, 14))[1])
    (folder / 'finished').touch()


def run(folder: Path, name: str) -> dict[str, float]:
    """Measures one index: recall, ms per query (one at a time, and of 100 together), seconds to build, memory."""
    queries, exact = np.load(folder / 'queries.npy'), np.load(folder / 'exact.npy')
    gallery = FaissGallery.load(folder / 'gallery', verify=False)
    start = time.perf_counter()
    search = plain_search(gallery, PLAIN[name]) if name in PLAIN else own_search(gallery, INDEXES[name])
    build = time.perf_counter() - start
    search(queries[:1])
    start = time.perf_counter()
    found = np.concatenate([search(queries[row : row + 1]) for row in range(len(queries))])
    single = (time.perf_counter() - start) / len(queries)
    start = time.perf_counter()
    search(queries[:100])
    batch = (time.perf_counter() - start) * 1e3 / 100
    megabytes = own_memory()
    return {
        'recall': float(np.mean([np.isin(right, line).mean() for right, line in zip(exact, found, strict=True)])),
        'single': single * 1e3,
        'batch': batch,
        'build': build,
        'open': 0.0 if name in PLAIN else seconds_to_open(gallery, folder / 'indexed'),
        'megabytes': megabytes,
    }


def seconds_to_open(gallery: FaissGallery, folder: Path) -> float:
    """Saves a gallery with its index and opens it again, without hashing its files."""
    gallery.save(folder)
    start = time.perf_counter()
    FaissGallery.load(folder, verify=False)
    return time.perf_counter() - start


def own_memory() -> float:
    """Megabytes that the process holds without mapped files, or with them where the system does not tell them apart."""
    try:
        status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
        return int(status['RssAnon'].split()[0]) / 1024
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_search(gallery: FaissGallery, settings: ListSettings | GraphSettings | None):
    """A search of the gallery, exact or by an index."""
    if settings is not None:
        given = isinstance(settings, GraphSettings) or settings.probes is not None
        gallery.build_index(settings, least_items=20_000, target_recall=None if given else 0.99)
    return lambda queries: gallery.search_ids(queries, K, range(1, 14))[1]


def plain_search(gallery: FaissGallery, factory: str):
    """A search by faiss over plain embeddings by Euclidean distance, as one would do without the similarity."""
    # Only here: an imported faiss would count in the memory of the exact search.
    import faiss

    parts = [gallery.partition_arrays(category) for category in range(1, 14)]
    vectors, ids = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    # 4,000 lists for a million items, and as few items per list as faiss wants for its k-means in smaller galleries.
    index = faiss.index_factory(vectors.shape[1], factory.format(lists=min(4000, max(1, len(vectors) // 39))))
    if not index.is_trained:
        index.train(vectors[:: max(1, len(vectors) // 250_000)])
        index.nprobe = 256  # all lists if there are fewer
    index.add(vectors)
    return lambda queries: ids[index.search(queries, K)[1]]


if __name__ == '__main__':
    main()

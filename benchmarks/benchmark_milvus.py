"""Measures a gallery in Milvus and one in a folder, on the made embeddings of benchmarks/benchmark_gallery.py.

    python benchmarks/benchmark_milvus.py --dir /some/disk                                  # 100,000 items, milvus-lite
    python benchmarks/benchmark_milvus.py --dir /some/disk --at http://host:19530 --items 1000000

The gallery is transferred, then searched exactly and by the graph. Recall is the share of the exact 20 best that are
among the 20 found. milvus-lite runs in the same process, so the memory that the process gains is that of Milvus. At an
address the gallery must not exist yet, and it stays there.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
from benchmark_gallery import WIDTH, K, make, own_memory

from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.milvus.gallery import MilvusGallery
from mmdf2.retrieval.transfer import transfer


def main() -> None:
    """Makes the gallery if it is missing, transfers it, measures the searches and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', type=Path, required=True, help='folder for the made galleries (8 KB per item)')
    parser.add_argument('--items', type=int, default=100_000)
    parser.add_argument('--categories', type=int, default=13, choices=range(1, 14), metavar='N', help='1 to 13')
    parser.add_argument('--at', help='address of a Milvus server (default: a file of milvus-lite in DIR)')
    args = parser.parse_args()
    folder = args.dir / f'{args.items}-{args.categories}'
    if not (folder / 'finished').exists():
        make(folder, args.items, args.categories)
    source = FaissGallery.load(folder / 'gallery', verify=False)
    at = args.at or str(folder / 'milvus.db')
    if not args.at:
        shutil.rmtree(at, ignore_errors=True)
    gallery, before = MilvusGallery.create(at, source.similarity, source.model), own_memory()
    start = time.perf_counter()
    transfer(source, gallery)
    print(f'{args.items:,} items of {WIDTH} columns in {args.categories} categories: transferred, {_since(start)}')
    print(f'{"search":<24}{"recall":>8}{"ms":>9}{"ms, 1 category":>16}')
    queries, exact = np.load(folder / 'queries.npy'), np.load(folder / 'exact.npy')
    print(_row('folder, exact', source, queries, exact))
    print(_row('Milvus, exact', gallery, queries, exact))
    if not args.at:
        print(f'memory {(own_memory() - before) * 2**20 / args.items:.0f} bytes per item, ', end='')
        size = sum(path.stat().st_size for path in Path(at).rglob('*') if path.is_file())
        print(f'disk {size / args.items:.0f} bytes per item')
    start = time.perf_counter()
    gallery.build_index(least_items=1)
    print(f'graph: built, {_since(start)}')
    print(_row('Milvus, graph', gallery, queries, exact))
    gallery.close()


def _row(name: str, gallery, queries: np.ndarray, exact: np.ndarray) -> str:
    """A line of the table: recall, ms per query in all categories, and in one."""
    gallery.search(queries[:1], K)
    start = time.perf_counter()
    found = [[hit.id for hit in gallery.search(query[None], K)[0]] for query in queries]
    single = (time.perf_counter() - start) / len(queries)
    start = time.perf_counter()
    for query in queries[:50]:
        gallery.search(query[None], K, [1])
    category = (time.perf_counter() - start) / 50
    recall = np.mean([np.isin(right, line).mean() for right, line in zip(exact, found, strict=True)])
    return f'{name:<24}{recall:>8.3f}{single * 1e3:>9.1f}{category * 1e3:>16.1f}'


def _since(start: float) -> str:
    return f'{time.perf_counter() - start:.0f} s'


if __name__ == '__main__':
    main()

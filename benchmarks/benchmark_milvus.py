"""Measures a gallery in Milvus beside bare pymilvus and one in a folder, on made embeddings.

The embeddings are those of benchmarks/benchmark_gallery.py.

    python benchmarks/benchmark_milvus.py --dir /some/disk                                  # 100,000 items, milvus-lite
    python benchmarks/benchmark_milvus.py --dir /some/disk --at http://host:19530 --items 1000000

The gallery is transferred, then searched exactly and by the graph. Bare pymilvus inserts the same rows into a second
collection of the same columns, and searches it for the 20 best by Milvus's own scores. Recall is the share of the exact
20 best that are among the 20 found. milvus-lite runs in the same process, so the memory that the process gains is that
of Milvus. At an address the gallery must not exist yet, and it stays there.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmark_gallery import SHAPES, WIDTH, K, make, own_memory

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.milvus.collection import ItemIndex, create_item_collection, exact_metric
from mmdf2.retrieval.milvus.gallery import MilvusGallery
from mmdf2.retrieval.milvus.rows import to_row
from mmdf2.retrieval.transfer import transfer


class Found(NamedTuple):
    """What bare pymilvus finds."""

    id: int


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
        make(folder, args.items, args.categories, SHAPES[0])
    source = FaissGallery.load(folder / 'gallery', verify=False)
    at = args.at or str(folder / 'milvus.db')
    if not args.at:
        shutil.rmtree(at, ignore_errors=True)
    gallery, before = MilvusGallery.create(at, source.similarity, source.model), own_memory()
    start = time.perf_counter()
    transfer(source, gallery)
    taken = time.perf_counter() - start
    print(f'{args.items:,} items of {WIDTH} columns in {args.categories} categories')
    print(f'transferred at {args.items / taken:,.0f} items per second, in {taken:.0f} s')
    bare = BareCollection(gallery)
    print(f'bare pymilvus: {args.items / bare.fill(source):,.0f} rows per second')
    print(f'{"search":<24}{"recall":>8}{"ms":>9}{"ms, 1 category":>16}')
    queries, exact = np.load(folder / 'queries.npy'), np.load(folder / 'exact.npy')
    print(_row('folder, exact', source, queries, exact))
    print(_row('Milvus, exact', gallery, queries, exact))
    print(_row('bare pymilvus, exact', bare, queries, exact))
    if not args.at:
        print(f'memory {(own_memory() - before) * 2**20 / args.items:.0f} bytes per item, ', end='')
        size = sum(path.stat().st_size for path in Path(at).rglob('*') if path.is_file())
        print(f'disk {size / args.items:.0f} bytes per item')
    start = time.perf_counter()
    gallery.build_index(least_items=1)
    print(f'graph: built, {_since(start)}')
    print(_row('Milvus, graph', gallery, queries, exact))
    bare.build_graph()
    print(_row('bare pymilvus, graph', bare, queries, exact))
    bare.drop()
    gallery.close()


class BareCollection:
    """The rows of a gallery in a second collection, written and searched by pymilvus itself.

    Args:
        gallery: The gallery whose connection is used.
    """

    name = 'bare'

    def __init__(self, gallery: MilvusGallery) -> None:
        self._connection, self._space = gallery._connection, gallery._description.space
        self._client, self._metric = gallery._connection._client, exact_metric(gallery.similarity)
        self.drop()
        create_item_collection(gallery._connection, self.name, gallery.similarity)

    def drop(self) -> None:
        """Deletes the collection where it exists."""
        if self._client.has_collection(self.name):
            self._client.drop_collection(self.name)

    def fill(self, source: FaissGallery) -> float:
        """Inserts all items, 500 rows at a time; returns the seconds in pymilvus and in the server alone."""
        taken = 0.0
        for category in range(1, NUM_CATEGORIES + 1):
            embeddings, ids = source.partition_arrays(category)
            for begin in range(0, len(ids), 500):
                part = slice(begin, begin + 500)
                items = source.items(ids[part])
                rows = [to_row(number, items[number]) for number in ids[part].tolist()]
                vectors = self._space.items(embeddings[part])
                for row, vector, embedding in zip(rows, vectors, embeddings[part].tolist(), strict=True):
                    row.update(vector=vector, embedding=embedding)
                start = time.perf_counter()
                self._client.insert(self.name, rows)
                taken += time.perf_counter() - start
        start = time.perf_counter()
        self._client.flush(self.name)
        return taken + time.perf_counter() - start

    def build_graph(self) -> None:
        """Exchanges the index for the one of the gallery."""
        ItemIndex(self._connection, self.name).exchange('HNSW', 'L2')
        self._metric = 'L2'

    def search(self, embeddings: np.ndarray, k: int, categories: list[int] | None = None) -> list[list[Found]]:
        """Milvus's own k best, with what a user shows of an item."""
        found = self._client.search(
            self.name,
            data=list(self._space.queries(embeddings)),
            limit=k,
            filter=f'category in {categories}' if categories else '',
            search_params={'metric_type': self._metric, 'params': {'ef': 200}},
            output_fields=['image', 'details'],
            consistency_level='Session',
        )
        return [[Found(hit['id']) for hit in hits] for hits in found]


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

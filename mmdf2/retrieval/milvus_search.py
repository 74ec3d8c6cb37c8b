"""Reads from a gallery in Milvus: candidates by the searched space, then the direct form in double precision."""

from collections.abc import Iterable, Iterator

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.retrieval.gallery import Hit
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.milvus_client import MilvusConnection
from mmdf2.retrieval.milvus_rows import from_row
from mmdf2.retrieval.reduction import DistanceSpace

_MOST = 16_384  # results of a query in Milvus
_ROWS = 1000  # read at once
_RESULTS = 50_000  # of the queries of one call
_MORE = 16  # candidates beyond k of an exact search
_WIDER = 4  # times k candidates of a graph
# Four times what D products in single precision lose, for D to 4096: the sum's errors are random in sign.
_ROUNDING = 2.0**-18


class MilvusSearch:
    """Searches and reads of a collection.

    Args:
        connection: Where.
        collection: The items' collection.
    """

    def __init__(self, connection: MilvusConnection, collection: str) -> None:
        self._connection, self._collection = connection, collection

    def search(
        self, space: DistanceSpace, index: dict, embeddings: np.ndarray, k: int, categories: list[int]
    ) -> list[list[Hit]]:
        """The hits of checked queries by an index as ``MilvusIndex.describe`` has it; exact by a flat one.

        Raises:
            ValueError: k is above Milvus's limit.
        """
        if k > _MOST:
            raise ValueError(f'Milvus finds {_MOST} items of a query at most, got k {k}; remedy: a smaller k')
        exact, metric = index['index_type'] == 'FLAT', index['metric_type']
        expression = '' if len(categories) == NUM_CATEGORIES else f'category in {categories}'
        found = [None] * len(embeddings)
        wanted = min(k + _MORE if exact else _WIDER * k + _MORE, _MOST)
        left = np.arange(len(embeddings))
        while len(left):
            again = []
            # milvus-lite subtracts all queries from all items at once.
            step = min(max(_RESULTS // wanted, 1), 4 if metric == 'L2' else 64)
            for start in range(0, len(left), step):
                part = left[start : start + step]
                results = self._candidates(space, embeddings[part], wanted, expression, metric)
                vectors = self.embeddings({number for ids in results for number in ids})
                for row, ids in zip(part, results, strict=True):
                    best, complete = _best(space, embeddings[row], ids, vectors, k, len(ids) < wanted)
                    found[row] = best
                    if exact and not complete and wanted < _MOST:
                        again.append(row)
            left, wanted = np.array(again, dtype=int), min(wanted * 4, _MOST)
        return self._hits(found)

    def _candidates(self, space: DistanceSpace, embeddings, wanted: int, expression: str, metric: str) -> list:
        """Ids of each query, the best by the space first."""
        return [
            [int(hit['id']) for hit in hits]
            for hits in self._connection.call(
                'search',
                self._collection,
                data=list(space.queries(embeddings)),
                anns_field='vector',
                limit=wanted,
                filter=expression,
                search_params={'metric_type': metric, 'params': {'ef': max(2 * wanted, 128)}},
                output_fields=['id'],
            )
        ]

    def _hits(self, found: list) -> list[list[Hit]]:
        items = self.items({number for line in found for number, _ in line})
        # An item can be removed between the two reads.
        return [[Hit(number, score, items[number]) for number, score in line if number in items] for line in found]

    def items(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """Id -> item of those that are there."""
        rows = self._rows(ids, ['id', 'category', 'image', 'details'])
        return {int(row['id']): from_row(row) for row in rows}

    def embeddings(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """Id -> (D,) float32 embedding of those that are there."""
        return {int(row['id']): np.array(row['embedding'], np.float32) for row in self._rows(ids, ['id', 'embedding'])}

    def present(self, ids: Iterable[int]) -> set[int]:
        """Those ids that are there."""
        return {int(row['id']) for row in self._rows(ids, ['id'])}

    def _rows(self, ids: Iterable[int], columns: list[str]) -> Iterator[dict]:
        ids = sorted({int(number) for number in ids})
        for start in range(0, len(ids), _ROWS):
            part = ids[start : start + _ROWS]
            yield from self._connection.call('query', self._collection, ids=part, output_fields=columns)


def _best(space: DistanceSpace, query: np.ndarray, ids: list, vectors: dict, k: int, whole: bool) -> tuple[list, bool]:
    """The k best (id, score) of a query's candidates by the direct form, and whether no other item can be among them.

    None can when the candidates are all items, or when the last of them, which the space ranks above all others, is
    behind the k-th by more than the space rounds.
    """
    there = [number for number in ids if number in vectors]
    if not there:
        return [], True
    embeddings = np.stack([vectors[number] for number in there])
    scores = space.products.similarity.scores(query[None], embeddings)[0]
    order = np.lexsort((there, -scores))[:k]
    best = [(there[row], float(scores[row])) for row in order]
    if whole or len(best) < k:
        return best, whole
    columns = space.products.items(embeddings).astype(np.float64)
    lengths = np.linalg.norm(columns[:, :-1] if space.radius is None else columns, axis=1)
    reach = (np.linalg.norm(space.queries(query[None]).astype(np.float64)) + lengths.max()) ** 2
    return best, bool(scores[-1] < best[-1][1] - _ROUNDING * reach)

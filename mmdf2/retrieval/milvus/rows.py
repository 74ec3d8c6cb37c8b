"""How items lie in Milvus as rows, and how rows are found: by id, by a field's value and by similarity.

Milvus finds candidates in the searched space of single-precision numbers, and the direct form in double precision
scores them again, see :mod:`mmdf2.retrieval.similarity`.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.retrieval.gallery import Hit
from mmdf2.retrieval.items import GalleryItem, exact, exact_values, has_value, is_scalar, json_of
from mmdf2.retrieval.milvus.client import MilvusConnection
from mmdf2.retrieval.milvus.collection import LONGEST_TEXT, MOST_MARKS
from mmdf2.retrieval.similarity import DistanceSpace

_LOGGER = logging.getLogger(__name__)
_ITEM_COLUMNS = ['id', 'category', 'image', 'details']
_BATCH_ROWS = 500
_BATCH_BYTES = 8 << 20  # Milvus refuses messages of 64 MiB

_MOST_RESULTS = 16_384  # of a query in Milvus
_ROWS_PER_READ = 1000  # whole rows in one answer, which Milvus limits to 64 MiB
_MORE = 16  # candidates beyond k of an exact search, because the searched space rounds
_EFFORT_PER_HIT = 10  # items that a query of a graph is compared with, per wanted hit
_LARGEST_EFFORT = 32_768  # items that a query of a graph is compared with, by Milvus's limit
# Relative error of a sum of D products in single precision, for D up to 4096, and four times as much for safety: the
# roundings are random in sign.
_ROUNDING = 2.0**-18


class ItemRows:
    """Reads and searches of the items' collection.

    Args:
        connection: The connection to Milvus.
        collection: Name of the items' collection.
    """

    def __init__(self, connection: MilvusConnection, collection: str) -> None:
        self._connection, self._collection = connection, collection
        self._warned = False

    def items(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """Id -> item, for those ids that are there."""
        rows = self._rows(ids, _ITEM_COLUMNS)
        return {int(row['id']): from_row(row) for row in rows}

    def embeddings(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """Id -> (D,) float32 embedding, for those ids that are there."""
        return {int(row['id']): np.array(row['embedding'], np.float32) for row in self._rows(ids, ['id', 'embedding'])}

    def present(self, ids: Iterable[int]) -> set[int]:
        """Returns those of the ids that the gallery has."""
        return {int(row['id']) for row in self._rows(ids, ['id'])}

    def wait_for_all_writes(self) -> None:
        """Returns when the server has at hand what any process has written; no later read needs to wait for that."""
        with self._connection.seeing_all_writes():
            self.present([0])

    def count(self, expression: str) -> int:
        """Number of items that a filter of Milvus lets through; all of them for an empty one."""
        found = self._connection.read('query', self._collection, filter=expression, output_fields=['count(*)'])
        return int(found[0]['count(*)'])

    def ids_where(self, name: str, values: Iterable) -> list[int]:
        """Rising ids of the items whose field, or for the name 'image' whose image, has one of some values.

        Raises:
            TypeError: A text in place of a list, or values that are neither text nor number.
        """
        wanted = exact_values(values)
        kind = ('image', '') if name == 'image' else ('field', name)
        marks = sorted({mark(*kind, value) for _, value in wanted})
        found: set[int] = set()
        for start in range(0, len(marks), _BATCH_ROWS):
            expression = f'array_contains_any(marks, {marks[start : start + _BATCH_ROWS]})'
            rows = self._connection.read('query', self._collection, filter=expression, output_fields=['id'])
            found.update(int(row['id']) for row in rows)
        # Marks can collide, and are the same for 1 and True, so the items themselves decide.
        fields = {number: {**item.fields, 'image': item.image} for number, item in self.items(found).items()}
        return sorted(number for number, own in fields.items() if has_value(own, name, wanted))

    def _rows(self, ids: Iterable[int], columns: list[str]) -> Iterator[dict]:
        ids = sorted({int(number) for number in ids})
        for start in range(0, len(ids), _ROWS_PER_READ):
            part = ids[start : start + _ROWS_PER_READ]
            yield from self._connection.read('query', self._collection, ids=part, output_fields=columns)

    def search(
        self, space: DistanceSpace, index: dict, embeddings: np.ndarray, k: int, categories: list[int], given: int = 0
    ) -> list[list[Hit]]:
        """The hits of checked queries; exact when the index is flat.

        Args:
            space: The searched space.
            index: The index as ``ItemIndex.describe`` gives it.
            embeddings: (m, D) float32.
            k: Hits per query at most.
            categories: category_ids to search in, rising.
            given: Number of ids that were ever given, where a graph counts items that it must not find (removed ones
                and those of other categories) among those that it compares a query with; otherwise 0.

        Raises:
            ValueError: k is above Milvus's limit.
        """
        if k > _MOST_RESULTS:
            raise ValueError(f'Milvus finds {_MOST_RESULTS} items per query at most, got k {k}; remedy: a smaller k')
        exact, metric = index['index_type'] == 'FLAT', index['metric_type']
        expression = '' if len(categories) == NUM_CATEGORIES else f'category in {categories}'
        found: list[list[Hit]] = [[] for _ in embeddings]
        wanted = min(k + _MORE if exact else k, _MOST_RESULTS)
        hidden = self._hidden(given, expression)
        left = np.arange(len(embeddings))
        while len(left):
            again = []
            # milvus-lite subtracts all queries of a call from all items at once.
            step = min(max(_ROWS_PER_READ // wanted, 1), 4 if metric == 'L2' else 64)
            for start in range(0, len(left), step):
                part = left[start : start + step]
                effort = min(max(_EFFORT_PER_HIT * k, 128) + hidden, _LARGEST_EFFORT)
                results = self._candidates(space, embeddings[part], wanted, effort, expression, metric)
                for row, candidates in zip(part, results, strict=True):
                    found[row], complete = _best(space, embeddings[row], candidates, k, len(candidates) < wanted)
                    if exact and not complete and wanted < _MOST_RESULTS:
                        again.append(row)
            left, wanted = np.array(again, dtype=int), min(wanted * 4, _MOST_RESULTS)
        return found

    def _hidden(self, given: int, expression: str) -> int:
        """Number of items that a graph may meet and must not find; 0 if no number of given ids is known."""
        hidden = max(given - self.count(expression), 0) if given else 0
        if hidden > _LARGEST_EFFORT and not self._warned:
            self._warned = True
            _LOGGER.warning(
                '%d items were removed or are of categories that are not searched, and the graph of milvus-lite meets '
                '%d at most: it may miss hits. Use a Milvus server, or build_index() with least_items above %d, which '
                'makes searches exact',
                hidden,
                _LARGEST_EFFORT,
                given,
            )
        return hidden

    def _candidates(self, space, embeddings, wanted: int, effort: int, expression: str, metric: str) -> list:
        """Rows with their embeddings for each query, the best by the searched space first.

        One call finds them and brings them, because a second one would take a server longer than these bytes. More rows
        than an answer may hold are read by their ids, some at a time.
        """
        columns = [*_ITEM_COLUMNS, 'embedding']
        found = self._connection.read(
            'search',
            self._collection,
            data=list(space.queries(embeddings)),
            anns_field='vector',
            limit=wanted,
            filter=expression,
            search_params={'metric_type': metric, 'params': {'ef': effort}},
            output_fields=columns if wanted <= _ROWS_PER_READ else ['id'],
        )
        if wanted <= _ROWS_PER_READ:
            return [[hit['entity'] for hit in hits] for hits in found]
        ids = [[int(hit['id']) for hit in hits] for hits in found]
        rows = {int(row['id']): row for row in self._rows({number for line in ids for number in line}, columns)}
        # Another process may have removed an item between the two reads.
        return [[rows[number] for number in line if number in rows] for line in ids]


def _best(space: DistanceSpace, query: np.ndarray, rows: list, k: int, whole: bool) -> tuple[list[Hit], bool]:
    """The k best hits of a query among its candidates by the direct form, and whether no other item can be among them.

    No other can when the candidates are all items (``whole``), or when the last candidate, which the searched space
    ranks above every other item, scores less than the k-th by more than the searched space rounds.
    """
    if not rows:
        return [], True
    ids = np.array([row['id'] for row in rows])
    embeddings = np.array([row['embedding'] for row in rows], dtype=np.float32)
    scores = space.products.similarity.scores(query[None], embeddings)[0]
    order = np.lexsort((ids, -scores))[:k]
    best = [Hit(int(ids[row]), float(scores[row]), from_row(rows[row])) for row in order]
    if whole or len(best) < k:
        return best, whole
    columns = space.products.items(embeddings).astype(np.float64)
    lengths = np.linalg.norm(columns[:, :-1] if space.radius is None else columns, axis=1)
    reach = (np.linalg.norm(space.queries(query[None]).astype(np.float64)) + lengths.max()) ** 2
    return best, bool(scores[-1] < best[-1].score - _ROUNDING * reach)


def to_row(number: int, item: GalleryItem) -> dict:
    """The row of an item, without its two vectors.

    Raises:
        ValueError: The fields are not what JSON can hold, or the item has more text or fields than Milvus takes.
    """
    # Text, and not Milvus's own JSON, which has no numbers beyond 64 bits.
    details = json_of([item.box, item.landmarks, item.fields], item)
    for name, text in (('image', item.image), ('box, landmarks and fields', details)):
        size = len(text.encode())
        if size > LONGEST_TEXT:
            raise ValueError(f"{name} of item '{item.image[:80]}' take {size} bytes, Milvus holds {LONGEST_TEXT}")
    # The fields as they will be read: JSON turns all names into texts.
    fields = json.loads(details)[2]
    marks = {mark('field', name, value) for name, value in fields.items() if is_scalar(value)}
    marks.add(mark('image', '', item.image))
    if len(marks) > MOST_MARKS:
        raise ValueError(f"item '{item.image[:80]}' has {len(marks) - 1} fields, Milvus holds {MOST_MARKS - 1}")
    return dict(id=int(number), category=item.category_id, image=item.image, details=details, marks=sorted(marks))


def from_row(row: dict) -> GalleryItem:
    """The item of a row."""
    box, landmarks, fields = json.loads(row['details'])
    return GalleryItem(
        image=row['image'], box=box, category_id=int(row['category']), landmarks=landmarks, fields=fields
    )


def batches(rows: list[dict]) -> Iterator[list[dict]]:
    """Rows in order, in batches limited by their number and by bytes."""
    batch: list[dict] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == _BATCH_ROWS or size + _size(row) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += _size(row)
    if batch:
        yield batch


def _size(row: dict) -> int:
    """Approximate bytes of a row in a message."""
    return 4 * (len(row['vector']) + len(row['embedding'])) + 8 * len(row['marks']) + 2 * len(row['details']) + 64


def mark(kind: str, name: str, value) -> int:
    """A hash of 63 bits of a field's name and value, by which the column ``marks`` makes fields searchable.

    Searching by numbers keeps the caller's texts out of Milvus's filter language, so no text can change a filter's
    meaning.

    Args:
        kind: 'field', or 'image' for the item's image.
        name: The field's name; empty for the image.
        value: A text or a number.
    """
    text = json.dumps([kind, name, comparable(value)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big') >> 1


def comparable(value):
    """A text or number in a form in which equal values are written alike; True, 1 and 1.0 are so, too.

    Raises:
        TypeError: It is neither text nor number.
    """
    _, value = exact(value)
    if isinstance(value, float) and not value.is_integer():
        return value
    return value if isinstance(value, str) else int(value)

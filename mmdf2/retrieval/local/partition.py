"""A partition: the embeddings of one category, which grow, shrink and are searched by several threads at once.

Its rows lie in chunks, one of which may be a memory-mapped file, and are read as one array.
:func:`search_partitions` searches several partitions together: exactly by the compiled operator, and where a partition
has an index, by that.
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mmdf2.ops import pair_topk
from mmdf2.retrieval.local.graph import GraphSettings, NeighbourGraph
from mmdf2.retrieval.local.index_file import SavedIndex
from mmdf2.retrieval.local.lists import InvertedLists, ListSettings
from mmdf2.retrieval.local.probes import share_probes
from mmdf2.retrieval.local.rows import ChunkedRows
from mmdf2.retrieval.similarity import Similarity

_MORE = 16  # candidates beyond k of an exact search


@dataclass(frozen=True, eq=False)
class PartitionState:
    """What a search of a partition reads. It never changes: a change of the partition makes a new state.

    Attributes:
        vectors: (n, D) float32 embeddings: the file's, if there is one, and those added since.
        ids: (n,) int64, rising.
        index: The approximate index of rows before ``tail``, or None.
        rows: (places,) the row of each place in the index, -1 for a removed one; empty without an index.
        tail: The first row that is not in the index.
    """

    vectors: ChunkedRows
    ids: np.ndarray
    index: InvertedLists | NeighbourGraph | None = None
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    tail: int = 0

    @property
    def to_save(self) -> SavedIndex | None:
        """The index with what a file keeps of it, or None."""
        return None if self.index is None else SavedIndex(self.index, self.rows)

    @property
    def is_outdated(self) -> bool:
        """Whether at least half as many items were removed and added since as the index was built of."""
        changed = len(self.rows) - self.tail + len(self.ids) - self.tail
        return self.index is not None and 2 * changed >= len(self.rows)


class Partition:
    """Embeddings and ids, by rising id.

    Readers take a state. A writer writes beyond the state's end or into new arrays, and then puts a new state in its
    place, so readers need no lock.

    Args:
        similarity: The learned similarity.
        vectors: (n, D) float32 embeddings to begin with; may be memory-mapped and read only.
        ids: (n,) int64, rising.
        saved: An index of the first of these rows, or None.
    """

    def __init__(
        self, similarity: Similarity, vectors: np.ndarray, ids: np.ndarray, saved: SavedIndex | None = None
    ) -> None:
        self._similarity = similarity
        self._lock = threading.Lock()
        self._file = vectors  # never copied: it may be larger than the memory
        self._storage = np.empty((0, vectors.shape[1]), np.float32)  # embeddings added since, with room to grow
        self._ids = ids  # of all rows, with room to grow
        self._state = PartitionState(ChunkedRows([vectors]), ids)
        if saved is not None:
            tail = int((saved.rows >= 0).sum())
            self._state = replace(self._state, index=saved.index, rows=saved.rows, tail=tail)

    def __len__(self) -> int:
        return len(self._state.ids)

    @property
    def arrays(self) -> tuple[ChunkedRows, np.ndarray]:
        """(n, D) embeddings and (n,) ids."""
        state = self._state
        return state.vectors, state.ids

    @property
    def state(self) -> PartitionState:
        """What a search that begins now reads."""
        return self._state

    def append(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Adds rows whose ids are larger than all before. An index stays as it is; new rows are searched exactly."""
        with self._lock:
            state = self._state
            count, total = len(state.ids), len(state.ids) + len(ids)
            begin, end = count - len(self._file), total - len(self._file)
            self._storage = _with_room(self._storage, begin, end)
            self._ids = _with_room(self._ids, count, total)
            self._storage[begin:end], self._ids[count:total] = vectors, ids
            chunks = ChunkedRows([self._file, self._storage[:end]])
            self._state = replace(state, vectors=chunks, ids=self._ids[:total])

    def insert(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Adds rows of new, rising ids. Rows that belong between others take the index away."""
        numbers = self._state.ids
        if not len(numbers) or not len(ids) or ids[0] > numbers[-1]:
            self.append(vectors, ids)
            return
        with self._lock:
            merged = np.concatenate([self._state.ids, ids])
            order = np.argsort(merged)
            vectors = np.concatenate([self._state.vectors, vectors])[order]
            self._replace(PartitionState(ChunkedRows([vectors]), merged[order]))

    def remove(self, ids) -> int:
        """Removes the rows of some ids; returns how many of them there were."""
        with self._lock:
            state = self._state
            kept = ~np.isin(state.ids, ids)
            if kept.all():
                return 0
            # The new row of each old one, and at the end what -1 stands for.
            moved = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
            vectors = ChunkedRows([state.vectors[np.flatnonzero(kept)]])
            rows, tail = moved[state.rows], int(kept[: state.tail].sum())
            index = state.index and state.index.restricted(rows >= 0)
            self._replace(replace(state, vectors=vectors, ids=state.ids[kept], index=index, rows=rows, tail=tail))
            return int((~kept).sum())

    def _replace(self, state: PartitionState) -> None:
        """Puts a state whose embeddings are one array in memory in place of the present one."""
        vectors = state.vectors.chunks[0]
        self._file, self._storage, self._ids = vectors[:0], vectors, state.ids
        self._state = state

    def build_index(
        self,
        settings: ListSettings | GraphSettings | None,
        tune: Callable[[PartitionState], InvertedLists | NeighbourGraph | None] | None = None,
    ) -> None:
        """Builds an approximate index of all rows, or drops it. Searches go on meanwhile.

        Args:
            settings: How to build it; None to drop it.
            tune: What makes the index of a state ready for use, or drops it by None.
        """
        with self._lock:
            state = self._state
            if settings is None or not len(state.ids):
                self._state = PartitionState(state.vectors, state.ids)
                return
            index: InvertedLists | NeighbourGraph
            if isinstance(settings, GraphSettings):
                index = NeighbourGraph(self._similarity, state.vectors, settings)
            else:
                index = InvertedLists(self._similarity, state.vectors, settings)
            count = len(state.ids)
            new = replace(state, index=index, rows=np.arange(count), tail=count)
            ready = index if tune is None else tune(new)
            self._state = PartitionState(state.vectors, state.ids) if ready is None else replace(new, index=ready)

    def replace_index(self, change: Callable[[InvertedLists], InvertedLists]) -> None:
        """Puts an index of the same items in the place of inverted lists, if the partition has some."""
        with self._lock:
            if isinstance(self._state.index, InvertedLists):
                self._state = replace(self._state, index=change(self._state.index))


def search_partitions(
    similarity: Similarity, states: Sequence[PartitionState], queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Searches several partitions. Inverted lists of several partitions share the probes of a query.

    Args:
        similarity: The learned similarity.
        states: The partitions' states.
        queries: (m, D) float32 embeddings.
        k: Hits wanted per query.

    Returns:
        (m, k) float64 scores by the direct form, falling, -inf where there are fewer, and (m, k) int64 ids, -1 there.
        Equal scores are ordered by rising id.
    """
    found = [_search_exactly(similarity, state, queries, k) for state in states]
    for state in states:
        if isinstance(state.index, NeighbourGraph) and len(queries):
            found.append(_score_places(similarity, state, queries, state.index.search(queries, k)))
    lists = [(state, state.index) for state in states if isinstance(state.index, InvertedLists)]
    found += _search_lists(similarity, lists, queries, k)
    scores, ids = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _search_lists(
    similarity: Similarity, indexed: list[tuple[PartitionState, InvertedLists]], queries: np.ndarray, k: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores and ids found in each partition that has inverted lists."""
    if not indexed or not len(queries):
        return []
    found = []
    shares = share_probes([index for _, index in indexed], queries, k)
    for (state, index), chosen in zip(indexed, shares, strict=True):
        # Most queries have probes in one or two partitions only.
        rows = np.flatnonzero((chosen >= 0).any(axis=1))
        if len(rows):
            places = index.search(queries[rows], k, chosen[rows])
            part = _score_places(similarity, state, queries[rows], places)
            scores = np.full((len(queries), places.shape[1]), -np.inf)
            ids = np.full(scores.shape, -1)
            scores[rows], ids[rows] = part
            found.append((scores, ids))
    return found


def _search_exactly(similarity: Similarity, state: PartitionState, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ids of the best rows among those that are in no index."""
    weight, bias = torch.from_numpy(similarity.weight), torch.from_numpy(similarity.bias)
    found = [np.zeros((len(queries), 0), np.int64)]
    for first, vectors in state.vectors.chunks_from(state.tail) if len(queries) else ():
        # The operator subtracts the two rows of weights in single precision, so close neighbours may change places.
        count = min(k + _MORE, len(vectors))
        found.append(
            first + pair_topk(torch.from_numpy(queries), _as_tensor(vectors), weight, bias, k=count)[1].numpy()
        )
    rows = np.concatenate(found, axis=1)
    return _score_rows(similarity, state.vectors, queries, rows), state.ids[rows]


def _score_places(similarity: Similarity, state: PartitionState, queries, places) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ids of an index's candidates (m, c); -inf and -1 for those of place -1."""
    rows = np.where(places < 0, -1, state.rows[places])
    return _score_rows(similarity, state.vectors, queries, rows), np.where(rows < 0, -1, state.ids[rows])


def _score_rows(similarity: Similarity, vectors: ChunkedRows, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(m, c) direct form of queries (m, D) and rows (m, c) of the embeddings; -inf for row -1."""
    scores = np.full(rows.shape, -np.inf)
    for number, query in enumerate(queries):
        real = np.flatnonzero(rows[number] >= 0)
        # In the order of the file, so that each of its pages is read once.
        real = real[np.argsort(rows[number, real])]
        scores[number, real] = similarity.scores(query[None], vectors[rows[number, real]])[0]
    return scores


def _with_room(storage: np.ndarray, count: int, total: int) -> np.ndarray:
    """Storage for at least ``total`` rows that begins with the first ``count``; it grows to twice the size."""
    if total <= len(storage):
        return storage
    grown = np.empty((max(total, 2 * count, 64), *storage.shape[1:]), storage.dtype)
    grown[:count] = storage[:count]
    return grown


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the array's memory. It must not be written to, since it may be a file's."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        return torch.from_numpy(array)

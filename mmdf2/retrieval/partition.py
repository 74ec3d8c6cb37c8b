"""The embeddings of one category: they grow, shrink and are searched, by several threads at once."""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mmdf2.ops import pair_topk
from mmdf2.retrieval.lists import InvertedLists, ListSettings, share_probes
from mmdf2.retrieval.similarity import Similarity

_MORE = 16  # candidates beyond k of an exact search


@dataclass(frozen=True, eq=False)
class State:
    """What a search of a partition reads; later changes make another one.

    Attributes:
        vectors: (n, D) float32.
        ids: (n,) rising int64.
        lists: An index of the rows before ``tail``, or None.
        rows: Place in the index -> row, -1 for what has been removed.
        tail: The first row that is not in the index.
    """

    vectors: np.ndarray
    ids: np.ndarray
    lists: InvertedLists | None = None
    rows: np.ndarray | None = None
    tail: int = 0


class Partition:
    """Embeddings and ids, in the order in which they were added.

    Readers take a state; a writer writes beyond its end or into new arrays, and then puts a new state in its place.

    Args:
        similarity: The learned similarity.
        vectors: (n, D) float32 to begin with; may be memory-mapped and read only.
        ids: (n,) rising int64.
    """

    def __init__(self, similarity: Similarity, vectors: np.ndarray, ids: np.ndarray) -> None:
        self._similarity = similarity
        self._lock = threading.Lock()
        self._storage: tuple[np.ndarray, np.ndarray] | None = None  # of this partition alone, with room to grow
        self._state = State(vectors, ids)

    def __len__(self) -> int:
        return len(self._state.ids)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, D) embeddings and (n,) ids."""
        state = self._state
        return state.vectors, state.ids

    @property
    def is_indexed(self) -> bool:
        """Whether there is an approximate index."""
        return self._state.lists is not None

    def append(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Adds rows; their ids are larger than all before. An index is left as it is: new rows are searched exactly."""
        with self._lock:
            state = self._state
            count, total = len(state.ids), len(state.ids) + len(ids)
            if self._storage is None or total > len(self._storage[1]):
                room = max(total, 2 * count, 64)
                pairs = (state.vectors, state.ids)
                self._storage = tuple(np.empty((room, *old.shape[1:]), old.dtype) for old in pairs)
                self._storage[0][:count], self._storage[1][:count] = state.vectors, state.ids
            self._storage[0][count:total], self._storage[1][count:total] = vectors, ids
            grown, numbers = (storage[:total] for storage in self._storage)
            self._state = replace(state, vectors=grown, ids=numbers)

    def insert(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Adds rows of rising ids that are not there; between others they take the index away."""
        numbers = self._state.ids
        if not len(numbers) or not len(ids) or ids[0] > numbers[-1]:
            self.append(vectors, ids)
            return
        with self._lock:
            merged = np.concatenate([self._state.ids, ids])
            order = np.argsort(merged)
            self._storage = None
            self._state = State(np.concatenate([self._state.vectors, vectors])[order], merged[order])

    def remove(self, ids) -> int:
        """Removes the rows of some ids; returns how many there were."""
        with self._lock:
            state = self._state
            kept = ~np.isin(state.ids, ids)
            if kept.all():
                return 0
            rows = state.rows
            if rows is not None:
                moved = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
                rows = moved[rows]
            tail = int(kept[: state.tail].sum())
            self._storage = None
            self._state = State(state.vectors[kept], state.ids[kept], state.lists, rows, tail)
            return int((~kept).sum())

    def build_index(self, settings: ListSettings | None) -> None:
        """Builds an approximate index of all rows, or with None drops it; searches go on meanwhile."""
        with self._lock:
            state = self._state
            if settings is None or not len(state.ids):
                self._state = State(state.vectors, state.ids)
                return
            lists = InvertedLists(self._similarity, state.vectors, settings)
            count = len(state.ids)
            self._state = State(state.vectors, state.ids, lists, np.arange(count), count)

    def snapshot(self) -> State:
        """What a search of this moment reads."""
        return self._state


def search_states(
    similarity: Similarity, states: Sequence[State], queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Searches several partitions, which share the probes of a query.

    Args:
        similarity: The learned similarity.
        states: Of the partitions.
        queries: (m, D) float32.
        k: Wanted.

    Returns:
        (m, k) float64 scores by the direct form, falling, -inf where there are fewer, and (m, k) int64 ids, -1 there;
        of equal scores the smaller id first.
    """
    indexed = [state for state in states if state.lists is not None]
    shares = [None] * len(indexed)
    if len(indexed) > 1:
        probes = max(state.lists.settings.probes for state in indexed)
        shares = share_probes([state.lists.list_scores(queries) for state in indexed], probes)
    found = [_exact(similarity, state, queries, k) for state in states]
    for state, chosen in zip(indexed, shares, strict=True):
        # Most queries go to one partition or two.
        going = slice(None) if chosen is None else np.flatnonzero((chosen >= 0).any(axis=1))
        scores = np.full((len(queries), 0), -np.inf)
        if chosen is None or len(going):
            part = _approximate(similarity, state, queries[going], k, None if chosen is None else chosen[going])
            scores = np.full((len(queries), part[0].shape[1]), -np.inf)
            ids = np.full(scores.shape, -1)
            scores[going], ids[going] = part
            found.append((scores, ids))
    scores, ids = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _exact(similarity: Similarity, state: State, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best rows that are in no index."""
    vectors, ids = state.vectors[state.tail :], state.ids[state.tail :]
    if not len(ids) or not len(queries):
        return np.zeros((len(queries), 0)), np.zeros((len(queries), 0), np.int64)
    weight, bias = torch.from_numpy(similarity.weight), torch.from_numpy(similarity.bias)
    # Some more than wanted: single precision may have neighbours in the wrong order.
    _, rows = pair_topk(torch.from_numpy(queries), as_tensor(vectors), weight, bias, k=min(k + _MORE, len(ids)))
    rows = rows.numpy()
    return _scores(similarity, vectors, queries, rows), ids[rows]


def _approximate(similarity: Similarity, state: State, queries, k: int, chosen) -> tuple[np.ndarray, np.ndarray]:
    """The index's candidates for the best rows."""
    places = state.lists.search(queries, k, chosen)
    rows = np.where(places < 0, -1, state.rows[places])
    return _scores(similarity, state.vectors, queries, rows), np.where(rows < 0, -1, state.ids[rows])


def _scores(similarity: Similarity, vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(m, c) direct form of queries (m, D) and rows (m, c) of the vectors, -inf for those of -1."""
    scores = np.full(rows.shape, -np.inf)
    for number, query in enumerate(queries):
        real = np.flatnonzero(rows[number] >= 0)
        # In the order of the file: its pages are read once.
        real = real[np.argsort(rows[number, real])]
        scores[number, real] = similarity.scores(query[None], vectors[rows[number, real]])[0]
    return scores


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the same memory, which is not to be written to: it may be a file's."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        return torch.from_numpy(array)

"""The embeddings of one category: they grow, shrink and are searched, by several threads at once."""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mmdf2.ops import pair_topk
from mmdf2.retrieval.graph import GraphSettings, NeighbourGraph
from mmdf2.retrieval.lists import InvertedLists, ListSettings, share_probes
from mmdf2.retrieval.similarity import Similarity
from mmdf2.retrieval.stacked import Stacked

_MORE = 16  # candidates beyond k of an exact search


@dataclass(frozen=True, eq=False)
class State:
    """What a search of a partition reads; later changes make another one.

    Attributes:
        vectors: (n, D) float32: those of the file, if there is one, and those that came since.
        ids: (n,) rising int64.
        index: Of the rows before ``tail``, or None.
        rows: Place in the index -> row, -1 for what has been removed.
        tail: The first row that is not in the index.
    """

    vectors: Stacked
    ids: np.ndarray
    index: InvertedLists | NeighbourGraph | None = None
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
        self._file = vectors  # stays where it is: it may be larger than the memory
        self._storage = np.empty((0, vectors.shape[1]), np.float32)  # of what came since, with room to grow
        self._ids = ids  # the same, of all
        self._state = State(Stacked([vectors]), ids)

    def __len__(self) -> int:
        return len(self._state.ids)

    @property
    def arrays(self) -> tuple[Stacked, np.ndarray]:
        """(n, D) embeddings and (n,) ids."""
        state = self._state
        return state.vectors, state.ids

    @property
    def is_indexed(self) -> bool:
        """Whether there is an approximate index."""
        return self._state.index is not None

    def append(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Adds rows; their ids are larger than all before. An index is left as it is: new rows are searched exactly."""
        with self._lock:
            state = self._state
            count, total = len(state.ids), len(state.ids) + len(ids)
            begin, end = count - len(self._file), total - len(self._file)
            self._storage = _with_room(self._storage, begin, end)
            self._ids = _with_room(self._ids, count, total)
            self._storage[begin:end], self._ids[count:total] = vectors, ids
            self._state = replace(state, vectors=Stacked([self._file, self._storage[:end]]), ids=self._ids[:total])

    def insert(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Adds rows of rising ids that are not there; between others they take the index away."""
        numbers = self._state.ids
        if not len(numbers) or not len(ids) or ids[0] > numbers[-1]:
            self.append(vectors, ids)
            return
        with self._lock:
            merged = np.concatenate([self._state.ids, ids])
            order = np.argsort(merged)
            self._replace(np.concatenate([self._state.vectors, vectors])[order], merged[order])

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
            self._replace(state.vectors[np.flatnonzero(kept)], state.ids[kept], state.index, rows, tail)
            return int((~kept).sum())

    def _replace(self, vectors: np.ndarray, ids: np.ndarray, *index) -> None:
        """Puts all rows, in memory, in place of what there was; an index is that of ``State``, with rows and tail."""
        self._file, self._storage, self._ids = vectors[:0], vectors, ids
        self._state = State(Stacked([vectors]), ids, *index)

    def build_index(self, settings: ListSettings | GraphSettings | None) -> None:
        """Builds an approximate index of all rows, or with None drops it; searches go on meanwhile."""
        with self._lock:
            state = self._state
            if settings is None or not len(state.ids):
                self._state = State(state.vectors, state.ids)
                return
            kind = NeighbourGraph if isinstance(settings, GraphSettings) else InvertedLists
            index = kind(self._similarity, state.vectors, settings)
            count = len(state.ids)
            self._state = State(state.vectors, state.ids, index, np.arange(count), count)

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
    found = [_exact(similarity, state, queries, k) for state in states]
    for state in states:
        if isinstance(state.index, NeighbourGraph) and len(queries):
            found.append(_scored(similarity, state, queries, state.index.search(queries, k)))
    found += _search_lists(
        similarity, [state for state in states if isinstance(state.index, InvertedLists)], queries, k
    )
    scores, ids = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _search_lists(similarity: Similarity, states: list[State], queries: np.ndarray, k: int) -> list[tuple]:
    """Scores and ids of each state that has lists; the lists of all share a query's probes."""
    shares, found = [None] * len(states), []
    if len(states) > 1:
        lists = sum(state.index.lists for state in states)
        probes = max(state.index.settings.probes_of(lists) for state in states)
        shares = share_probes([state.index.list_scores(queries) for state in states], probes)
    for state, chosen in zip(states, shares, strict=True):
        # Most queries go to one partition or two.
        going = np.arange(len(queries)) if chosen is None else np.flatnonzero((chosen >= 0).any(axis=1))
        if len(going):
            places = state.index.search(queries[going], k, None if chosen is None else chosen[going])
            part = _scored(similarity, state, queries[going], places)
            scores = np.full((len(queries), places.shape[1]), -np.inf)
            ids = np.full(scores.shape, -1)
            scores[going], ids[going] = part
            found.append((scores, ids))
    return found


def _exact(similarity: Similarity, state: State, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best rows that are in no index."""
    weight, bias = torch.from_numpy(similarity.weight), torch.from_numpy(similarity.bias)
    found = [np.zeros((len(queries), 0), np.int64)]
    for first, vectors in state.vectors.below(state.tail) if len(queries) else ():
        # Some more than wanted: single precision may have neighbours in the wrong order.
        count = min(k + _MORE, len(vectors))
        found.append(first + pair_topk(torch.from_numpy(queries), as_tensor(vectors), weight, bias, k=count)[1].numpy())
    rows = np.concatenate(found, axis=1)
    return _scores(similarity, state.vectors, queries, rows), state.ids[rows]


def _scored(similarity: Similarity, state: State, queries, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ids of an index's candidates (m, c)."""
    rows = np.where(places < 0, -1, state.rows[places])
    return _scores(similarity, state.vectors, queries, rows), np.where(rows < 0, -1, state.ids[rows])


def _scores(similarity: Similarity, vectors: Stacked, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(m, c) direct form of queries (m, D) and rows (m, c) of the vectors, -inf for those of -1."""
    scores = np.full(rows.shape, -np.inf)
    for number, query in enumerate(queries):
        real = np.flatnonzero(rows[number] >= 0)
        # In the order of the file: its pages are read once.
        real = real[np.argsort(rows[number, real])]
        scores[number, real] = similarity.scores(query[None], vectors[rows[number, real]])[0]
    return scores


def _with_room(storage: np.ndarray, count: int, total: int) -> np.ndarray:
    """Storage for ``total`` rows at least, which begins with the first ``count``; it grows to twice the size."""
    if total <= len(storage):
        return storage
    grown = np.empty((max(total, 2 * count, 64), *storage.shape[1:]), storage.dtype)
    grown[:count] = storage[:count]
    return grown


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the same memory, which is not to be written to: it may be a file's."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        return torch.from_numpy(array)

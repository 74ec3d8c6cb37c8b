"""The embeddings of one category: they grow, shrink and are searched, by several threads at once."""

import threading
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from mmdf2.ops import pair_topk
from mmdf2.retrieval.lists import InvertedLists, ListSettings
from mmdf2.retrieval.similarity import Similarity

# Rows that are scored at once by the direct form.
_SCORED_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class _State:
    """What a search reads; later changes make another one.

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
        self._state = _State(vectors, ids)

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
            self._state = _State(state.vectors[kept], state.ids[kept], state.lists, rows, tail)
            return int((~kept).sum())

    def build_index(self, settings: ListSettings | None) -> None:
        """Builds an approximate index of all rows, or with None drops it; searches go on meanwhile."""
        with self._lock:
            state = self._state
            if settings is None or not len(state.ids):
                self._state = _State(state.vectors, state.ids)
                return
            lists = InvertedLists(self._similarity, state.vectors, settings)
            count = len(state.ids)
            self._state = _State(state.vectors, state.ids, lists, np.arange(count), count)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best rows.

        Args:
            queries: (m, D) float32.
            k: Wanted.

        Returns:
            (m, c) float64 scores by the direct form, -inf where there is none, and (m, c) int64 ids, -1 there.
        """
        state = self._state
        if state.lists is None:
            return self._exact(state, 0, queries, k)
        scores, ids = self._approximate(state, queries, k)
        if state.tail < len(state.ids):
            more = self._exact(state, state.tail, queries, k)
            scores, ids = (np.concatenate(pair, axis=1) for pair in ((scores, more[0]), (ids, more[1])))
        return scores, ids

    def _exact(self, state: _State, begin: int, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
        vectors, ids = state.vectors[begin:], state.ids[begin:]
        if not len(ids) or not len(queries):
            return np.zeros((len(queries), 0)), np.zeros((len(queries), 0), np.int64)
        weight, bias = torch.from_numpy(self._similarity.weight), torch.from_numpy(self._similarity.bias)
        found = pair_topk(torch.from_numpy(queries), as_tensor(vectors), weight, bias, k=min(k, len(ids)))
        return found[0].double().numpy(), ids[found[1].numpy()]

    def _approximate(self, state: _State, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
        places = state.lists.search(queries, k)
        rows = np.where(places < 0, -1, state.rows[places])
        scores = np.full(rows.shape, -np.inf)
        difference, offset = self._similarity.difference, self._similarity.offset
        for row, query in enumerate(queries):
            real = np.flatnonzero(rows[row] >= 0)
            for start in range(0, len(real), _SCORED_AT_ONCE):
                part = real[start : start + _SCORED_AT_ONCE]
                # Rows in the order of the file: its pages are read once.
                part = part[np.argsort(rows[row, part])]
                vectors = state.vectors[rows[row, part]].astype(np.float64)
                scores[row, part] = ((query - vectors) ** 2) @ difference + offset
        return scores, np.where(rows < 0, -1, state.ids[rows])


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the same memory, which is not to be written to: it may be a file's."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        return torch.from_numpy(array)

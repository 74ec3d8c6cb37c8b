"""How much an index has to look at to reach a recall, measured on the gallery's own items.

What suits one gallery's embeddings misses many hits in another's, so nothing is taken over from elsewhere. Some items
are queries, and the truth is what the exact search finds for them besides themselves. Each half of these queries has to
reach the recall.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmdf2.retrieval.local.graph import NeighbourGraph
from mmdf2.retrieval.local.lists import InvertedLists
from mmdf2.retrieval.local.partition import PartitionState, search_partitions
from mmdf2.retrieval.similarity import Similarity

_QUERIES = 512
_HITS = 20
_LEAST_EFFORT = 8
_LARGEST_SHARE = 0.5  # of the lists; a query that searches more of them is hardly faster than an exact search
_REFINEMENTS = 4  # halvings of the range between an effort that is too small and twice that effort


@dataclass(frozen=True, eq=False)
class Sample:
    """Items of some partitions as queries, with what the exact search finds for them.

    Attributes:
        queries: (m, D) float32 embeddings.
        ids: (m,) the queries' own ids.
        least: (m,) the score of the last true hit.
        counts: (m,) number of true hits, 20 at most.
    """

    queries: np.ndarray
    ids: np.ndarray
    least: np.ndarray
    counts: np.ndarray

    @classmethod
    def drawn(cls, similarity: Similarity, states: Sequence[PartitionState], seed: int = 0) -> 'Sample':
        """Draws queries among the items of some partitions."""
        ends = np.cumsum([len(state.ids) for state in states])
        rows = np.random.default_rng(seed).choice(ends[-1], min(_QUERIES, int(ends[-1])), replace=False)
        owners = np.searchsorted(ends, rows, side='right')
        queries, ids = np.empty((len(rows), similarity.width), np.float32), np.empty(len(rows), np.int64)
        for number, (state, end) in enumerate(zip(states, ends.tolist(), strict=True)):
            own = np.flatnonzero(owners == number)
            part = rows[own] - (end - len(state.ids))
            queries[own], ids[own] = state.vectors[part], state.ids[part]
        exact = [PartitionState(state.vectors, state.ids) for state in states]
        scores = _others(ids, *search_partitions(similarity, exact, queries, _HITS + 1))
        counts = np.isfinite(scores).sum(axis=1)
        least = scores[np.arange(len(scores)), np.maximum(counts - 1, 0)]
        return cls(queries, ids, least, counts)

    def halves(self) -> tuple['Sample', 'Sample']:
        """Two halves of the queries."""
        middle = (len(self.ids) + 1) // 2
        fields = (self.queries, self.ids, self.least, self.counts)
        return Sample(*(field[:middle] for field in fields)), Sample(*(field[middle:] for field in fields))

    def recall(self, similarity: Similarity, states: Sequence[PartitionState]) -> float:
        """Mean share of the true hits that a search of the partitions finds; 1 where there are no hits to find."""
        scores = _others(self.ids, *search_partitions(similarity, states, self.queries, _HITS + 1))
        # Equal items have equal scores by the direct form, and any of them is right.
        found = (scores >= self.least[:, None]).sum(axis=1)
        some = self.counts > 0
        return float((np.minimum(found, self.counts)[some] / self.counts[some]).mean()) if some.any() else 1.0


def _others(ids: np.ndarray, scores: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(m, 20) scores of hits, falling, without each query's own."""
    scores = np.where(found == ids[:, None], -np.inf, scores)
    return -np.sort(-scores, axis=1)[:, :_HITS]


def tuned(similarity: Similarity, state: PartitionState, target: float) -> InvertedLists | NeighbourGraph | None:
    """The index of a partition, with as few probes as reach a recall; a number of probes that was given stays.

    Args:
        similarity: The learned similarity.
        state: The partition with its index.
        target: The recall@20 that is wanted, 0 to 1.

    Returns:
        The index with its recall, or None when an exact search would be as fast.
    """
    index, sample = state.index, Sample.drawn(similarity, [state])
    assert index is not None, 'only a partition with an index is tuned'
    if isinstance(index, InvertedLists) and index.settings.probes is None:
        halves, lists = sample.halves(), index

        def recall(probes: int) -> float:
            searched = [replace(state, index=lists.with_effort(probes))]
            return min(half.recall(similarity, searched) for half in halves)

        effort = least_effort(recall, target, max(int(lists.lists * _LARGEST_SHARE), 1))
        if effort is None:
            return None
        index = lists.with_effort(effort)
    return index.with_recall(sample.recall(similarity, [replace(state, index=index)]))


def shared_probes(similarity: Similarity, states: Sequence[PartitionState], target: float) -> int:
    """Number of lists to search when all partitions are searched together, to reach a recall@20.

    Args:
        similarity: The learned similarity.
        states: The partitions; some of them have inverted lists.
        target: The recall that is wanted, 0 to 1.
    """
    halves = Sample.drawn(similarity, states).halves()
    most = sum(state.index.lists for state in states if isinstance(state.index, InvertedLists))

    def recall(probes: int) -> float:
        searched = [
            replace(state, index=state.index.with_shared_probes(probes))
            if isinstance(state.index, InvertedLists)
            else state
            for state in states
        ]
        return min(half.recall(similarity, searched) for half in halves)

    return least_effort(recall, target, most) or most


def least_effort(recall: Callable[[int], float], target: float, most: int) -> int | None:
    """The least effort that reaches a recall, to within some percent; None when ``most`` does not reach it."""
    low, high = 0, min(_LEAST_EFFORT, most)
    while recall(high) < target:
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    for _ in range(_REFINEMENTS):
        middle = (low + high) // 2
        if middle in (low, high):
            break
        if recall(middle) < target:
            low = middle
        else:
            high = middle
    return high

"""Which inverted lists a query searches, when several indexes of one similarity share its probes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mmdf2.retrieval.local.lists import InvertedLists


def best_columns(scores, count: int) -> np.ndarray:
    """The ``count`` columns of the highest scores in each row of (m, n), the highest first, or all n if they are fewer.

    Returns:
        (m, count) int64.
    """
    count = min(count, scores.shape[1])
    chosen = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1)
    return np.ascontiguousarray(np.take_along_axis(chosen, order, axis=1), dtype=np.int64)


def share_probes(indexes: Sequence['InvertedLists'], queries, k: int) -> list[np.ndarray]:
    """Chooses the lists that each query searches, among those of all indexes together.

    Args:
        indexes: At least one index, all of one similarity.
        queries: (m, D).
        k: Hits wanted in the end.

    Returns:
        For each index (m, p) int64 lists to search, -1 where a query searches fewer.
    """
    best = best_lists(
        scores=np.concatenate([index.list_scores(queries) for index in indexes], axis=1),
        probes=_probes_together(indexes),
        shares=np.concatenate([index.shares for index in indexes]),
        sizes=np.concatenate([index.sizes for index in indexes]),
        items=max(index.settings.candidates_of(k) for index in indexes),
    )
    return divided(best, [index.lists for index in indexes])


def _probes_together(indexes: Sequence['InvertedLists']) -> int:
    """Number of lists that a query searches in some indexes together."""
    lists = sum(index.lists for index in indexes)
    own = [index.settings.probes_of(index.lists) for index in indexes]
    measured = [index.shared_probes for index in indexes if index.shared_probes is not None]
    if len(indexes) == 1 or not measured:
        return max(index.settings.probes_of(lists) for index in indexes)
    return max(*own, *measured)


def best_lists(scores: np.ndarray, probes: int, shares: np.ndarray, sizes: np.ndarray, items: int) -> np.ndarray:
    """The best lists of each query, as many as it needs to meet ``probes`` whole lists and ``items`` items.

    A list of which half of the items are left counts as half a probe. So a query whose best lists have lost their items
    searches more of them, and sees as many items as it would in a new index.

    Args:
        scores: (m, lists) scores of the lists.
        probes: Number of lists that a query searches if all items are left.
        shares: (lists,) share of each list's items that are left, 0 to 1.
        sizes: (lists,) number of them.
        items: Number of items that a query searches at least. If there are not as many, it searches all lists.

    Returns:
        (m, p) int64, -1 where a query searches fewer.
    """
    scores = np.where(shares > 0, scores, -np.inf)
    # The tolerance is for sums of shares, which are rounded.
    least_share, least_items = min(probes, shares.sum()) - 1e-6, min(items, sizes.sum())
    count = min(probes, scores.shape[1])
    while True:
        best = best_columns(scores, count)
        enough = (shares[best].cumsum(axis=1) >= least_share) & (sizes[best].cumsum(axis=1) >= least_items)
        if count == scores.shape[1] or enough[:, -1].all():
            break
        count = min(2 * count, scores.shape[1])
    # A query searches its lists up to the first one that makes them enough.
    unneeded = np.column_stack([np.zeros(len(best), bool), enough[:, :-1]])
    return np.where(unneeded | (shares[best] == 0), -1, best)


def divided(best: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Divides chosen lists among several indexes.

    Args:
        best: (m, p) int64 lists, numbered through all indexes; -1 for none.
        counts: Number of lists of each index.

    Returns:
        For each index (m, q) int64 numbers of its own lists, -1 where a query searches fewer.
    """
    ends = np.cumsum(counts)
    shares = []
    for begin, end in zip(ends - counts, ends, strict=True):
        own = (best >= begin) & (best < end)
        # The lists of this index come first, in their order.
        order = np.argsort(~own, axis=1, kind='stable')[:, : max(int(own.sum(axis=1).max(initial=0)), 1)]
        lists = np.take_along_axis(np.where(own, best - begin, -1), order, axis=1)
        shares.append(np.ascontiguousarray(lists))
    return shares

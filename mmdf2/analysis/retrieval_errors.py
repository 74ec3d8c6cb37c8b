"""What became of each query of a retrieval result, and the cumulative match characteristic (CMC)."""

from dataclasses import dataclass

import numpy as np

from mmdf2.categories import Source
from mmdf2.datasets.store import Store
from mmdf2.evaluation.retrieval import (
    MAX_HITS,
    Outcome,
    RetrievedLists,
    evaluate_lists,
    right_identities,
    select_queries,
)
from mmdf2.evaluation.truth import retrieval_items


@dataclass(frozen=True)
class RetrievalErrors:
    """What became of q query items.

    Attributes:
        outcome: By the official protocol; its ``queries`` are rows among the items of user images.
        rows: (q,) the queries' items among all items of the store.
        lists: (q,) which retrieved list represents each, -1 where missed.
        identities: (q,) of the queries.
    """

    outcome: Outcome
    rows: np.ndarray
    lists: np.ndarray
    identities: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(q,) bool: queries that were detected, and have no right box among the first 20 although there is one."""
        return ~self.outcome.missed & (self.outcome.first_right >= MAX_HITS) & (self.outcome.matches > 0)


def retrieval_errors(store: Store, results: RetrievedLists) -> RetrievalErrors:
    """Judges retrieved lists against a store's own items, as ``evaluate_retrieval_results`` does against files."""
    items, gallery = retrieval_items(store, Source.USER), retrieval_items(store, Source.SHOP)
    queries, chosen = select_queries(items, results.image_ids, results.boxes, results.labels, results.scores)
    outcome = evaluate_lists(results, items, gallery)
    user_rows = np.flatnonzero(store.sources[store.item_images] == Source.USER)
    return RetrievalErrors(outcome, user_rows[queries], chosen, items.identities[queries])


def match_characteristic(outcome: Outcome, counted=None) -> np.ndarray:
    """(20,) share of the queries (or of the ``counted`` ones, (q,) bool) with a right box among the first 1, 2, ... 20.

    NaN without queries.
    """
    first = outcome.first_right if counted is None else outcome.first_right[counted]
    if not len(first):
        return np.full(MAX_HITS, np.nan)
    return np.cumsum(np.bincount(first, minlength=MAX_HITS + 1)[:MAX_HITS]) / len(first)


def right_hits(store: Store, hit_images, hit_boxes, identity: int) -> np.ndarray:
    """(k,) bool: which retrieved boxes lie (IoU 0.5 or more) on an item of the identity."""
    box, found = right_identities(retrieval_items(store, Source.SHOP), np.asarray(hit_images), np.asarray(hit_boxes))
    right = np.zeros(len(hit_images), dtype=bool)
    right[box[found == identity]] = True
    return right

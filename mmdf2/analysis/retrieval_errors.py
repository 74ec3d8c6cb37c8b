"""What became of each query of a retrieval result, the cumulative match characteristic (CMC), and rows of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mmdf2.categories import Source
from mmdf2.datasets.store import Store
from mmdf2.evaluation.retrieval import (
    MAX_HITS,
    Outcome,
    RetrievalItems,
    RetrievedLists,
    evaluate_lists,
    right_identities,
    select_queries,
)
from mmdf2.evaluation.truth import retrieval_items
from mmdf2.visualization.retrieval_rows import RetrievalRow


@dataclass(frozen=True)
class RetrievalErrors:
    """What became of q query items.

    Attributes:
        outcome: The outcome by the official protocol; its ``queries`` are rows among the items of user images.
        rows: (q,) row of each query item among all items of the store.
        lists: (q,) number of the retrieved list that represents each query item, -1 where the item is missed.
        identities: (q,) identity of each query item.
    """

    outcome: Outcome
    rows: np.ndarray
    lists: np.ndarray
    identities: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(q,) bool: queries that were detected, and have no right box among 20 hits although the gallery has one."""
        return ~self.outcome.missed & (self.outcome.first_right >= MAX_HITS) & (self.outcome.matches > 0)


def retrieval_errors(store: Store, results: RetrievedLists) -> RetrievalErrors:
    """Judges retrieved lists by a store's own items, as ``evaluate_retrieval_results`` does by the official files."""
    items, gallery = retrieval_items(store, Source.USER), retrieval_items(store, Source.SHOP)
    queries, chosen = select_queries(items, results.image_ids, results.boxes, results.labels, results.scores)
    user_rows = np.flatnonzero(store.sources[store.item_images] == Source.USER)
    return RetrievalErrors(
        outcome=evaluate_lists(results, items, gallery),
        rows=user_rows[queries],
        lists=chosen,
        identities=items.identities[queries],
    )


def match_characteristic(outcome: Outcome, counted: np.ndarray | None = None) -> np.ndarray:
    """The share of queries with a right box among the first 1, 2, ..., 20 hits.

    Args:
        outcome: What became of q queries.
        counted: (q,) bool, the queries to count; None counts all.

    Returns:
        (20,) shares; NaN when no query is counted.
    """
    first = outcome.first_right if counted is None else outcome.first_right[counted]
    if not len(first):
        return np.full(MAX_HITS, np.nan)
    return np.cumsum(np.bincount(first, minlength=MAX_HITS + 1)[:MAX_HITS]) / len(first)


def right_hits(gallery: RetrievalItems, image_ids: ArrayLike, boxes: ArrayLike, identity: int) -> np.ndarray:
    """Which hits lie on an item of an identity, with an IoU of 0.5 or more.

    Args:
        gallery: The items of all shop images.
        image_ids: (k,) image of each hit.
        boxes: (k, 4) x1, y1, x2, y2 of each hit.
        identity: The identity that is searched.

    Returns:
        (k,) bool.
    """
    image_ids = np.asarray(image_ids, dtype=np.int64)
    hits, identities = right_identities(gallery, image_ids, np.reshape(np.asarray(boxes, dtype=np.float64), (-1, 4)))
    return np.isin(np.arange(len(image_ids)), hits[identities == identity])


def image_names(store: Store) -> dict[int, str]:
    """Number of each image of a store -> its file name."""
    return {int(i): name.decode('ascii') for i, name in zip(store.image_ids, store.file_names, strict=True)}


def rows_of_results(
    results: Sequence[dict], store: Store, image_folder: str | Path, count: int = 8, hits: int = 5
) -> list[RetrievalRow]:
    """Queries spread evenly over all query items, each with its first hits, judged by the official protocol.

    Args:
        results: Entries of a result file, see ``mmdf2.evaluation.files.retrieval.retrieval_result``.
        store: The store of the split.
        image_folder: Folder of the split's images.
        count: Queries at most.
        hits: Hits per query at most.

    Returns:
        Rows for ``draw_retrieval_rows``; a query item that no detection represents has no hits.
    """
    items, gallery = retrieval_items(store, Source.USER), retrieval_items(store, Source.SHOP)
    queries, chosen = select_queries(
        items,
        np.array([entry['query_image_id'] for entry in results], dtype=np.int64),
        np.array([entry['query_bbox'] for entry in results], dtype=np.float64).reshape(-1, 4),
        np.array([entry['query_cls'] for entry in results], dtype=np.int64) - 1,
        np.array([entry['query_score'] for entry in results], dtype=np.float64),
    )
    names, folder = image_names(store), Path(image_folder)
    shown = np.unique(np.linspace(0, len(queries) - 1, min(count, len(queries))).round().astype(int))
    rows = []
    for query, detection in zip(queries[shown], chosen[shown], strict=True):
        entry = results[detection] if detection >= 0 else {'gallery_image_id': [], 'gallery_bbox': []}
        images, boxes = entry['gallery_image_id'][:hits], entry['gallery_bbox'][:hits]
        rows.append(
            RetrievalRow(
                image=folder / names[int(items.image_ids[query])],
                box=entry.get('query_bbox', items.boxes[query]),
                hit_images=[folder / names[int(image_id)] for image_id in images],
                hit_boxes=boxes,
                correct=right_hits(gallery, images, boxes, int(items.identities[query])),
            )
        )
    return rows

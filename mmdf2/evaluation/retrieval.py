"""Consumer-to-shop retrieval by the official protocol.

Each detection on a user image belongs to the ground-truth item that it overlaps most. A query item, one with an
identity, is represented by the best-scored detection among those that belong to it and have its category; without any
it is missed, which counts as wrong. A retrieved box is right when its image holds an item of the query's identity that
it overlaps by IoU 0.5 or more, whatever the category. Top-k is the share of query items with a right box among the
first k.

Source: the official retrieval evaluation script, and the paper's section on clothes retrieval.
"""

from dataclasses import dataclass, fields

import numpy as np

from mmdf2.evaluation.candidates import join
from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.similarity import box_iou

TOP_K = (1, 5, 10, 15, 20)
# Retrieved boxes of a query that count (official result files).
MAX_HITS = 20
# Least IoU of a retrieved box with an item that makes it right (official script).
HIT_IOU = 0.5
# The paper's subset table counts only queries with more matching gallery items than this; the official overall
# figures count all queries.
PAPER_MATCHES = 5


@dataclass(frozen=True)
class Items:
    """Annotated items of user images (queries) or of shop images (the gallery), m of them.

    Attributes:
        image_ids: (m,) int64.
        boxes: (m, 4) float64, x1, y1, x2, y2 in pixels.
        identities: (m,) int64, equal for items of one pair_id and style; -1 for none (style 0).
        labels: (m,) int64, 0 to 12; needed of queries only.
        attributes: (m, 4) int64 columns scale, occlusion, zoom_in, viewpoint, 1 to 3 or 0 where unknown; needed of
            queries, for the columns of subsets only.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    identities: np.ndarray
    labels: np.ndarray | None = None
    attributes: np.ndarray | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of each of q query items.

    Attributes:
        queries: (q,) rows of the query items.
        first_right: (q,) place of the first right box, from 0; ``MAX_HITS`` when there is none.
        missed: (q,) bool, no detection represents the item.
        matches: (q,) items of the gallery with the query's identity.
        average_precision: (q,) mean of the precision at each place that finds one more of these items, 0 where an item
            is not found; over ``MAX_HITS`` places, so over at most as many items. 0 without any item.
    """

    queries: np.ndarray
    first_right: np.ndarray
    missed: np.ndarray
    matches: np.ndarray
    average_precision: np.ndarray

    def take(self, members) -> 'Outcome':
        """The outcome of some queries, by a mask (q,) or by rows."""
        return Outcome(*(getattr(self, field.name)[members] for field in fields(self)))

    def top_k(self, k: int) -> float:
        """Share of queries with a right box among the first k; NaN without queries."""
        return _mean(self.first_right < k)

    def reciprocal_rank(self) -> np.ndarray:
        """(q,) 1 over the place, from 1, of the first right box; 0 without any."""
        return np.where(self.first_right < MAX_HITS, 1 / (self.first_right + 1.0), 0.0)


def select_queries(items: Items, image_ids, boxes, labels, scores) -> tuple[np.ndarray, np.ndarray]:
    """Finds the detection that represents each query item.

    Args:
        items: All items of the user images, also those without identity: they take part in the assignment.
        image_ids: (d,) of the detections on user images.
        boxes: (d, 4) x1, y1, x2, y2.
        labels: (d,) 0 to 12.
        scores: (d,) finite.

    Returns:
        (q,) rows of the items with an identity, and (q,) row of the detection of each, -1 where it is missed. Of equal
        overlaps the first item is taken, of equal scores the first detection.

    Raises:
        EvaluationError: A score or box that is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(np.column_stack([scores, boxes])).all(axis=1))
    if len(bad):
        raise EvaluationError(
            f'detection {bad[0]} (image {image_ids[bad[0]]}) has score {scores[bad[0]]} and box {boxes[bad[0]]}; both '
            'must be finite: the model has probably diverged'
        )
    queries = np.flatnonzero(items.identities >= 0)
    detection, item, iou = _overlaps(image_ids, boxes, items)
    order = np.lexsort((item, -iou, detection))
    _, first = np.unique(detection[order], return_index=True)
    detection, item = detection[order[first]], item[order[first]]
    fitting = labels[detection] == items.labels[item]
    detection, item = detection[fitting], item[fitting]
    order = np.lexsort((detection, -scores[detection], item))
    represented, first = np.unique(item[order], return_index=True)
    chosen = np.full(len(items.identities), -1, dtype=np.int64)
    chosen[represented] = detection[order[first]]
    return queries, chosen[queries]


def right_items(gallery: Items, image_ids, boxes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For boxes on shop images, the items that make retrieving them right.

    Args:
        gallery: The items of the shop images.
        image_ids: (n,) of the boxes.
        boxes: (n, 4) x1, y1, x2, y2.

    Returns:
        (p,) box, (p,) item with an identity and (p,) IoU, ``HIT_IOU`` or more, of each such pair; by box.
    """
    box, item, iou = _overlaps(image_ids, boxes, gallery)
    right = (iou >= HIT_IOU) & (gallery.identities[item] >= 0)
    return box[right], item[right], iou[right]


def right_identities(gallery: Items, image_ids, boxes) -> tuple[np.ndarray, np.ndarray]:
    """As ``right_items``, the (p,) box and (p,) identity of each right combination, sorted, each once."""
    box, item, _ = right_items(gallery, image_ids, boxes)
    pairs = np.unique(np.stack([box, gallery.identities[item]], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def judge(items: Items, gallery: Items, queries, missed, hit_images, hit_boxes, hit_queries) -> Outcome:
    """Finds the first right box of each query.

    Args:
        items: The items of the user images.
        gallery: The items of the shop images.
        queries: (q,) rows of the query items.
        missed: (q,) bool.
        hit_images: (h,) image of each retrieved box, all queries' one after another, best first.
        hit_boxes: (h, 4) x1, y1, x2, y2.
        hit_queries: (h,) position in ``queries``, rising. At most ``MAX_HITS`` of a query count.
    """
    identities = items.identities[queries]
    matches = _count(gallery.identities, identities)
    place = np.arange(len(hit_queries)) - np.searchsorted(hit_queries, hit_queries)
    hit, item, iou = right_items(gallery, hit_images, hit_boxes)
    right = (gallery.identities[item] == identities[hit_queries[hit]]) & (place[hit] < MAX_HITS)
    hit, item, iou = hit[right], item[right], iou[right]
    first_right = np.full(len(queries), MAX_HITS)
    np.minimum.at(first_right, hit_queries[hit], place[hit])
    # A box finds one item, that which it overlaps most, and an item is found once.
    order = np.lexsort((item, -iou, hit))
    _, first = np.unique(hit[order], return_index=True)
    hit, item = hit[order[first]], item[order[first]]
    _, first = np.unique(np.stack([hit_queries[hit], item]), axis=1, return_index=True)
    found = np.sort(hit[first])
    query = hit_queries[found]
    precision = (np.arange(len(found)) - np.searchsorted(query, query) + 1) / (place[found] + 1)
    average_precision = np.bincount(query, precision, len(queries)) / np.clip(matches, 1, MAX_HITS)
    return Outcome(queries, first_right, missed, matches, average_precision)


def chance_top1(items: Items, gallery: Items) -> float:
    """Top-1 that a random order of the gallery's ground-truth boxes would reach on average.

    The mean over query items (those with an identity) of the share of the gallery's boxes that are right for the query.
    NaN without queries or gallery.
    """
    identities = items.identities[items.identities >= 0]
    if not len(identities) or not len(gallery.identities):
        return float('nan')
    _, right = right_identities(gallery, gallery.image_ids, gallery.boxes)
    return float(_count(right, identities).mean() / len(gallery.identities))


def summarize(outcome: Outcome) -> dict[str, float]:
    """Figures of all query items, as the official evaluation counts, and of those with many matches, as the paper does.

    ``top1`` ... ``top20``, ``map`` (mean average precision of the first 20), ``mrr`` (mean reciprocal rank of the first
    right box), all from 0 to 1 and NaN without queries; ``queries`` and ``missed``. The same with the prefix ``paper_``
    (but for ``missed``) over queries with more than five matching gallery items: the paper's subset table. Without any
    such query the shares are left out.
    """
    figures = {**_shares(outcome), 'missed': float(outcome.missed.sum())}
    rich = outcome.take(outcome.matches > PAPER_MATCHES)
    paper = _shares(rich) if len(rich.queries) else {'queries': 0.0}
    return {**figures, **{f'paper_{name}': value for name, value in paper.items()}}


def _shares(outcome: Outcome) -> dict[str, float]:
    return {
        **{f'top{k}': outcome.top_k(k) for k in TOP_K},
        'map': _mean(outcome.average_precision),
        'mrr': _mean(outcome.reciprocal_rank()),
        # Counts as floats: MMEngine's log turns integers into NumPy's, which its JSON then drops.
        'queries': float(len(outcome.queries)),
    }


def _mean(values) -> float:
    return float(values.mean()) if len(values) else float('nan')


def _count(values, wanted) -> np.ndarray:
    """How often each of ``wanted`` is among ``values``."""
    values = np.sort(values)
    return np.searchsorted(values, wanted, side='right') - np.searchsorted(values, wanted, side='left')


def _overlaps(image_ids, boxes, items: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every box with every item of its image: box, item, IoU."""
    order = np.argsort(items.image_ids, kind='stable')
    _, count, members = join(image_ids, items.image_ids[order])
    box, item = np.repeat(np.arange(len(image_ids)), count), order[members]
    return box, item, box_iou(_with_size(boxes)[box], _with_size(items.boxes)[item])


def _with_size(corners) -> np.ndarray:
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)

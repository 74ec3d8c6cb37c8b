"""Consumer-to-shop retrieval by the official protocol.

Each detection on a user image belongs to the ground-truth item that it overlaps most. A query item, one with an
identity, is represented by the best-scored detection among those that belong to it and have its category; without any
it is missed, which counts as wrong. A retrieved box is right when its image holds an item of the query's identity that
it overlaps by IoU 0.5 or more, whatever the category. Top-k is the share of query items with a right box among the
first k.

Source: the official retrieval evaluation script, and the paper's section on clothes retrieval.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from mmdf2.evaluation.coco import box_iou
from mmdf2.evaluation.records import EvaluationError, pairs_of_images

TOP_K = (1, 5, 10, 15, 20)
# The number of retrieved boxes that count for a query (official result files).
MAX_HITS = 20
# The least IoU with an item at which a retrieved box is right (official script).
HIT_IOU = 0.5
# The paper's subset table counts only queries with more matching gallery items than this; the official overall
# figures count all queries.
PAPER_MATCHES = 5


@dataclass(frozen=True)
class RetrievalItems:
    """Annotated items of user images (queries) or of shop images (the gallery), m of them.

    Attributes:
        image_ids: (m,) int64, the image of each item.
        boxes: (m, 4) float64, x1, y1, x2, y2 in pixels.
        identities: (m,) int64, ``mmdf2.categories.identity_code`` of pair_id and style; -1 for none (style 0).
        labels: (m,) int64, the category of each item, 0 to 12; only queries need it.
        attributes: (m, 4) int64 columns scale, occlusion, zoom_in, viewpoint, 1 to 3 or 0 where unknown; only queries
            need them, and only for the columns of subsets.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    identities: np.ndarray
    labels: np.ndarray | None = None
    attributes: np.ndarray | None = None

    def needed_labels(self) -> np.ndarray:
        """``labels``; EvaluationError when there are none."""
        if self.labels is None:
            raise EvaluationError('the items of user images need labels, and these have none')
        return self.labels

    def of_image(self, image_id: int) -> 'RetrievalItems':
        """The items of one image, in their order."""
        rows = self.image_ids == image_id
        return replace(self, **{name: column[rows] for name, column in vars(self).items() if column is not None})


@dataclass(frozen=True)
class RetrievedLists:
    """What was retrieved for each of d detections on user images.

    Attributes:
        image_ids: (d,) int64, the user image of each detection.
        boxes: (d, 4) float64, x1, y1, x2, y2 in pixels.
        labels: (d,) int64, the predicted categories, 0 to 12.
        scores: (d,) float64, the scores of the detections.
        hit_counts: (d,) int64, the number of boxes that were retrieved for each detection, at most ``MAX_HITS``.
        hit_images: (h,) int64, shop image of each retrieved box, best first, all lists one after another.
        hit_boxes: (h, 4) float64, x1, y1, x2, y2 of each retrieved box.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    hit_counts: np.ndarray
    hit_images: np.ndarray
    hit_boxes: np.ndarray

    def hits(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(k,) shop images and (k, 4) boxes that were retrieved for a detection, best first."""
        end = int(self.hit_counts[: row + 1].sum())
        rows = slice(end - int(self.hit_counts[row]), end)
        return self.hit_images[rows], self.hit_boxes[rows]


@dataclass(frozen=True)
class Outcome:
    """The result of each of q query items.

    Attributes:
        queries: (q,) rows of the query items.
        first_right: (q,) place of the first right box, from 0; ``MAX_HITS`` when there is none.
        missed: (q,) bool, whether no detection represents the item.
        matches: (q,) number of gallery items with the query's identity.
        average_precision: (q,) mean, over the gallery items with the query's identity, of the precision at the place
            where the item is found, 0 for an item that is not found. At most ``MAX_HITS`` items count, because so many
            places count. 0 where no gallery item has the identity.
    """

    queries: np.ndarray
    first_right: np.ndarray
    missed: np.ndarray
    matches: np.ndarray
    average_precision: np.ndarray

    def take(self, members: np.ndarray) -> 'Outcome':
        """Selects the outcome of some queries, by a mask (q,) or by rows."""
        return Outcome(**{field.name: getattr(self, field.name)[members] for field in fields(self)})

    def top_k(self, k: int) -> float:
        """The share of queries with a right box among the first k; NaN without queries."""
        return _mean(self.first_right < k)

    def reciprocal_rank(self) -> np.ndarray:
        """(q,) 1 divided by the place, from 1, of the first right box; 0 where there is none."""
        return np.where(self.first_right < MAX_HITS, 1 / (self.first_right + 1.0), 0.0)


def evaluate_lists(lists: RetrievedLists, items: RetrievalItems, gallery: RetrievalItems) -> Outcome:
    """Evaluates retrieved lists.

    Args:
        lists: What was retrieved. An image that no item lies on has no items.
        items: The items of the user images.
        gallery: The items of the shop images.

    Raises:
        EvaluationError: No user image, or no shop image, of the lists is in the ground truth.
    """
    for what, ids, known in (
        ('query_image_id', lists.image_ids, items.image_ids),
        ('gallery_image_id', lists.hit_images, gallery.image_ids),
    ):
        if len(ids) and not np.isin(ids, known).any():
            raise EvaluationError(f'no {what} of the results is in the ground truth: they are of different splits')
    queries, chosen = select_queries(items, lists.image_ids, lists.boxes, lists.labels, lists.scores)
    represented = np.flatnonzero(chosen >= 0)
    counts = lists.hit_counts[chosen[represented]]
    first = np.cumsum(lists.hit_counts) - lists.hit_counts
    hits = np.arange(counts.sum()) + np.repeat(first[chosen[represented]] - np.cumsum(counts) + counts, counts)
    return judge(
        items,
        gallery,
        queries,
        chosen < 0,
        lists.hit_images[hits],
        lists.hit_boxes[hits],
        np.repeat(represented, counts),
    )


def select_queries(
    items: RetrievalItems, image_ids: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the detection that represents each query item.

    Args:
        items: All items of the user images, also those without identity: they take part in the assignment.
        image_ids: (d,) user image of each detection.
        boxes: (d, 4) x1, y1, x2, y2 of each detection.
        labels: (d,) predicted categories, 0 to 12.
        scores: (d,) finite scores of the detections.

    Returns:
        (q,) rows of the items with an identity, and (q,) row of the detection that represents each, -1 where it is
        missed. Of equal overlaps the first item is taken, of equal scores the first detection.

    Raises:
        EvaluationError: A score or a box is not finite.
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
    fitting = labels[detection] == items.needed_labels()[item]
    detection, item = detection[fitting], item[fitting]
    order = np.lexsort((detection, -scores[detection], item))
    represented, first = np.unique(item[order], return_index=True)
    chosen = np.full(len(items.identities), -1, dtype=np.int64)
    chosen[represented] = detection[order[first]]
    return queries, chosen[queries]


def right_items(
    gallery: RetrievalItems, image_ids: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the items for which retrieving a box on a shop image is right.

    Args:
        gallery: The items of the shop images.
        image_ids: (n,) shop image of each box.
        boxes: (n, 4) x1, y1, x2, y2.

    Returns:
        The pairs of a box and an item with an identity that overlap by ``HIT_IOU`` or more, ordered by box: (p,) rows
        of the boxes, (p,) rows of the items, (p,) IoU.
    """
    box, item, iou = _overlaps(image_ids, boxes, gallery)
    right = (iou >= HIT_IOU) & (gallery.identities[item] >= 0)
    return box[right], item[right], iou[right]


def right_identities(
    gallery: RetrievalItems, image_ids: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the identities for which retrieving a box on a shop image is right; arguments as in ``right_items``.

    Returns:
        (p,) rows of the boxes and (p,) identities: each right combination once, sorted.
    """
    box, item, _ = right_items(gallery, image_ids, boxes)
    pairs = np.unique(np.stack([box, gallery.identities[item]], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def judge(
    items: RetrievalItems,
    gallery: RetrievalItems,
    queries: np.ndarray,
    missed: np.ndarray,
    hit_images: np.ndarray,
    hit_boxes: np.ndarray,
    hit_queries: np.ndarray,
) -> Outcome:
    """Decides which retrieved boxes are right for their query.

    Args:
        items: The items of the user images.
        gallery: The items of the shop images.
        queries: (q,) rows of the query items.
        missed: (q,) bool, whether no detection represents the query item.
        hit_images: (h,) image of each retrieved box, best first, those of all queries one after another.
        hit_boxes: (h, 4) x1, y1, x2, y2 of each retrieved box.
        hit_queries: (h,) position in ``queries`` of each retrieved box, rising. The first ``MAX_HITS`` boxes of a query
            count.
    """
    identities = items.identities[queries]
    matches = _count(gallery.identities, identities)
    place = np.arange(len(hit_queries)) - np.searchsorted(hit_queries, hit_queries)
    hit, item, iou = right_items(gallery, hit_images, hit_boxes)
    right = (gallery.identities[item] == identities[hit_queries[hit]]) & (place[hit] < MAX_HITS)
    hit, item, iou = hit[right], item[right], iou[right]
    first_right = np.full(len(queries), MAX_HITS)
    np.minimum.at(first_right, hit_queries[hit], place[hit])
    # A box finds the one item that it overlaps most, and an item is found once.
    order = np.lexsort((item, -iou, hit))
    _, first = np.unique(hit[order], return_index=True)
    hit, item = hit[order[first]], item[order[first]]
    _, first = np.unique(np.stack([hit_queries[hit], item]), axis=1, return_index=True)
    found = np.sort(hit[first])
    query = hit_queries[found]
    precision = (np.arange(len(found)) - np.searchsorted(query, query) + 1) / (place[found] + 1)
    average_precision = np.bincount(query, precision, len(queries)) / np.clip(matches, 1, MAX_HITS)
    return Outcome(
        queries=queries, first_right=first_right, missed=missed, matches=matches, average_precision=average_precision
    )


def chance_top1(items: RetrievalItems, gallery: RetrievalItems) -> float:
    """The top-1 accuracy that a random order of the gallery's ground-truth boxes would reach on average.

    The mean over query items (those with an identity) of the share of the gallery's boxes that are right for the query.
    NaN without queries or gallery.
    """
    identities = items.identities[items.identities >= 0]
    if not len(identities) or not len(gallery.identities):
        return float('nan')
    _, right = right_identities(gallery, gallery.image_ids, gallery.boxes)
    return float(_count(right, identities).mean() / len(gallery.identities))


def summarize(outcome: Outcome) -> dict[str, float]:
    """Computes the figures of all query items, as the official evaluation counts them, and by the paper's convention.

    Returns:
        ``top1`` to ``top20``, ``map`` (mean average precision of the first 20) and ``mrr`` (mean reciprocal rank of the
        first right box), all from 0 to 1 and NaN without queries; ``queries`` and ``missed``, their numbers. The same
        figures, without ``missed``, have the prefix ``paper_`` when they are computed over queries with more than five
        matching gallery items, as in the paper's subset table; when there is no such query, ``paper_queries`` is their
        only figure.
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
        # Counts are floats because MMEngine's log turns integers into NumPy's, which its JSON then drops.
        'queries': float(len(outcome.queries)),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float('nan')


def _count(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How often each of ``wanted`` is among ``values``."""
    values = np.sort(values)
    return np.searchsorted(values, wanted, side='right') - np.searchsorted(values, wanted, side='left')


def _overlaps(
    image_ids: np.ndarray, boxes: np.ndarray, items: RetrievalItems
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The row of the box, the row of the item and the IoU of every pair of a box and an item of its image."""
    box, item = pairs_of_images(image_ids, items.image_ids)
    return box, item, box_iou(with_size(boxes)[box], with_size(items.boxes)[item])


def with_size(corners: np.ndarray) -> np.ndarray:
    """(n, 4) boxes x, y, width, height from boxes x1, y1, x2, y2."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)

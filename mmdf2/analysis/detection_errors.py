"""Why each detection is wrong and each item is not found, by boxes or by masks, and which categories are confused.

The kinds of failure and the two IoU thresholds that distinguish them follow Bolya et al., 'TIDE: A General Toolbox for
Identifying Object Detection Errors' (ECCV 2020). Which item a detection matches is decided by COCO's rule at IoU 0.5.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask as mask_utils

from mmdf2.categories import LANDMARK_COUNTS, MAX_LANDMARKS, NUM_CATEGORIES
from mmdf2.evaluation.coco import Candidates, box_iou, make_candidates, mask_iou, match
from mmdf2.evaluation.records import Detections, GroundTruth

# The smallest IoU with an item at which a detection finds it, and at which a detection is near it.
FOUND, NEAR = 0.5, 0.1
RIGHT, DUPLICATE, CATEGORY, POSITION, BOTH, BACKGROUND = range(6)
# The kinds of detections, by their numbers.
DETECTION_KINDS = ('right', 'duplicate', 'wrong category', 'poor position', 'wrong category and position', 'background')
# The outcomes of items have the same numbers as the kinds of detections; no item is a duplicate, and the last number
# says that an item is missed.
MISSED = BACKGROUND


@dataclass(frozen=True)
class DetectionErrors:
    """The failures of d detections on m items.

    Attributes:
        kinds: (d,) numbers of ``DETECTION_KINDS``. The first that applies: RIGHT, it matches an item; DUPLICATE, it
            finds (IoU 0.5) an item of its category, which a better detection matches; CATEGORY, it finds an item of
            another category; POSITION, it is near (IoU 0.1) an item of its category; BOTH, it is near an item of
            another category; BACKGROUND.
        items: (d,) row of the item that decides the kind, the one with the largest IoU, and of equal ones the first;
            -1 for background.
        overlaps: (d,) IoU with that item; 0 for background.
        outcomes: (m,) RIGHT where a detection matches the item; otherwise the first of CATEGORY, POSITION and BOTH
            that is the kind of a detection whose item it is; otherwise MISSED.
        found_by: (m,) row of the detection that decides the outcome, the best-scored one; -1 where the item is missed.
    """

    kinds: np.ndarray
    items: np.ndarray
    overlaps: np.ndarray
    outcomes: np.ndarray
    found_by: np.ndarray


def pair_up(truth: GroundTruth, detections: Detections, task: str) -> tuple[Candidates, np.ndarray]:
    """Pairs all detections of each image with all its items, regardless of categories.

    Args:
        truth: The items.
        detections: The predictions.
        task: 'bbox' for the IoU of boxes, 'segm' for that of masks.

    Returns:
        The p pairs, and the (p,) IoU of each.
    """
    images = detections.image_ids
    candidates = make_candidates(images, detections.scores, truth.item_image_ids, max(len(images), 1))
    if task == 'segm':
        masks = [detections.masks[row] for row in candidates.detections]
        others = [truth.masks[row] for row in candidates.truths]
        return candidates, mask_iou(masks, others, candidates.first_truths, candidates.num_truths)
    return candidates, box_iou(detections.boxes[candidates.pair_detections], truth.boxes[candidates.pair_truths])


def matched_items(candidates: Candidates, similarity: np.ndarray, least: float) -> np.ndarray:
    """Finds the item that each detection matches by COCO's rule.

    Args:
        candidates: The p pairs of detections and items.
        similarity: (p,) similarity of each pair.
        least: The smallest similarity of a match.

    Returns:
        (d,) row of the item that each detection matches, -1 for none; in the order of the detections' rows.
    """
    ignored = np.zeros((1, len(candidates.truths)), dtype=bool)
    places = match(candidates, similarity, ignored, np.array([least]))[0, 0]
    found = np.full(len(candidates.detections), -1, dtype=np.int64)
    hit = places >= 0
    found[candidates.detections[hit]] = candidates.truths[places[hit]]
    return found


def match_values(candidates: Candidates, values: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """The value of the pair of each detection with its match.

    Args:
        candidates: The p pairs of detections and items.
        values: (p,) value of each pair, such as its IoU.
        matches: (d,) row of the item that each detection matches, -1 for none.

    Returns:
        (d,) values, 0 for detections without a match.
    """
    found = np.zeros(len(matches))
    hit = candidates.pair_truths == matches[candidates.pair_detections]
    found[candidates.pair_detections[hit]] = values[hit]
    return found


def best_threshold(scores: ArrayLike, right: ArrayLike, num_truths: int) -> float:
    """The score threshold with the largest F1 of precision and recall.

    Args:
        scores: (d,) scores of the detections.
        right: (d,) bool, whether each detection is matched by COCO's rule when all detections are kept.
        num_truths: Number of items to find.

    Returns:
        The threshold, the highest of several that are equally good; detections with at least this score are kept. 0
        without detections.
    """
    scores = np.asarray(scores)
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind='stable')
    scores = scores[order]
    true = np.cumsum(np.asarray(right)[order])
    f1 = 2 * true / (np.arange(1, len(scores) + 1) + num_truths)
    # Detections of equal score are kept together or not at all.
    f1[:-1][scores[1:] == scores[:-1]] = -1
    return float(scores[f1.argmax()])


def take_detections(detections: Detections, rows: ArrayLike) -> Detections:
    """The detections of the given rows, in the order of ``rows``."""
    rows = np.asarray(rows, dtype=np.int64)
    columns = {field.name: getattr(detections, field.name) for field in fields(Detections)}
    dense = columns.pop('dense_landmarks')
    if dense is not None:
        dense = {place: dense[row] for place, row in enumerate(rows.tolist()) if row in dense}
    taken = {
        name: None if column is None else [column[row] for row in rows] if isinstance(column, list) else column[rows]
        for name, column in columns.items()
    }
    return Detections(**taken, dense_landmarks=dense)


def with_boxes(detections: Detections) -> Detections:
    """The detections with boxes; where they have none, these are the bounding boxes of their masks or landmarks."""
    if detections.boxes is not None:
        return detections
    if detections.masks is not None:
        boxes = mask_utils.toBbox(detections.masks).reshape(-1, 4) if detections.masks else np.zeros((0, 4))
        return replace(detections, boxes=boxes)
    own = np.arange(MAX_LANDMARKS) < LANDMARK_COUNTS[detections.labels][:, None]
    low, high = (
        extreme(np.where(own[..., None], detections.landmarks, beyond), axis=1)
        for extreme, beyond in ((np.min, np.inf), (np.max, -np.inf))
    )
    return replace(detections, boxes=np.concatenate([low, high - low], axis=1))


def explain(truth: GroundTruth, detections: Detections, candidates: Candidates, overlap: np.ndarray) -> DetectionErrors:
    """Finds the kind of each detection and the outcome of each item.

    Args:
        truth: The items.
        detections: The predictions that are kept.
        candidates: The p pairs of both, from ``pair_up``.
        overlap: (p,) IoU of each pair.
    """
    found, wanted = candidates.pair_detections, candidates.pair_truths
    same = detections.labels[found] == truth.labels[wanted]
    matches = matched_items(candidates, np.where(same, overlap, 0.0), FOUND)
    own_overlap, own = _largest(found, wanted, overlap, same, len(detections.labels))
    other_overlap, other = _largest(found, wanted, overlap, ~same, len(detections.labels))
    conditions = [
        matches >= 0,
        own_overlap >= FOUND,
        other_overlap >= FOUND,
        own_overlap >= NEAR,
        other_overlap >= NEAR,
    ]
    kinds = np.select(conditions, range(len(conditions)), BACKGROUND)
    items = np.select(conditions, [matches, own, other, own, other], -1)
    values = np.where(np.isin(kinds, (CATEGORY, BOTH)), other_overlap, own_overlap)
    values = np.where(kinds == RIGHT, match_values(candidates, overlap, matches), values)
    values = np.where(kinds == BACKGROUND, 0.0, values)
    outcomes, found_by = _outcomes(kinds, items, detections.scores, len(truth.labels))
    return DetectionErrors(kinds=kinds, items=items, overlaps=values, outcomes=outcomes, found_by=found_by)


def confusion_matrix(
    truth: GroundTruth, detections: Detections, candidates: Candidates, overlap: np.ndarray
) -> np.ndarray:
    """The confusion matrix of categories, by COCO's matching at IoU 0.5 regardless of categories.

    Args:
        truth: The items.
        detections: The predictions that are kept.
        candidates: The p pairs of both, from ``pair_up``.
        overlap: (p,) IoU of each pair.

    Returns:
        (14, 14) int64. Rows are the categories of items, columns those of detections; the last row counts the
        detections that match no item, the last column the items that no detection matches.
    """
    matches = matched_items(candidates, overlap, FOUND)
    counts = np.zeros((NUM_CATEGORIES + 1, NUM_CATEGORIES + 1), dtype=np.int64)
    hit = matches >= 0
    np.add.at(counts, (truth.labels[matches[hit]], detections.labels[hit]), 1)
    np.add.at(counts, (np.full((~hit).sum(), NUM_CATEGORIES), detections.labels[~hit]), 1)
    missed = np.setdiff1d(np.arange(len(truth.labels)), matches[hit])
    np.add.at(counts, (truth.labels[missed], np.full(len(missed), NUM_CATEGORIES)), 1)
    return counts


def _largest(
    found: np.ndarray, wanted: np.ndarray, overlap: np.ndarray, kept: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each detection among the kept pairs, and the item of that pair; 0 and -1 without a pair.

    Args:
        found: (p,) row of the detection of each pair.
        wanted: (p,) row of the item of each pair.
        overlap: (p,) IoU of each pair.
        kept: (p,) bool, the pairs to look at.
        count: Number of detections.
    """
    found, wanted, overlap = found[kept], wanted[kept], overlap[kept]
    order = np.lexsort((wanted, -overlap, found))
    rows, first = np.unique(found[order], return_index=True)
    values, items = np.zeros(count), np.full(count, -1, dtype=np.int64)
    values[rows], items[rows] = overlap[order[first]], wanted[order[first]]
    return values, items


def _outcomes(kinds: np.ndarray, items: np.ndarray, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The outcome of each of ``count`` items and the detection that decides it, see ``DetectionErrors``."""
    outcomes = np.full(count, MISSED)
    found_by = np.full(count, -1, dtype=np.int64)
    telling = np.flatnonzero(np.isin(kinds, (RIGHT, CATEGORY, POSITION, BOTH)))
    order = telling[np.lexsort((telling, -scores[telling], kinds[telling], items[telling]))]
    rows, first = np.unique(items[order], return_index=True)
    outcomes[rows], found_by[rows] = kinds[order[first]], order[first]
    return outcomes, found_by

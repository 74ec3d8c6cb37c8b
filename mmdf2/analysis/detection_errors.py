"""Why each detection is wrong and each item is not found, by boxes or by masks, and what is taken for what.

Kinds of failure and the two overlaps that tell them apart follow Bolya et al., 'TIDE: A General Toolbox for Identifying
Object Detection Errors' (ECCV 2020); which item a detection matches is COCO's, at IoU 0.5.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.categories import LANDMARK_COUNTS, MAX_LANDMARKS, NUM_CATEGORIES
from mmdf2.evaluation.coco import Candidates, box_iou, make_candidates, mask_iou, match
from mmdf2.evaluation.records import Detections, GroundTruth

# Least overlap with an item of a detection of it, and of one that is near it at all.
FOUND, NEAR = 0.5, 0.1
RIGHT, DUPLICATE, CATEGORY, POSITION, BOTH, BACKGROUND = range(6)
# Of a detection: what it is.
DETECTION_KINDS = ('right', 'duplicate', 'wrong category', 'poor position', 'wrong category and position', 'background')
# Of an item: what became of it. The numbers of the kinds are shared; no item is a duplicate, the last are missed.
MISSED = BACKGROUND


@dataclass(frozen=True)
class DetectionErrors:
    """The failures of d detections on m items.

    Attributes:
        kinds: (d,) of ``DETECTION_KINDS``: a detection is RIGHT when it matches an item; else a DUPLICATE when it finds
            (IoU 0.5) an item of its category, which a better one has; else of the wrong CATEGORY when it finds another
            item; else poor in POSITION when it is near (IoU 0.1) an item of its category; else BOTH when it is near
            another; else BACKGROUND.
        items: (d,) the item meant there, the one of largest overlap and of equals the first; -1 for background.
        overlaps: (d,) IoU with that item; 0 for background.
        outcomes: (m,) RIGHT, or the first of CATEGORY, POSITION and BOTH by which a detection explains the failure, or
            MISSED.
        found_by: (m,) the detection that matches or explains the item, the best-scored one; -1 where missed.
    """

    kinds: np.ndarray
    items: np.ndarray
    overlaps: np.ndarray
    outcomes: np.ndarray
    found_by: np.ndarray


def pair_up(truth: GroundTruth, detections: Detections, task: str) -> tuple[Candidates, np.ndarray]:
    """Pairs all detections of an image with all its items, whatever the categories.

    Args:
        truth: The items.
        detections: The predictions.
        task: 'bbox' or 'segm'.

    Returns:
        The pairs, and the (p,) IoU of each.
    """
    images = detections.image_ids
    candidates = make_candidates(images, detections.scores, truth.item_image_ids, max(len(images), 1))
    if task == 'segm':
        masks = [detections.masks[row] for row in candidates.detections]
        others = [truth.masks[row] for row in candidates.truths]
        return candidates, mask_iou(masks, others, candidates.first_truths, candidates.num_truths)
    return candidates, box_iou(detections.boxes[candidates.pair_detections], truth.boxes[candidates.pair_truths])


def matched_items(candidates: Candidates, similarity, least: float) -> np.ndarray:
    """(d,) the item that each detection matches by COCO's rule, -1 for none; in the order of the detections' rows."""
    ignored = np.zeros((1, len(candidates.truths)), dtype=bool)
    places = match(candidates, similarity, ignored, np.array([least]))[0, 0]
    found = np.full(len(candidates.detections), -1, dtype=np.int64)
    hit = places >= 0
    found[candidates.detections[hit]] = candidates.truths[places[hit]]
    return found


def best_threshold(scores, right, num_truths: int) -> float:
    """The score from which on detections are best kept: the F1 of precision and recall is largest.

    Args:
        scores: (d,).
        right: (d,) bool, matched by COCO's rule when all are kept.
        num_truths: Items to find.

    Returns:
        The highest such score; 0 without detections.
    """
    if not len(scores):
        return 0.0
    order = np.argsort(-np.asarray(scores), kind='stable')
    scores = np.asarray(scores)[order]
    true = np.cumsum(np.asarray(right)[order])
    f1 = 2 * true / (np.arange(1, len(scores) + 1) + num_truths)
    # Equal scores are kept together or not at all.
    f1[:-1][scores[1:] == scores[:-1]] = -1
    return float(scores[f1.argmax()])


def take_detections(detections: Detections, rows) -> Detections:
    """The detections of these rows, in that order."""
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
    """The detections with boxes: where they have none, those around their masks or landmarks."""
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


def explain(truth: GroundTruth, detections: Detections, candidates: Candidates, overlap) -> DetectionErrors:
    """Finds out what each detection and each item came to.

    Args:
        truth: The items.
        detections: The predictions that are kept.
        candidates: Their pairs, of ``pair_up``.
        overlap: (p,) IoU.
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
    values = np.where(kinds == RIGHT, _of_matches(candidates, overlap, matches), values)
    values = np.where(kinds == BACKGROUND, 0.0, values)
    outcomes, found_by = _outcomes(kinds, items, detections.scores, len(truth.labels))
    return DetectionErrors(kinds, items, values, outcomes, found_by)


def confusion_matrix(truth: GroundTruth, detections: Detections, candidates: Candidates, overlap) -> np.ndarray:
    """What is taken for what: COCO's matching at IoU 0.5 with categories left aside.

    Returns:
        (14, 14) int64: rows the items' categories, columns the detections'; the last row counts detections on no item,
        the last column items without a detection.
    """
    matches = matched_items(candidates, overlap, FOUND)
    counts = np.zeros((NUM_CATEGORIES + 1, NUM_CATEGORIES + 1), dtype=np.int64)
    hit = matches >= 0
    np.add.at(counts, (truth.labels[matches[hit]], detections.labels[hit]), 1)
    np.add.at(counts, (np.full((~hit).sum(), NUM_CATEGORIES), detections.labels[~hit]), 1)
    missed = np.setdiff1d(np.arange(len(truth.labels)), matches[hit])
    np.add.at(counts, (truth.labels[missed], np.full(len(missed), NUM_CATEGORIES)), 1)
    return counts


def _largest(found, wanted, overlap, kept, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the largest overlap among the kept pairs and its item; 0 and -1 without any."""
    found, wanted, overlap = found[kept], wanted[kept], overlap[kept]
    order = np.lexsort((wanted, -overlap, found))
    rows, first = np.unique(found[order], return_index=True)
    values, items = np.zeros(count), np.full(count, -1, dtype=np.int64)
    values[rows], items[rows] = overlap[order[first]], wanted[order[first]]
    return values, items


def _of_matches(candidates: Candidates, overlap, matches) -> np.ndarray:
    """(d,) overlap of each detection with its match; 0 without."""
    values = np.zeros(len(matches))
    hit = candidates.pair_truths == matches[candidates.pair_detections]
    values[candidates.pair_detections[hit]] = overlap[hit]
    return values


def _outcomes(kinds, items, scores, count: int) -> tuple[np.ndarray, np.ndarray]:
    outcomes = np.full(count, MISSED)
    found_by = np.full(count, -1, dtype=np.int64)
    telling = np.flatnonzero(np.isin(kinds, (RIGHT, CATEGORY, POSITION, BOTH)))
    order = telling[np.lexsort((telling, -scores[telling], kinds[telling], items[telling]))]
    rows, first = np.unique(items[order], return_index=True)
    outcomes[rows], found_by[rows] = kinds[order[first]], order[first]
    return outcomes, found_by

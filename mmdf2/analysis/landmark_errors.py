"""Which landmarks are poor: the terms of object keypoint similarity (OKS) of single landmarks."""

from dataclasses import dataclass

import numpy as np

from mmdf2.analysis.detection_errors import FOUND, NEAR, match_values, matched_items
from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, NUM_CATEGORIES, OKS_SIGMAS
from mmdf2.evaluation.coco import kept_landmarks, landmark_oks, make_candidates
from mmdf2.evaluation.records import Detections, GroundTruth


@dataclass(frozen=True)
class LandmarkErrors:
    """How well the landmarks of m items were found; visible and occluded landmarks (v > 0) are compared.

    Attributes:
        counted: (m,) bool, items with at least one landmark to compare.
        found_by: (m,) row of the detection that represents the item, -1 for none: it has the item's category, an OKS
            of 0.1 or more, and matches the item by COCO's rule.
        oks: (m,) OKS of that detection, 0 without one.
        likeness: (m, 39) the term of OKS of each landmark, from 0 to 1; NaN where there is nothing to compare.
        distances: (m, 39) distance in pixels of each landmark from the ground truth; NaN where there is nothing to
            compare.
        worst: (m,) number from 0 of the landmark with the smallest term; -1 without a detection.
    """

    counted: np.ndarray
    found_by: np.ndarray
    oks: np.ndarray
    likeness: np.ndarray
    distances: np.ndarray
    worst: np.ndarray

    @property
    def poor(self) -> np.ndarray:
        """(m,) bool: items that a detection represents with an OKS below 0.5."""
        return (self.found_by >= 0) & (self.oks < FOUND)


def landmark_errors(truth: GroundTruth, detections: Detections) -> LandmarkErrors:
    """Finds the detection that represents each item, and how far each of its landmarks is off.

    Args:
        truth: The items.
        detections: The predictions that are kept, with landmarks.
    """
    count = len(truth.labels)
    counted = kept_landmarks(truth.landmarks[..., 2], False).any(axis=1)
    found_by, oks = np.full(count, -1, dtype=np.int64), np.zeros(count)
    for label in range(NUM_CATEGORIES):
        rows = np.flatnonzero((truth.labels == label) & counted)
        detected, matches, values = match_landmarks(truth, detections, label, rows, NEAR)
        hit = matches >= 0
        found_by[matches[hit]], oks[matches[hit]] = detected[hit], values[hit]
    likeness = np.full((count, MAX_LANDMARKS), np.nan)
    distances = np.full((count, MAX_LANDMARKS), np.nan)
    worst = np.full(count, -1, dtype=np.int64)
    found = np.flatnonzero(found_by >= 0)
    if len(found):
        likeness[found], distances[found] = landmark_likeness(
            detections.landmarks[found_by[found]], truth.landmarks[found], truth.boxes[found], truth.labels[found]
        )
        worst[found] = np.nanargmin(likeness[found], axis=1)
    return LandmarkErrors(
        counted=counted, found_by=found_by, oks=oks, likeness=likeness, distances=distances, worst=worst
    )


def match_landmarks(
    truth: GroundTruth, detections: Detections, label: int, rows: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matches the detections of one category to items by their OKS and COCO's rule.

    Args:
        truth: The items.
        detections: The predictions, with landmarks.
        label: Label of the category.
        rows: (r,) rows of the items that can be matched.
        least: The smallest OKS of a match.

    Returns:
        (n,) rows of the category's detections, (n,) row of the item that each matches, or -1, and (n,) OKS of each
        match, or 0.
    """
    detected = np.flatnonzero(detections.labels == label)
    candidates = make_candidates(
        detections.image_ids[detected],
        detections.scores[detected],
        truth.item_image_ids[rows],
        max(len(detected), 1),
    )
    found, wanted = detected[candidates.pair_detections], rows[candidates.pair_truths]
    oks = landmark_oks(detections.landmarks[found], truth.landmarks[wanted], truth.boxes[wanted], label, False)
    places = matched_items(candidates, oks, least)
    return detected, np.append(rows, -1)[places], match_values(candidates, oks, places)


def landmark_likeness(
    points: np.ndarray, landmarks: np.ndarray, boxes: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The terms of OKS: the mean of those of an item's labelled landmarks is its OKS.

    Args:
        points: (n, 39, 2) x, y of the detected landmarks.
        landmarks: (n, 39, 3) x, y, v of the annotated landmarks.
        boxes: (n, 4) x, y, width, height of the items.
        labels: (n,) category labels of the items.

    Returns:
        (n, 39) ``exp(-d^2 / (2 area (2 sigma)^2))`` and (n, 39) the distance d in pixels, NaN where v is 0.
    """
    kept = kept_landmarks(landmarks[..., 2], False)
    areas = boxes[:, 2] * boxes[:, 3] + np.spacing(1)
    squares = ((points - landmarks[..., :2]) ** 2).sum(axis=-1)
    likeness = np.exp(-squares / (2 * OKS_SIGMAS[labels]) ** 2 / areas[:, None] / 2)
    return np.where(kept, likeness, np.nan), np.where(kept, np.sqrt(squares), np.nan)


def landmark_table(truth: GroundTruth, errors: LandmarkErrors) -> list[dict]:
    """One row per landmark, 294 in all.

    Returns:
        Dicts of category (name), landmark (its number in the published figure, from 1), compared (how often it was
        compared), oks (mean term of OKS), below_half (share of terms below 0.5), offset (median distance divided by
        the square root of the box's area) and worst (number of items with poor landmarks of which this one is the
        worst). Means, shares and medians are NaN where nothing was compared.
    """
    sizes = np.sqrt(np.maximum(truth.boxes[:, 2] * truth.boxes[:, 3], np.spacing(1)))
    table = []
    for category in CATEGORIES:
        rows = truth.labels == category.label
        for place in range(category.num_landmarks):
            terms, offsets = errors.likeness[rows, place], (errors.distances[:, place] / sizes)[rows]
            kept = ~np.isnan(terms)
            table.append(
                {
                    'category': category.name,
                    'landmark': place + 1,
                    'compared': int(kept.sum()),
                    'oks': float(terms[kept].mean()) if kept.any() else float('nan'),
                    'below_half': float((terms[kept] < FOUND).mean()) if kept.any() else float('nan'),
                    'offset': float(np.median(offsets[kept])) if kept.any() else float('nan'),
                    'worst': int((errors.poor & rows & (errors.worst == place)).sum()),
                }
            )
    return table

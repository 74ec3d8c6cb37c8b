"""Which landmarks are poor: the terms of object keypoint similarity (OKS), one by one."""

from dataclasses import dataclass

import numpy as np

from mmdf2.analysis.detection_errors import FOUND, NEAR, matched_items
from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, NUM_CATEGORIES, OKS_SIGMAS
from mmdf2.evaluation.coco import kept_landmarks, landmark_oks, make_candidates
from mmdf2.evaluation.records import Detections, GroundTruth


@dataclass(frozen=True)
class LandmarkErrors:
    """How m items were posed; landmarks with v > 0 count (visible and occluded).

    Attributes:
        counted: (m,) bool, items with a landmark to compare.
        found_by: (m,) the detection that stands for the item, -1 for none: of its category, OKS 0.1 or more, by COCO's
            matching.
        oks: (m,) of that detection, 0 without one.
        likeness: (m, 39) each landmark's term of OKS, from 0 to 1; NaN where there is nothing to compare.
        distances: (m, 39) from the truth, in pixels; NaN likewise.
        worst: (m,) the landmark, from 0, of the least term; -1 without a detection.
    """

    counted: np.ndarray
    found_by: np.ndarray
    oks: np.ndarray
    likeness: np.ndarray
    distances: np.ndarray
    worst: np.ndarray

    @property
    def poor(self) -> np.ndarray:
        """(m,) bool: items that a detection stands for with OKS below 0.5."""
        return (self.found_by >= 0) & (self.oks < FOUND)


def landmark_errors(truth: GroundTruth, detections: Detections) -> LandmarkErrors:
    """Finds the detection that stands for each item, and how far each of its landmarks is off."""
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
    hit = np.flatnonzero(found_by >= 0)
    if len(hit):
        likeness[hit], distances[hit] = landmark_likeness(
            detections.landmarks[found_by[hit]], truth.landmarks[hit], truth.boxes[hit], truth.labels[hit]
        )
        worst[hit] = np.nanargmin(likeness[hit], axis=1)
    return LandmarkErrors(counted, found_by, oks, likeness, distances, worst)


def match_landmarks(truth, detections, label: int, rows, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """COCO's matching by OKS of one category's detections to some items.

    Args:
        truth: The items.
        detections: The predictions, with landmarks.
        label: The category.
        rows: (r,) the items.
        least: OKS of a match.

    Returns:
        (n,) the category's detections, (n,) the item that each matches or -1, and (n,) its OKS or 0.
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
    values = np.zeros(len(detected))
    hit = candidates.pair_truths == places[candidates.pair_detections]
    values[candidates.pair_detections[hit]] = oks[hit]
    return detected, np.append(rows, -1)[places], values


def landmark_likeness(points, landmarks, boxes, labels) -> tuple[np.ndarray, np.ndarray]:
    """The terms whose mean over an item's labelled landmarks is OKS.

    Args:
        points: (n, 39, 2) detected x, y.
        landmarks: (n, 39, 3) ground truth x, y, v.
        boxes: (n, 4) x, y, width, height of the ground truth.
        labels: (n,).

    Returns:
        (n, 39) ``exp(-d^2 / (2 area (2 sigma)^2))`` and (n, 39) the distance d in pixels, NaN where v is 0.
    """
    kept = kept_landmarks(landmarks[..., 2], False)
    areas = boxes[:, 2] * boxes[:, 3] + np.spacing(1)
    squares = ((points - landmarks[..., :2]) ** 2).sum(axis=-1)
    likeness = np.exp(-squares / (2 * OKS_SIGMAS[labels]) ** 2 / areas[:, None] / 2)
    return np.where(kept, likeness, np.nan), np.where(kept, np.sqrt(squares), np.nan)


def landmark_table(truth: GroundTruth, errors: LandmarkErrors) -> list[dict]:
    """A row for each of the 294 landmarks.

    Returns:
        Dicts: category, landmark (its number in the published figure, from 1), compared (how often), oks (mean term),
        below_half (share of terms under 0.5), offset (median distance over the square root of the box's area), worst
        (items with poor landmarks of which it is the worst). NaN where nothing was compared.
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

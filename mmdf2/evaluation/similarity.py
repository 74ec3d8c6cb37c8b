"""How alike a detection and a ground-truth item are: IoU of boxes, IoU of masks, object keypoint similarity.

Each function takes p pairs and gives p values from 0 to 1, computed in pycocotools' own order of operations.
"""

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.categories import CATEGORIES, OKS_SIGMAS, TOTAL_LANDMARKS
from mmdf2.evaluation.records import EvaluationError

# OKS sigmas of the dense vector of the exchange format: (294,).
DENSE_OKS_SIGMAS = np.concatenate([category.oks_sigmas for category in CATEGORIES])


def box_iou(boxes, others) -> np.ndarray:
    """IoU of boxes.

    Args:
        boxes: (p, 4) float64, x, y, width, height.
        others: (p, 4), likewise.

    Returns:
        (p,) float64; 0 where boxes do not overlap or have no area.
    """
    upper = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    overlap = upper - np.maximum(boxes[:, :2], others[:, :2])
    intersection = overlap[:, 0] * overlap[:, 1]
    union = boxes[:, 2] * boxes[:, 3] + others[:, 2] * others[:, 3] - intersection
    overlapping = (overlap > 0).all(axis=1)
    return np.divide(intersection, union, out=np.zeros(len(boxes)), where=overlapping)


def mask_iou(masks, others, first_pairs, num_pairs) -> np.ndarray:
    """IoU of masks, for pairs that come in runs: one mask with each of several others.

    Args:
        masks: A compressed RLE for each run.
        others: A compressed RLE for each pair.
        first_pairs: Where each run begins among the pairs.
        num_pairs: How long it is.

    Returns:
        (p,) float64; 0 where a mask is empty.

    Raises:
        EvaluationError: Two masks of a pair differ in size.
    """
    values = np.zeros(len(others))
    for mask, first, count in zip(masks, np.asarray(first_pairs).tolist(), np.asarray(num_pairs).tolist(), strict=True):
        if not count:
            continue
        partners = others[first : first + count]
        for partner in partners:
            if list(partner['size']) != list(mask['size']):
                raise EvaluationError(
                    f'a predicted mask is {mask["size"]} (height, width), its image is {partner["size"]}; '
                    'masks must be pasted into the original image'
                )
        values[first : first + count] = mask_utils.iou([mask], partners, [False] * count)[0]
    return values


def landmark_oks(points, landmarks, truth_boxes, label: int, visible_only: bool) -> np.ndarray:
    """Object keypoint similarity, the mean over an item's landmarks of ``exp(-d^2 / (2 area (2 sigma)^2))``.

    An item without a landmark to compare is matched by how near the detection stays to its box, so that a detection on
    it can be ignored: the distance is to the box extended threefold, over all 294 columns of the exchange format, in
    which those of other categories are at the origin.

    Args:
        points: (p, 39, 2) float64 detected x, y.
        landmarks: (p, 39, 3) float64 ground truth x, y, v.
        truth_boxes: (p, 4) x, y, width, height of the ground truth; its area is the object's (official converter).
        label: The category of all pairs.
        visible_only: Compares landmarks with v == 2; otherwise those with v > 0.

    Returns:
        (p,) float64.

    Source: pycocotools' ``computeOks`` with the official sigmas.
    """
    count = CATEGORIES[label].num_landmarks
    points, landmarks = points[:, :count], landmarks[:, :count]
    kept = kept_landmarks(landmarks[..., 2], visible_only)
    variances = (OKS_SIGMAS[label, :count] * 2) ** 2
    areas = truth_boxes[:, 2] * truth_boxes[:, 3] + np.spacing(1)
    distances = ((points - landmarks[..., :2]) ** 2).sum(axis=-1)
    likeness = np.exp(-(distances / variances / areas[:, None] / 2))
    num_kept = kept.sum(axis=1)
    oks = (likeness * kept).sum(axis=1) / np.maximum(num_kept, 1)
    bare = np.flatnonzero(num_kept == 0)
    if len(bare):
        oks[bare] = _oks_to_box(points[bare], truth_boxes[bare], areas[bare], CATEGORIES[label])
    return oks


def kept_landmarks(visibility, visible_only: bool) -> np.ndarray:
    """Which landmarks are compared: v == 2 when ``visible_only``, else v > 0; the shape of ``visibility``."""
    return visibility == 2 if visible_only else visibility > 0


def _oks_to_box(points, boxes, areas, category) -> np.ndarray:
    dense = np.zeros((len(points), TOTAL_LANDMARKS, 2))
    dense[:, category.dense_slice] = points
    low = (boxes[:, :2] - boxes[:, 2:])[:, None]
    high = (boxes[:, :2] + boxes[:, 2:] * 2)[:, None]
    outside = np.maximum(low - dense, 0) + np.maximum(dense - high, 0)
    distances = (outside**2).sum(axis=-1)
    likeness = np.exp(-(distances / ((DENSE_OKS_SIGMAS * 2) ** 2) / areas[:, None] / 2))
    return likeness.sum(axis=1) / TOTAL_LANDMARKS

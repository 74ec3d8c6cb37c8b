"""How alike a detection and a ground-truth item are: IoU of boxes, IoU of masks, object keypoint similarity.

Each function takes p pairs and gives p values from 0 to 1, computed in pycocotools' own order of operations.
"""

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.categories import CATEGORIES, OKS_SIGMAS, TOTAL_LANDMARKS
from mmdf2.evaluation.records import EvaluationError

# OKS sigmas of the dense vector of the exchange format: (294,).
DENSE_OKS_SIGMAS = np.concatenate([category.oks_sigmas for category in CATEGORIES])


def box_iou(boxes, others, crowds=None) -> np.ndarray:
    """IoU of boxes.

    Args:
        boxes: (p, 4) float64, x, y, width, height.
        others: (p, 4), likewise.
        crowds: (p,) bool, where the other is a crowd: the share of the box that lies in it counts instead.

    Returns:
        (p,) float64; 0 where boxes do not overlap or have no area.
    """
    upper = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    overlap = upper - np.maximum(boxes[:, :2], others[:, :2])
    intersection = overlap[:, 0] * overlap[:, 1]
    area = boxes[:, 2] * boxes[:, 3]
    union = area + others[:, 2] * others[:, 3] - intersection
    if crowds is not None:
        union = np.where(crowds, area, union)
    overlapping = (overlap > 0).all(axis=1)
    return np.divide(intersection, union, out=np.zeros(len(boxes)), where=overlapping)


def mask_iou(masks, others, first_others, num_others, crowds=None) -> np.ndarray:
    """IoU of masks, each with those of a run of others; detections of one image share a run and are compared at once.

    Args:
        masks: d compressed RLEs, those of one image one after another.
        others: m compressed RLEs.
        first_others: (d,) where the run of each begins among the others.
        num_others: (d,) how long it is.
        crowds: (m,) bool, others of which the share of the mask that lies in them counts; None for none.

    Returns:
        (p,) float64, the runs one after another; 0 where a mask is empty.

    Raises:
        EvaluationError: Two masks of a pair differ in size.
    """
    crowds = np.zeros(len(others), dtype=bool) if crowds is None else crowds
    rows = np.flatnonzero(num_others)
    if not len(rows):
        return np.zeros(0)
    values = []
    for image in np.split(rows, np.flatnonzero(np.diff(first_others[rows])) + 1):
        first = int(first_others[image[0]])
        run = slice(first, first + int(num_others[image[0]]))
        found, wanted = [masks[row] for row in image.tolist()], others[run]
        _check_mask_sizes(found, wanted)
        values.append(mask_utils.iou(found, wanted, crowds[run].tolist()).ravel())
    return np.concatenate(values)


def _check_mask_sizes(masks, others) -> None:
    size = list(others[0]['size'])
    for mask in (*masks, *others):
        if list(mask['size']) != size:
            raise EvaluationError(
                f'a predicted mask is {mask["size"]} (height, width), its image is {size}; '
                'masks must be pasted into the original image'
            )


def landmark_oks(
    points, landmarks, truth_boxes, label: int, visible_only: bool, areas=None, dense_points=None
) -> np.ndarray:
    """Object keypoint similarity, the mean over an item's landmarks of ``exp(-d^2 / (2 area (2 sigma)^2))``.

    An item without a landmark to compare is matched by how near the detection stays to its box, so that a detection on
    it can be ignored: the distance is to the box extended threefold, over all 294 columns of the exchange format, in
    which those of other categories are at the origin unless ``dense_points`` has them.

    Args:
        points: (p, 39, 2) float64 detected x, y.
        landmarks: (p, 39, 3) float64 ground truth x, y, v.
        truth_boxes: (p, 4) x, y, width, height of the ground truth; its area is the object's (official converter).
        label: The category of all pairs.
        visible_only: Compares landmarks with v == 2; otherwise those with v > 0.
        areas: (p,) areas of the objects in square pixels; by default those of their boxes.
        dense_points: Pair -> (294, 2) x, y of the whole vector, where columns of other categories are filled too.

    Returns:
        (p,) float64.

    Source: pycocotools' ``computeOks`` with the official sigmas.
    """
    count = CATEGORIES[label].num_landmarks
    points, landmarks = points[:, :count], landmarks[:, :count]
    kept = kept_landmarks(landmarks[..., 2], visible_only)
    variances = (OKS_SIGMAS[label, :count] * 2) ** 2
    areas = (truth_boxes[:, 2] * truth_boxes[:, 3] if areas is None else areas) + np.spacing(1)
    distances = ((points - landmarks[..., :2]) ** 2).sum(axis=-1)
    likeness = np.exp(-(distances / variances / areas[:, None] / 2))
    num_kept = kept.sum(axis=1)
    oks = (likeness * kept).sum(axis=1) / np.maximum(num_kept, 1)
    bare = np.flatnonzero(num_kept == 0)
    if len(bare):
        dense = np.zeros((len(bare), TOTAL_LANDMARKS, 2))
        dense[:, CATEGORIES[label].dense_slice] = points[bare]
        for row, pair in enumerate(bare.tolist()):
            if dense_points and pair in dense_points:
                dense[row] = dense_points[pair]
        oks[bare] = _oks_to_box(dense, truth_boxes[bare], areas[bare])
    return oks


def kept_landmarks(visibility, visible_only: bool) -> np.ndarray:
    """Which landmarks are compared: v == 2 when ``visible_only``, else v > 0; the shape of ``visibility``."""
    return visibility == 2 if visible_only else visibility > 0


def _oks_to_box(dense, boxes, areas) -> np.ndarray:
    low = (boxes[:, :2] - boxes[:, 2:])[:, None]
    high = (boxes[:, :2] + boxes[:, 2:] * 2)[:, None]
    outside = np.maximum(low - dense, 0) + np.maximum(dense - high, 0)
    distances = (outside**2).sum(axis=-1)
    likeness = np.exp(-(distances / ((DENSE_OKS_SIGMAS * 2) ** 2) / areas[:, None] / 2))
    return likeness.sum(axis=1) / TOTAL_LANDMARKS

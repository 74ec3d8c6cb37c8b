"""What affine maps and flips of an image do to the instances on it: pure functions.

Coordinates are continuous: pixel (i, j) covers [j, j + 1) x [i, i + 1), the convention of boxes, polygons and flips.
"""

import cv2
import numpy as np
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from mmdf2.categories import FLIP_PERMUTATIONS

PER_INSTANCE = (
    'gt_bboxes',
    'gt_bboxes_labels',
    'gt_masks',
    'gt_ignore_flags',
    'gt_keypoints',
    'gt_keypoints_visible',
    'gt_identities',
    'gt_item_ids',
)
# A flip of both axes is a rotation by 180 degrees and no mirror image: left stays left.
MIRRORING = ('horizontal', 'vertical')


def pixel_matrix(matrix: np.ndarray) -> np.ndarray:
    """Turns a (2, 3) map of continuous coordinates into the (2, 3) map of pixel numbers that OpenCV's warps expect."""
    shifted = np.asarray(matrix, dtype=np.float64).copy()
    shifted[:, 2] += shifted[:, :2] @ (0.5, 0.5) - 0.5
    return shifted


def warp_instances(results: dict, matrix: np.ndarray, shape: tuple[int, int], min_visible: float) -> dict:
    """Maps the instances of an image that is mapped and cut to a new size.

    Boxes are clipped. Landmarks that leave the image become unlabelled. An instance is removed from all fields at once
    when its box or its mask is no longer in the image, or less than ``min_visible`` of its box is left.

    Args:
        results: A pipeline's results, which are not changed.
        matrix: (2, 3) map of continuous coordinates.
        shape: (height, width) of the new image.
        min_visible: Least share of a box's area that must stay in the image, 0 to 1.

    Returns:
        New values of the ``gt_*`` fields of ``results``.
    """
    fields = {name: results[name] for name in PER_INSTANCE if results.get(name) is not None}
    if 'gt_bboxes' not in fields:
        return fields
    matrix = np.asarray(matrix, dtype=np.float64)
    boxes = _corners(fields['gt_bboxes'])
    whole = _map_boxes(boxes, fields, matrix)
    height, width = shape
    limits = np.array([width, height, width, height], dtype=np.float64)
    clipped = np.clip(whole, 0, limits)
    keep = _areas(clipped) > np.maximum(min_visible * _areas(whole), 1e-6)
    if 'gt_masks' in fields:
        fields['gt_masks'] = _map_masks(fields['gt_masks'], matrix, shape)
        keep &= _mask_inside(fields['gt_masks'])
    if 'gt_keypoints' in fields:
        fields['gt_keypoints'], fields['gt_keypoints_visible'] = map_landmarks(
            fields['gt_keypoints'], fields['gt_keypoints_visible'], matrix, shape
        )
    clipped = clipped.astype(np.float32)
    fields['gt_bboxes'] = HorizontalBoxes(clipped) if isinstance(fields['gt_bboxes'], HorizontalBoxes) else clipped
    return {name: values[np.flatnonzero(keep)] for name, values in fields.items()}


def map_landmarks(
    keypoints: np.ndarray, visible: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Maps landmarks by an affine map; those outside the new image become unlabelled.

    Args:
        keypoints: (n, K, 2) pixels.
        visible: (n, K), 0 where not labelled.
        matrix: (2, 3) map of continuous coordinates.
        shape: (height, width) of the new image.

    Returns:
        New arrays of keypoints and of visible, of the same types.
    """
    mapped = keypoints @ matrix[:, :2].T + matrix[:, 2]
    inside = ((mapped >= 0) & (mapped < (shape[1], shape[0]))).all(axis=-1) & (visible > 0)
    mapped = np.where(inside[..., None], mapped, 0).astype(keypoints.dtype)
    return mapped, np.where(inside, visible, 0).astype(visible.dtype)


def flip_landmarks(
    keypoints: np.ndarray, visible: np.ndarray, labels: np.ndarray, shape: tuple[int, int], direction: str
) -> tuple[np.ndarray, np.ndarray]:
    """Flips landmarks with their image; a mirror image exchanges the left and right landmarks of each category.

    Args:
        keypoints: (n, 39, 2) pixels.
        visible: (n, 39), 0 where not labelled.
        labels: (n,) class labels, 0 to 12.
        shape: (height, width) of the image.
        direction: 'horizontal', 'vertical' or 'diagonal' (both).

    Returns:
        New arrays of keypoints and of visible, for the flipped image.
    """
    height, width = shape
    flipped = keypoints.copy()
    if direction in ('horizontal', 'diagonal'):
        flipped[..., 0] = width - flipped[..., 0]
    if direction in ('vertical', 'diagonal'):
        flipped[..., 1] = height - flipped[..., 1]
    flipped[visible == 0] = 0
    if direction not in MIRRORING:
        return flipped, visible.copy()
    order = FLIP_PERMUTATIONS[labels]
    return np.take_along_axis(flipped, order[..., None], axis=1), np.take_along_axis(visible, order, axis=1)


def _map_boxes(boxes: np.ndarray, fields: dict, matrix: np.ndarray) -> np.ndarray:
    mapped = _extents(boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2])
    if matrix[0, 1] == 0 == matrix[1, 0] or 'gt_masks' not in fields:
        return mapped
    # A box around the rotated corners would be far too large. The box around the rotated outline is not; it gets the
    # margins that the box had around the outline before.
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    for number, box in enumerate(boxes):
        points = _outline(fields, number)
        before = _extents(points[None])[0]
        if len(points) and _areas(before[None])[0] > 0:
            after = _extents((points @ matrix[:, :2].T + matrix[:, 2])[None])[0]
            mapped[number] = after + scale * (box - before)
    return mapped


def _outline(fields: dict, number: int) -> np.ndarray:
    masks = fields['gt_masks']
    if isinstance(masks, PolygonMasks):
        points = np.concatenate(masks.masks[number]).reshape(-1, 2)
    else:
        contours, _ = cv2.findContours(masks.masks[number], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        points = np.concatenate([contour[:, 0] for contour in contours]) + 0.5 if contours else np.zeros((0, 2))
    if 'gt_keypoints' in fields and len(points):
        labelled = fields['gt_keypoints_visible'][number] > 0
        points = np.concatenate([points, fields['gt_keypoints'][number][labelled]])
    return points


def _map_masks(masks, matrix: np.ndarray, shape: tuple[int, int]):
    # Polygons may reach beyond the image: they are cut when they are turned into pixels. To cut them here, they would
    # have to be free of self-intersections, which annotated polygons are not.
    if isinstance(masks, PolygonMasks):
        mapped = [
            [(polygon.reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]).reshape(-1) for polygon in polygons]
            for polygons in masks.masks
        ]
        return PolygonMasks(mapped, *shape)
    pixels = pixel_matrix(matrix)
    mapped = [cv2.warpAffine(mask, pixels, shape[::-1], flags=cv2.INTER_NEAREST) for mask in masks.masks]
    return BitmapMasks(np.stack(mapped) if mapped else np.zeros((0, *shape), dtype=np.uint8), *shape)


def _mask_inside(masks) -> np.ndarray:
    if isinstance(masks, BitmapMasks):
        return masks.masks.any(axis=(1, 2))
    inside = np.ones(len(masks), dtype=bool)
    for number, polygons in enumerate(masks.masks):
        extents = np.stack([_extents(polygon.reshape(1, -1, 2))[0] for polygon in polygons])
        overlap = (extents[:, 2:] > 0) & (extents[:, :2] < (masks.width, masks.height))
        inside[number] = overlap.all(axis=1).any()
    return inside


def _corners(boxes) -> np.ndarray:
    return (boxes.tensor.numpy() if isinstance(boxes, HorizontalBoxes) else boxes).astype(np.float64).reshape(-1, 4)


def _extents(points: np.ndarray) -> np.ndarray:
    """Bounding boxes (n, 4) of point sets (n, P, 2)."""
    if not points.shape[1]:
        return np.zeros((len(points), 4))
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=-1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)

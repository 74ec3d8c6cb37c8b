"""Conversion of polygons to masks and of masks to polygons. Pixel i spans the coordinates i to i + 1."""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as mask_utils

MIN_AREA = 12  # pixels; a smaller piece of a mask, or hole in it, gets no polygon
# Filling takes 40 bytes per pixel of an outline, so a small file of a few thousand far points could take all memory.
LONGEST_OUTLINE = 2_000_000  # pixels


def outline_length(polygon: np.ndarray) -> float:
    """Number of pixels that a closed outline (P, 2) passes: per edge, the longer of its extents along x and y."""
    edges = np.abs(polygon - np.roll(polygon, 1, axis=0))
    return float(edges.max(axis=1).sum())


def is_outline_too_long(polygon: np.ndarray) -> bool:
    """Whether an outline (P, 2) is longer than ``LONGEST_OUTLINE``, and so cannot be filled."""
    # No edge is longer than twice the farthest coordinate, and nearly all polygons are known by that.
    may_be = 2 * len(polygon) * np.abs(polygon).max() > LONGEST_OUTLINE
    return bool(may_be) and outline_length(polygon) > LONGEST_OUTLINE


def polygons_to_rle(polygons: Sequence[np.ndarray], height: int, width: int) -> dict:
    """Fills the union of polygons as pycocotools fills annotation: its compressed run lengths.

    Args:
        polygons: At least one array (P, 2) of x, y in pixels, P >= 3, finite; they may reach beyond the image.
        height: Height of the mask.
        width: Width of the mask.

    Raises:
        ValueError: An outline is longer than ``LONGEST_OUTLINE``.
    """
    for polygon in polygons:
        if is_outline_too_long(polygon):
            length = outline_length(polygon)
            raise ValueError(f'a polygon has an outline of {length:.0f} pixels, {LONGEST_OUTLINE} at most are filled')
    flat = [polygon.astype(np.float64).ravel().tolist() for polygon in polygons]
    return mask_utils.merge(mask_utils.frPyObjects(flat, height, width))


def polygons_to_mask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Fills the union of polygons as pycocotools fills annotation.

    Args:
        polygons: Arrays (P, 2) of x, y in pixels, P >= 3; they may reach beyond the image.
        height: Height of the mask.
        width: Width of the mask.

    Returns:
        (height, width) bool, all False without polygons.

    Raises:
        ValueError: A polygon has another shape or is not finite, or its outline is longer than ``LONGEST_OUTLINE``.
    """
    for polygon in polygons:
        if np.ndim(polygon) != 2 or np.shape(polygon)[1] != 2 or len(polygon) < 3 or not np.isfinite(polygon).all():
            raise ValueError(f'a polygon must be (P, 2), P >= 3, finite, got {np.shape(polygon)}: {polygon!r}')
    if not len(polygons):
        return np.zeros((height, width), dtype=bool)
    # Coordinates far outside the image would overflow; of such an edge only the direction matters.
    near = [np.clip(np.asarray(polygon, dtype=np.float64), -1e5, 1e5) for polygon in polygons]
    return mask_utils.decode(polygons_to_rle(near, height, width)).astype(bool)


def mask_to_polygons(mask: np.ndarray, min_area: float = MIN_AREA) -> tuple[list[np.ndarray], np.ndarray]:
    """Traces the outlines of the pieces of a mask along the edges of pixels.

    The annotation format has no holes. A hole is therefore joined to the outline by a cut without width; both the
    even-odd and the winding rule leave it empty.

    Args:
        mask: (H, W) uint8 of 0 and 1.
        min_area: Pieces and holes with a smaller area in pixels get no polygon.

    Returns:
        The outlines, (P, 2) float64 each, the largest piece first; and the mask without the pieces that got none.
    """
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons, specks = [], []
    for index, contour in enumerate(contours):
        area = cv2.contourArea(contour)
        if hierarchy[0][index][3] >= 0:
            continue
        if area < min_area:
            specks.append(contour)
            continue
        outline = _simplified(contour, 0.5)
        hole = hierarchy[0][index][2]
        while hole >= 0:
            if cv2.contourArea(contours[hole]) >= min_area:
                outline = _cut_out(outline, _simplified(contours[hole], -0.5))
            hole = hierarchy[0][hole][0]
        polygons.append((area, outline))
    kept = cv2.drawContours(mask.copy(), specks, -1, 0, cv2.FILLED) if specks else mask
    return [polygon for _, polygon in sorted(polygons, key=lambda pair: -pair[0])], kept


def _cut_out(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    distance = ((outline[:, None] - hole[None]) ** 2).sum(axis=2)
    at, hole_at = np.unravel_index(distance.argmin(), distance.shape)
    detour = np.roll(hole, -hole_at, axis=0)
    return np.concatenate([outline[: at + 1], detour, detour[:1], outline[at:]])


def _simplified(contour: np.ndarray, grow: float) -> np.ndarray:
    """Thins a contour of pixel centres out and moves it outwards by ``grow`` pixels, to the edges of the pixels."""
    points = cv2.approxPolyDP(contour, 0.7, True)[:, 0].astype(np.float64)
    following, preceding = np.roll(points, -1, axis=0), np.roll(points, 1, axis=0)
    tangent = following - preceding
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    area = np.sum(points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0])
    normal *= np.sign(area) / np.maximum(np.hypot(*normal.T), 1e-9)[:, None]
    return points + 0.5 + grow * normal

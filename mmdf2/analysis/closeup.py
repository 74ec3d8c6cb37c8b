"""A part of a photo, enlarged or reduced to be drawn on."""

from collections.abc import Callable

import cv2
import numpy as np

from mmdf2.visualization.retrieval_rows import crop_box


def closeup(image: np.ndarray, box, context: float, longer_side: int) -> tuple[np.ndarray, Callable]:
    """Cuts out a box with its surroundings.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) x1, y1, x2, y2 in pixels.
        context: What to add on every side, as a share of the box.
        longer_side: Of the result, in pixels.

    Returns:
        A new image, and a function from (..., 2) points x, y of the photo to points of it.
    """
    height, width = image.shape[:2]
    # The crop is a view; where it begins says how far points have to be moved.
    start = int(crop_box(np.arange(height * width).reshape(height, width), box, context)[0, 0])
    crop = crop_box(image, box, context)
    scale = longer_side / max(crop.shape[:2])
    size = [max(1, round(side * scale)) for side in crop.shape[1::-1]]
    canvas = cv2.resize(crop, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    move = np.array([start % width, start // width])
    return canvas, lambda points: (np.asarray(points, dtype=np.float64) - move) * scale


def pixels(points) -> np.ndarray:
    """Points as whole pixels that OpenCV draws, however far outside they are."""
    return np.round(np.clip(points, -20_000, 20_000)).astype(np.int32)

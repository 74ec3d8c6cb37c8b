"""Drawing of annotated garments: what the dataset says, in the same hand as what a model says."""

from collections.abc import Sequence

import cv2
import numpy as np

from mmdf2.categories import MAX_LANDMARKS
from mmdf2.datasets.annotation import Item
from mmdf2.visualization.drawing import draw_instances


def draw_items(image: np.ndarray, items: Sequence[Item]) -> np.ndarray:
    """Draws boxes, masks and landmarks of annotated items.

    Args:
        image: (H, W, 3) uint8 RGB.
        items: Of that image, in its pixels; occluded landmarks become hollow.

    Returns:
        A new image of the same size.
    """
    landmarks = np.zeros((len(items), MAX_LANDMARKS, 3))
    masks = np.zeros((len(items), *image.shape[:2]), dtype=np.uint8)
    for row, item in enumerate(items):
        landmarks[row, : len(item.landmarks)] = item.landmarks
        polygons = [np.round(polygon).astype(np.int32) for polygon in item.segmentation]
        cv2.fillPoly(masks[row], polygons, 1)
    return draw_instances(
        image,
        labels=np.array([item.category_id - 1 for item in items], dtype=np.int64),
        boxes=np.array([item.bbox for item in items], dtype=np.float64).reshape(-1, 4),
        masks=masks.astype(bool),
        landmarks=landmarks[..., :2],
        visibility=landmarks[..., 2].astype(np.uint8),
    )

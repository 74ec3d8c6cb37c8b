"""Flipping, with each category's left and right landmarks exchanged."""

import numpy as np
from mmdet.datasets.transforms import RandomFlip as DetRandomFlip

from mmdf2.categories import FLIP_PERMUTATIONS
from mmdf2.registry import TRANSFORMS

# A half turn (both axes) is no mirror image: left stays left.
MIRRORING = ('horizontal', 'vertical')


def flip_landmarks(
    keypoints: np.ndarray, visible: np.ndarray, labels: np.ndarray, shape: tuple[int, int], direction: str
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of a flipped image.

    Args:
        keypoints: (n, 39, 2) pixels.
        visible: (n, 39), 0 where not labelled.
        labels: (n,) class labels, 0 to 12.
        shape: (height, width) of the image.
        direction: 'horizontal', 'vertical' or 'diagonal' (both).

    Returns:
        keypoints and visible of the flipped image.
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


@TRANSFORMS.register_module()
class RandomFlip(DetRandomFlip):
    """mmdet's ``RandomFlip``, which leaves landmarks where they were, followed by theirs."""

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        if results.get('gt_keypoints') is not None:
            results['gt_keypoints'], results['gt_keypoints_visible'] = flip_landmarks(
                results['gt_keypoints'],
                results['gt_keypoints_visible'],
                results['gt_bboxes_labels'],
                results['img'].shape[:2],
                results['flip_direction'],
            )

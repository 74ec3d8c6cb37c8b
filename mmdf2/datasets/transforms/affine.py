"""Turning, scaling and shifting, masks and landmarks included."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmdf2.datasets.transforms.warp import pixel_matrix, warp_instances
from mmdf2.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomAffine(BaseTransform):
    """Turns and scales the image about its centre and shifts it; its size stays.

    mmdet's transform of the same name refuses masks and turns about the corner. Boxes follow the turned outline of the
    mask, not the turned corners. When no instance would be left, the image stays as it was.

    Args:
        max_rotate_degree: Largest turn either way, in degrees.
        scaling_ratio_range: Least and largest factor.
        max_translate_ratio: Largest shift as a share of width and height.
        prob: Chance that the image is changed at all.
        border_val: Colour of what is uncovered, in the image's channel order.
        min_visible: Least share of a box's area that must stay in the image for its instance to stay.
    """

    def __init__(
        self,
        max_rotate_degree: float = 10.0,
        scaling_ratio_range: tuple[float, float] = (0.75, 1.25),
        max_translate_ratio: float = 0.1,
        prob: float = 1.0,
        border_val: tuple[float, float, float] = (114, 114, 114),
        min_visible: float = 0.1,
    ):
        if not 0 < scaling_ratio_range[0] <= scaling_ratio_range[1]:
            raise ValueError(f'scaling_ratio_range must be 0 < least <= largest, got {scaling_ratio_range}')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must be 0 to 1, got {prob}')
        self.max_rotate_degree = max_rotate_degree
        self.scaling_ratio_range = scaling_ratio_range
        self.max_translate_ratio = max_translate_ratio
        self.prob = prob
        self.border_val = border_val
        self.min_visible = min_visible

    def transform(self, results: dict) -> dict:
        """Maps the image and everything annotated on it."""
        height, width = results['img'].shape[:2]
        matrix = self._random_matrix(height, width)
        if matrix is None:
            return results
        fields = warp_instances(results, matrix[:2], (height, width), self.min_visible)
        if 'gt_bboxes' in fields and len(results['gt_bboxes']) and not len(fields['gt_bboxes']):
            return results
        results['img'] = cv2.warpAffine(
            results['img'],
            pixel_matrix(matrix[:2]),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderValue=self.border_val,
        )
        results.update(fields)
        earlier = results.get('homography_matrix', np.eye(3, dtype=np.float32))
        results['homography_matrix'] = matrix.astype(np.float32) @ earlier
        return results

    @cache_randomness
    def _random_matrix(self, height: int, width: int) -> np.ndarray | None:
        # The global state is the one that MMEngine seeds in each worker.
        uniform = np.random.uniform
        if uniform() >= self.prob:
            return None
        angle = np.deg2rad(uniform(-self.max_rotate_degree, self.max_rotate_degree))
        scale = uniform(*self.scaling_ratio_range)
        shift = uniform(-self.max_translate_ratio, self.max_translate_ratio, 2) * (width, height)
        matrix = np.eye(3)
        matrix[:2, :2] = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = np.array([width / 2, height / 2])
        matrix[:2, 2] = centre - matrix[:2, :2] @ centre + shift
        return matrix

    def __repr__(self):
        return (
            f'{type(self).__name__}(max_rotate_degree={self.max_rotate_degree}, '
            f'scaling_ratio_range={self.scaling_ratio_range}, max_translate_ratio={self.max_translate_ratio}, '
            f'prob={self.prob}, border_val={self.border_val}, min_visible={self.min_visible})'
        )

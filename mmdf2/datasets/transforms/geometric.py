"""Transforms of the image that take boxes, masks, landmarks and identities along: affine, crop, flip and resize.

What they do to the instances is computed in ``warp.py``.
"""

import copy

import cv2
import numpy as np
from mmcv.image import rescale_size
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomCrop as DetRandomCrop
from mmdet.datasets.transforms import RandomFlip as DetRandomFlip
from mmdet.datasets.transforms import Resize as DetResize

from mmdf2.datasets.transforms.warp import flip_landmarks, pixel_matrix, warp_instances
from mmdf2.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomAffine(BaseTransform):
    """Rotates and scales the image about its centre and shifts it; the image keeps its size.

    mmdet's transform of the same name refuses masks and rotates about the corner. Boxes follow the rotated outline of
    the mask, not the rotated corners of the box. When no instance would be left, the image stays as it was.

    Args:
        max_rotate_degree: Largest angle in either direction, in degrees.
        scaling_ratio_range: Least and largest factor.
        max_translate_ratio: Largest shift as a share of width and height.
        prob: Probability that the image is changed at all.
        border_val: Colour of the area that the image no longer covers, in the image's channel order.
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


@TRANSFORMS.register_module()
class RandomCrop(DetRandomCrop):
    """Crops as mmdet's ``RandomCrop`` does, and keeps all fields of an instance together.

    Landmarks outside the crop become unlabelled; ``warp_instances`` says what happens to the other fields.

    Args:
        crop_size: Height and width, whose meaning depends on ``crop_type`` as in mmdet.
        crop_type: 'absolute', 'absolute_range', 'relative' or 'relative_range'.
        allow_negative_crop: Whether a crop without any instance is kept; otherwise the pipeline gives up the image.
        min_visible: Least share of a box's area that must stay in the crop for its instance to stay.
    """

    def __init__(
        self, crop_size, crop_type: str = 'absolute', allow_negative_crop: bool = False, min_visible: float = 0.1
    ):
        super().__init__(crop_size, crop_type, allow_negative_crop)
        self.min_visible = min_visible

    def _crop_data(self, results: dict, crop_size: tuple[int, int], allow_negative_crop: bool) -> dict | None:
        image = results['img']
        height, width = crop_size
        top, left = self._rand_offset((max(image.shape[0] - height, 0), max(image.shape[1] - width, 0)))
        image = image[top : top + height, left : left + width]
        matrix = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], dtype=np.float32)
        fields = warp_instances(results, matrix[:2], image.shape[:2], self.min_visible)
        if not allow_negative_crop and 'gt_bboxes' in fields and not len(fields['gt_bboxes']):
            return None
        results.update(fields, img=image, img_shape=image.shape[:2])
        results['homography_matrix'] = matrix @ results.get('homography_matrix', np.eye(3, dtype=np.float32))
        return results


@TRANSFORMS.register_module()
class RandomFlip(DetRandomFlip):
    """Flips as mmdet's ``RandomFlip`` does, and flips the landmarks too, which mmdet leaves where they were."""

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


@TRANSFORMS.register_module()
class Resize(DetResize):
    """Resizes as mmdet's ``Resize`` does, and scales the landmarks too, which mmdet leaves where they were.

    Landmarks outside the image stay outside: ``clip_object_border`` applies only to boxes. An image that would be less
    than half a pixel wide or high gets one pixel; mmdet's fails on it.
    """

    def transform(self, results: dict) -> dict:
        """Resizes the image and everything annotated on it."""
        height, width = results['img'].shape[:2]
        size = rescale_size((width, height), self.scale) if self.keep_ratio and self.scale else (width, height)
        if min(size) < 1:
            exact = copy.copy(self)
            exact.scale, exact.keep_ratio = (max(size[0], 1), max(size[1], 1)), False
            return exact.transform(results)
        results = super().transform(results)
        if results.get('gt_keypoints') is not None:
            results['gt_keypoints'] = results['gt_keypoints'] * np.array(results['scale_factor'], dtype=np.float32)
        return results

"""Cropping, landmarks and identities included."""

import numpy as np
from mmdet.datasets.transforms import RandomCrop as DetRandomCrop

from mmdf2.datasets.transforms.warp import warp_instances
from mmdf2.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomCrop(DetRandomCrop):
    """Crops as mmdet's ``RandomCrop`` does, and keeps all fields of an instance together.

    Landmarks outside the crop become unlabelled; see ``warp_instances`` for the rest.

    Args:
        crop_size: As in mmdet, with ``crop_type``.
        crop_type: 'absolute', 'absolute_range', 'relative' or 'relative_range'.
        allow_negative_crop: Whether a crop without any instance is kept; otherwise the image is given up.
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

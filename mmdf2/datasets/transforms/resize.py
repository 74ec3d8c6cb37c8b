"""Resizing, landmarks included."""

import numpy as np
from mmdet.datasets.transforms import Resize as DetResize

from mmdf2.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Resize(DetResize):
    """mmdet's ``Resize``, which leaves landmarks where they were, followed by theirs.

    Landmarks outside the image stay outside: ``clip_object_border`` is for boxes.
    """

    def transform(self, results: dict) -> dict:
        """Resizes the image and everything annotated on it."""
        results = super().transform(results)
        if results.get('gt_keypoints') is not None:
            results['gt_keypoints'] = results['gt_keypoints'] * np.array(results['scale_factor'], dtype=np.float32)
        return results

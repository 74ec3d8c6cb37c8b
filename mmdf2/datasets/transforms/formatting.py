"""The first and the last transforms of a pipeline: reading images and annotation, and packing the inputs of models."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmengine.fileio import get

from mmdf2.categories import MAX_LANDMARKS
from mmdf2.images import decode_image
from mmdf2.registry import TRANSFORMS

# Pixels of each side of the image that takes the place of one that cannot be used.
_STAND_IN = 64


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Reads the image as ``mmdf2.images`` does, so that training and testing see the pixels that the inferencer sees.

    mmcv's ``LoadImageFromFile`` fills what is missing of a cut file with grey, makes transparent parts black or
    whatever colour they hide, and does not know all orientations that Pillow does.

    It adds ``img`` (H, W, 3) uint8 BGR, and ``img_shape`` and ``ori_shape``, both (H, W). Where the results have
    ``unreadable``, which says why the image cannot be used, a small white image takes its place.

    Args:
        backend_args: Arguments of MMEngine's file backend, for files that are not on a disk.

    Raises:
        ImageError: The file cannot be read as an image.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Adds the image at ``img_path`` to ``results``."""
        path = results['img_path']
        if 'unreadable' in results:
            image = np.full((_STAND_IN, _STAND_IN, 3), 255, np.uint8)
        else:
            image = decode_image(self._content(path), path, 'BGR')
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _content(self, path: str) -> bytes:
        if self.backend_args is not None or '://' in path:
            return get(path, backend_args=self.backend_args)
        with open(path, 'rb') as file:
            return file.read()


@TRANSFORMS.register_module()
class LoadClothesAnnotations(LoadAnnotations):
    """Loads boxes, labels, masks, landmarks and identities.

    It adds to what mmdet's ``LoadAnnotations`` does: ``gt_keypoints`` (n, 39, 2) float32 in pixels, zero where not
    labelled; ``gt_keypoints_visible`` (n, 39) uint8, 2 visible, 1 occluded, 0 not labelled; ``gt_identities`` (n,)
    int64, -1 for none; ``gt_item_ids`` (n,) int64. When masks are loaded, an instance that has none is flagged as
    ignored, as in mmdet.

    Args:
        with_mask: Whether to load masks.
        poly2mask: Whether masks become bitmaps; polygons are faster to transform.
        **kwargs: Further arguments of mmdet's ``LoadAnnotations``.
    """

    def __init__(self, with_mask: bool = True, poly2mask: bool = False, **kwargs):
        super().__init__(with_mask=with_mask, poly2mask=poly2mask, **kwargs)

    def transform(self, results: dict) -> dict:
        """Adds the ``gt_*`` fields to ``results``."""
        results = super().transform(results)
        instances = results.get('instances', [])
        keypoints = np.zeros((len(instances), MAX_LANDMARKS, 2), dtype=np.float32)
        visible = np.zeros((len(instances), MAX_LANDMARKS), dtype=np.uint8)
        for number, instance in enumerate(instances):
            landmarks = instance['landmarks']
            keypoints[number, : len(landmarks)] = landmarks[:, :2]
            visible[number, : len(landmarks)] = landmarks[:, 2]
        results['gt_keypoints'] = keypoints
        results['gt_keypoints_visible'] = visible
        results['gt_identities'] = np.array([instance['identity'] for instance in instances], dtype=np.int64)
        results['gt_item_ids'] = np.array([instance['item_id'] for instance in instances], dtype=np.int64)
        return results


@TRANSFORMS.register_module()
class PackClothesInputs(PackDetInputs):
    """Packs what mmdet's ``PackDetInputs`` packs, and also landmarks and identities.

    ``gt_instances`` (and ``ignored_instances``) also get ``keypoints`` (n, 39, 2) float32, ``keypoints_visible``
    (n, 39) uint8, ``identities`` (n,) int64 and ``item_ids`` (n,) int64.

    Args:
        meta_keys: Entries of the results that become meta information of the data sample.
    """

    mapping_table = {  # noqa: RUF012
        **PackDetInputs.mapping_table,
        'gt_keypoints': 'keypoints',
        'gt_keypoints_visible': 'keypoints_visible',
        'gt_identities': 'identities',
        'gt_item_ids': 'item_ids',
    }

    def __init__(
        self,
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
            'source',
            'pair_id',
            'unreadable',
        ),
    ):
        super().__init__(meta_keys=meta_keys)

"""From a pipeline's arrays to the model's inputs."""

from mmdet.datasets.transforms import PackDetInputs

from mmdf2.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackClothesInputs(PackDetInputs):
    """Packs as mmdet's ``PackDetInputs`` does, with landmarks and identities.

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
        ),
    ):
        super().__init__(meta_keys=meta_keys)

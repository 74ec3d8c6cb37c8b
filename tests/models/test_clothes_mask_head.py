import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures.mask import BitmapMasks, PolygonMasks, mask_target
from mmengine.config import ConfigDict

from mmdf2.models import ClothesMaskHead
from mmdf2.models.roi_heads.clothes_mask_head import mask_targets

HEIGHT, WIDTH = 40, 60


def polygons():
    return PolygonMasks(
        [[np.array([5.0, 5, 30, 8, 25, 30, 6, 28])], [np.array([20.0, 10, 55, 10, 40, 38])]], HEIGHT, WIDTH
    )


def bitmaps():
    return BitmapMasks(polygons().to_ndarray(), HEIGHT, WIDTH)


@pytest.mark.parametrize('masks', [bitmaps(), polygons()], ids=['bitmaps', 'polygons'])
def test_targets_equal_mmdets(masks):
    boxes = torch.tensor([[4.0, 4, 31, 31], [10, 5, 58.5, 39], [-3, -2, 20, 20], [30, 20, 70, 45]])
    rows = torch.tensor([0, 1, 0, 1])
    expected = mask_target([boxes.clone()], [rows], [masks], ConfigDict(mask_size=28))
    actual = mask_targets(boxes, rows, masks, 28)
    assert 0 < expected.mean() < 1
    assert torch.equal(actual, expected)
    assert boxes[2, 0] == -3, 'the RoIs are left as they were'


def test_targets_of_no_rois():
    assert mask_targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), bitmaps(), 14).shape == (0, 14, 14)


def test_two_steps_equal_mmdets_one():
    settings = {'num_convs': 2, 'in_channels': 4, 'conv_out_channels': 6, 'num_classes': 13}
    head, reference = ClothesMaskHead(**settings), FCNMaskHead(**settings)
    head.load_state_dict(reference.state_dict())
    features = torch.randn(3, 4, 14, 14)
    torch.testing.assert_close(head(features), reference(features))
    torch.testing.assert_close(head.forward_logits(head.forward_features(features)), reference(features))

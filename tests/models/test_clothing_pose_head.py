import math

import pytest
import torch

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS
from mmdf2.models import ClothingPoseHead
from mmdf2.models.roi_heads.category_deconv import CategoryLogits
from mmdf2.models.roi_heads.clothing_pose_head import scale_boxes_about_centre


def make_head(**kwargs):
    torch.manual_seed(0)
    head = ClothingPoseHead(**({'num_convs': 1, 'in_channels': 4, 'conv_channels': 6} | kwargs))
    head.init_weights()
    return head


@pytest.mark.parametrize('num_deconvs, size', [(1, 28), (2, 56), (3, 112)])
def test_each_deconvolution_doubles_the_resolution(num_deconvs, size):
    groups = make_head(num_deconvs=num_deconvs)(torch.randn(2, 4, 14, 14), torch.tensor([0, 8]))
    assert [tuple(group.logits.shape) for group in groups] == [(1, 25, size, size), (1, 8, size, size)]


def test_the_papers_layers_by_default():
    head = ClothingPoseHead()
    assert len(head.convs) == 8 and all(conv.conv.out_channels == 512 for conv in head.convs)
    assert len(head.deconvs) == 1 and tuple(head.predictor.weight.shape) == (512, 294, 4, 4)


def test_training_starts_at_the_loss_of_a_flat_heatmap():
    head = make_head()
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 2)
    points, visible = torch.full((2, MAX_LANDMARKS, 2), 5.0), torch.full((2, MAX_LANDMARKS), 2)
    groups = head(torch.randn(2, 4, 14, 14), torch.tensor([0, 8]))
    loss = head.loss(groups, boxes, points, visible)['loss_keypoint']
    assert loss.item() == pytest.approx(math.log(56 * 56), abs=0.01)


def test_occluded_landmarks_count_and_unlabelled_outside_or_padding_do_not():
    head = make_head()
    label, size = 8, 4
    count = CATEGORIES[label].num_landmarks
    logits = torch.randn(1, count, size, size)
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    points = torch.full((1, MAX_LANDMARKS, 2), 1.5)
    points[0, 3] = torch.tensor([9.0, 1.0])
    visible = torch.zeros(1, MAX_LANDMARKS, dtype=torch.uint8)
    visible[0, [0, 1, 3]] = torch.tensor([1, 2, 2], dtype=torch.uint8)
    visible[0, count:] = 2
    loss = head.loss([CategoryLogits(label, torch.tensor([0]), logits)], boxes, points, visible)['loss_keypoint']
    expected = -logits[0, :2].flatten(1).log_softmax(dim=1)[:, 1 * size + 1].mean()
    torch.testing.assert_close(loss, expected)


def test_prediction_returns_to_where_the_heatmap_is_hot():
    label, size = 6, 56
    count = CATEGORIES[label].num_landmarks
    boxes = torch.tensor([[10.0, 20.0, 66.0, 132.0]])
    logits = torch.zeros(1, count, size, size)
    logits[0, 4, 30, 12] = 40.0
    keypoints, scores = make_head().predict([CategoryLogits(label, torch.tensor([0]), logits)], boxes)
    torch.testing.assert_close(keypoints[0, 4], torch.tensor([10 + 12.5, 20 + 30.5 * 2]))
    assert scores[0, 4] > 0.99
    assert keypoints.shape == (1, MAX_LANDMARKS, 2) and scores.shape == (1, MAX_LANDMARKS)
    assert (keypoints[0, count:] == 0).all() and (scores[0, count:] == 0).all()


def test_boxes_grow_about_their_centres():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert scale_boxes_about_centre(boxes, 1.5).tolist() == [[5.0, 10.0, 35.0, 70.0]]


def test_no_deconvolution_is_an_error():
    with pytest.raises(ValueError, match='num_deconvs'):
        ClothingPoseHead(num_deconvs=0)

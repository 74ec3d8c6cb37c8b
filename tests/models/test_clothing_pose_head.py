"""The landmark head: its layers, its predictor per category, its loss and its prediction."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, TOTAL_LANDMARKS
from mmdf2.models import ClothingPoseHead
from mmdf2.models.roi_heads.clothing_pose_head import (
    CategoryDeconv,
    CategoryLogits,
    landmark_loss,
    scale_boxes_about_centre,
)


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


def dense_then_selected(layer, features, labels):
    """The logits that the layer must equal: all 294 channels are computed, then those of each RoI's category taken."""
    dense = F.conv_transpose2d(features, layer.weight, layer.bias, stride=2, padding=1)
    assert dense.shape[1] == TOTAL_LANDMARKS
    return [dense[row, CATEGORIES[label].dense_slice] for row, label in enumerate(labels.tolist())]


@pytest.mark.parametrize('labels', [[0, 3, 3, 12, 0, 7], [5], list(range(13))[::-1]])
def test_the_predictor_equals_the_dense_layer_and_its_gradients(labels):
    torch.manual_seed(0)
    layer = CategoryDeconv(6).double()
    labels = torch.tensor(labels)
    features = torch.randn(len(labels), 6, 4, 4, dtype=torch.float64, requires_grad=True)
    inputs = (features, layer.weight, layer.bias)

    expected = dense_then_selected(layer, features, labels)
    groups = layer(features, labels)
    rows = torch.cat([group.rows for group in groups])
    assert sorted(rows.tolist()) == list(range(len(labels)))
    actual = {int(row): logits for group in groups for row, logits in zip(group.rows, group.logits, strict=True)}
    cotangents = [torch.randn_like(logits) for logits in expected]
    for row, logits in enumerate(expected):
        torch.testing.assert_close(actual[row], logits)
        assert len(logits) == CATEGORIES[labels[row]].num_landmarks

    expected_grads = torch.autograd.grad(sum((a * b).sum() for a, b in zip(expected, cotangents, strict=True)), inputs)
    actual_grads = torch.autograd.grad(sum((actual[row] * b).sum() for row, b in enumerate(cotangents)), inputs)
    torch.testing.assert_close(actual_grads, expected_grads)


def test_no_channels_of_other_categories_are_computed():
    layer = CategoryDeconv(4)
    groups = layer(torch.randn(5, 4, 3, 3), torch.tensor([8, 8, 3, 8, 3]))
    assert [(group.label, tuple(group.logits.shape)) for group in groups] == [(3, (2, 39, 6, 6)), (8, (3, 8, 6, 6))]


def test_no_rois_still_give_every_parameter_a_zero_gradient():
    layer = CategoryDeconv(4)
    groups = layer(torch.zeros(0, 4, 3, 3), torch.zeros(0, dtype=torch.long))
    sum(group.logits.sum() for group in groups).backward()
    assert (layer.weight.grad == 0).all() and (layer.bias.grad == 0).all()


def test_landmark_loss_is_the_mean_over_labelled_landmarks_of_all_groups():
    torch.manual_seed(0)
    groups, terms = [], []
    for rows, landmarks in ((2, 8), (3, 5)):
        logits = torch.randn(rows, landmarks, 4, 4)
        cells = torch.randint(16, (rows, landmarks))
        valid = torch.rand(rows, landmarks) > 0.5
        groups.append((logits, cells, valid))
        for row, landmark in valid.nonzero().tolist():
            probability = logits[row, landmark].flatten().double().softmax(dim=0)
            terms.append(-probability[cells[row, landmark]].log())
    assert landmark_loss(groups).item() == pytest.approx((sum(terms) / len(terms)).item(), rel=1e-5)


@pytest.mark.parametrize('rows', [0, 3])
def test_landmark_loss_without_labels_is_zero_with_a_gradient(rows):
    logits = torch.randn(rows, 8, 4, 4, requires_grad=True)
    cells = torch.zeros(rows, 8, dtype=torch.long)
    loss = landmark_loss([(logits, cells, torch.zeros(rows, 8, dtype=torch.bool))])
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()

import pytest
import torch
import torch.nn.functional as F

from mmdf2.categories import CATEGORIES, TOTAL_LANDMARKS
from mmdf2.models.roi_heads.category_deconv import CategoryDeconv


def dense_then_selected(layer, features, labels):
    """All 294 channels, then each RoI's own: what the layer must equal."""
    dense = F.conv_transpose2d(features, layer.weight, layer.bias, stride=2, padding=1)
    assert dense.shape[1] == TOTAL_LANDMARKS
    return [dense[row, CATEGORIES[label].dense_slice] for row, label in enumerate(labels.tolist())]


@pytest.mark.parametrize('labels', [[0, 3, 3, 12, 0, 7], [5], list(range(13))[::-1]])
def test_equals_the_dense_layer_and_its_gradients(labels):
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

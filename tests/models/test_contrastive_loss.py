"""The contrastive loss against its formula, computed with Python floats."""

import math

import pytest
import torch

from mmdf2.models.losses import DIFFERENT, IGNORED, SAME, contrastive_loss, contrastive_targets


def by_hand(logits, targets, temperature):
    scores = ((logits[..., 0] - logits[..., 1]).double() / temperature).tolist()
    losses = []
    for row, kinds in zip(scores, targets.tolist(), strict=True):
        anchor = list(zip(row, kinds, strict=True))
        same = [score for score, target in anchor if target == SAME]
        if same:
            total = sum(math.exp(score) for score, target in anchor if target != IGNORED)
            losses.append(sum(-math.log(math.exp(score) / total) for score in same) / len(same))
    return sum(losses) / len(losses)


@pytest.mark.parametrize('temperature', [0.3, 1.0, 2.0])
@pytest.mark.parametrize('shape', [(6, 6), (5, 8), (8, 5)])
def test_equals_the_formula(shape, temperature):
    generator = torch.Generator().manual_seed(sum(shape))
    logits = torch.randn(*shape, 2, generator=generator)
    targets = torch.randint(-1, 2, shape, generator=generator)
    # A row without a same pair, a row without any pair, and a column without any.
    targets[0] = targets[0].clamp(min=DIFFERENT)
    targets[1] = IGNORED
    targets[:, 2] = IGNORED
    assert contrastive_loss(logits, targets, temperature).item() == pytest.approx(
        by_hand(logits, targets, temperature), rel=1e-5
    )


def test_pairs_that_are_left_out_have_no_gradient_and_the_others_a_finite_one():
    torch.manual_seed(0)
    targets = torch.tensor([[SAME, DIFFERENT, IGNORED], [IGNORED, IGNORED, IGNORED], [DIFFERENT, IGNORED, DIFFERENT]])
    logits = torch.randn(3, 3, 2, requires_grad=True)
    contrastive_loss(logits, targets).backward()
    assert torch.isfinite(logits.grad).all()
    used = (logits.grad != 0).any(dim=-1)
    # The other rows have no same pair.
    assert used.tolist() == [[True, True, False], [False, False, False], [False, False, False]]


def test_a_common_shift_of_scores_changes_nothing():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 5, 2), torch.randint(-1, 2, (4, 5))
    shifted = logits + torch.tensor([3.0, -1.0])
    assert contrastive_loss(shifted, targets).item() == pytest.approx(
        contrastive_loss(logits, targets).item(), rel=1e-5
    )


@pytest.mark.parametrize('kind', [DIFFERENT, IGNORED])
@pytest.mark.parametrize('shape', [(0, 3), (3, 0), (0, 0), (2, 3)])
def test_without_a_same_pair_it_is_zero_with_a_gradient(kind, shape):
    logits = torch.randn(*shape, 2, requires_grad=True)
    loss = contrastive_loss(logits, torch.full(shape, kind))
    loss.backward()
    assert loss.item() == 0 and loss.dtype == torch.float32 and (logits.grad == 0).all()


def test_extreme_scores_stay_finite():
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]], [[-1e4, 1e4], [1e4, -1e4]]], requires_grad=True)
    wrong = torch.tensor([[DIFFERENT, SAME], [SAME, DIFFERENT]])
    loss = contrastive_loss(logits, wrong)
    loss.backward()
    assert loss.item() == pytest.approx(4e4) and torch.isfinite(logits.grad).all()


def test_targets_of_every_case():
    # In order: identity 11 on a user photo, another crop of it, identity 11 on a shop photo, no identity in pair 1,
    # identity 11 of unknown source, and an unrelated identity on a shop photo.
    identities = torch.tensor([11, 11, 11, -1, 11, 21])
    pair_ids = torch.tensor([1, 1, 1, 1, 1, 2])
    is_shop = torch.tensor([0, 0, 1, 0, -1, 1])
    out = IGNORED
    expected = [
        [out, out, SAME, out, out, DIFFERENT],
        [out, out, SAME, out, out, DIFFERENT],
        [SAME, SAME, out, out, out, DIFFERENT],
        [out, out, out, out, out, DIFFERENT],
        [out, out, out, out, out, out],
        [DIFFERENT, DIFFERENT, DIFFERENT, DIFFERENT, out, out],
    ]
    assert contrastive_targets(identities, pair_ids, is_shop).tolist() == expected

"""The loss over pairs of garments, its targets and its weights."""

import pytest
import torch
import torch.nn.functional as F

from mmdf2.models.losses import DIFFERENT, IGNORED, SAME, match_loss, pair_targets, pair_weights


def test_pair_targets_of_every_case():
    identities, pair_ids = torch.tensor([11, -1, 12]), torch.tensor([1, 1, 1])
    gallery, gallery_pair_ids = torch.tensor([11, 12, -1, 21, -1, -1]), torch.tensor([1, 1, 1, 2, 2, -1])
    expected = [
        # The query of identity 11 with itself, another style, an unknown garment of its own pair, another pair, an
        # unknown garment of another pair, and an unknown garment of an unknown pair.
        [SAME, DIFFERENT, IGNORED, DIFFERENT, DIFFERENT, IGNORED],
        # An unknown garment of pair 1 is compared neither within its pair nor where the pair is unknown.
        [IGNORED, IGNORED, IGNORED, DIFFERENT, DIFFERENT, IGNORED],
        [DIFFERENT, SAME, IGNORED, DIFFERENT, DIFFERENT, IGNORED],
    ]
    assert pair_targets(identities, gallery, pair_ids, gallery_pair_ids).tolist() == expected


def naive_terms(logits, targets):
    losses = {SAME: [], DIFFERENT: []}
    for row, column in (targets != IGNORED).nonzero().tolist():
        target = targets[row, column].item()
        losses[target].append(-logits[row, column].double().log_softmax(dim=0)[target].item())
    return losses


def test_match_loss_balances_or_counts():
    torch.manual_seed(0)
    logits = torch.randn(4, 5, 2)
    targets = torch.randint(-1, 2, (4, 5))
    terms = naive_terms(logits, targets)
    mean_same, mean_different = (sum(terms[kind]) / len(terms[kind]) for kind in (SAME, DIFFERENT))
    assert match_loss(logits, targets, 0.25).item() == pytest.approx(0.25 * mean_same + 0.75 * mean_different, rel=1e-5)
    everything = terms[SAME] + terms[DIFFERENT]
    assert match_loss(logits, targets, None).item() == pytest.approx(sum(everything) / len(everything), rel=1e-5)


@pytest.mark.parametrize('share', [0.5, None])
@pytest.mark.parametrize('shape', [(0, 3), (3, 0), (0, 0), (2, 2)])
def test_match_loss_without_pairs_is_zero_with_a_gradient(share, shape):
    logits = torch.randn(*shape, 2, requires_grad=True)
    loss = match_loss(logits, torch.full(shape, IGNORED), share)
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_match_loss_of_negatives_alone_is_finite_and_positive():
    loss = match_loss(torch.randn(2, 3, 2), torch.full((2, 3), DIFFERENT))
    assert torch.isfinite(loss) and loss > 0


def before_weights(logits, targets, positive_share):
    """The loss as it was implemented when pairs had no weights."""
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction='none', ignore_index=IGNORED)
    losses = losses.view_as(targets)
    if positive_share is None:
        return losses.sum() / (targets != IGNORED).sum().clamp(min=1)
    same, different = (
        (losses * (targets == kind)).sum() / (targets == kind).sum().clamp(min=1) for kind in (SAME, DIFFERENT)
    )
    return positive_share * same + (1 - positive_share) * different


@pytest.mark.parametrize('share', [0.3, None])
@pytest.mark.parametrize('weighted', [True, False])
def test_weights_of_one_change_no_bit(share, weighted):
    torch.manual_seed(0)
    logits, targets = torch.randn(31, 47, 2, requires_grad=True), torch.randint(-1, 2, (31, 47))
    losses = [before_weights(logits, targets, share)]
    losses.append(match_loss(logits, targets, share, torch.ones(31, 47) if weighted else None))
    expected, found = ((loss, *torch.autograd.grad(loss, logits)) for loss in losses)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize('share', [0.3, None])
def test_weights_of_pairs_are_those_of_a_weighted_mean(share):
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(6, 7, 2), torch.randint(-1, 2, (6, 7)), torch.rand(6, 7) * 0.01
    sums = {kind: [0.0, 0.0] for kind in (SAME, DIFFERENT)}
    for row, column in (targets != IGNORED).nonzero().tolist():
        target, weight = targets[row, column].item(), weights[row, column].item()
        sums[target][0] -= weight * logits[row, column].double().log_softmax(dim=0)[target].item()
        sums[target][1] += weight
    (same, same_weight), (different, different_weight) = sums[SAME], sums[DIFFERENT]
    expected = (same + different) / (same_weight + different_weight)
    if share is not None:
        expected = share * same / same_weight + (1 - share) * different / different_weight
    assert match_loss(logits, targets, share, weights).item() == pytest.approx(expected, rel=1e-5)


def test_weights_of_nothing_are_zero_with_a_gradient():
    logits = torch.randn(2, 2, 2, requires_grad=True)
    loss = match_loss(logits, torch.full((2, 2), DIFFERENT), None, torch.zeros(2, 2))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_only_different_garments_of_one_category_weigh_more():
    targets = torch.tensor([[SAME, DIFFERENT, IGNORED], [DIFFERENT, DIFFERENT, SAME]])
    weights = pair_weights(targets, torch.tensor([3, 5]), torch.tensor([3, 5, 3]), 4.0)
    assert weights.tolist() == [[1, 1, 1], [1, 4, 1]]
    weights = pair_weights(targets, torch.tensor([5, 3]), torch.tensor([3, 5, 3]), 4.0)
    assert weights.tolist() == [[1, 4, 1], [4, 1, 1]]

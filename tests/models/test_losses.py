import pytest
import torch

from mmdf2.models.losses import DIFFERENT, IGNORED, SAME, landmark_loss, match_loss, pair_targets


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


def test_pair_targets_of_every_case():
    identities, pair_ids = torch.tensor([11, -1, 12]), torch.tensor([1, 1, 1])
    gallery, gallery_pair_ids = torch.tensor([11, 12, -1, 21, -1, -1]), torch.tensor([1, 1, 1, 2, 2, -1])
    expected = [
        # The query has identity 11: itself, another style, unknown of its own pair, other pair, unknown of other pair.
        [SAME, DIFFERENT, IGNORED, DIFFERENT, DIFFERENT, IGNORED],
        # Unknown garment of pair 1: nothing to learn within its pair or where the pair is unknown.
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

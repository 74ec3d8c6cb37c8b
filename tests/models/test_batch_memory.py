import pytest
import torch

from mmdf2.models import MatchHead
from mmdf2.models.losses import IGNORED, match_loss, pair_targets
from mmdf2.models.roi_heads.batch_memory import BatchMemory


def batch(number, count):
    """Garments that tell the number of their batch."""
    return torch.full((count, 3), float(number)), torch.full((count, 4), number)


def recalled(memory, number, count):
    projections, labels = memory.exchange(*batch(number, count))
    assert projections[:, 0].tolist() == labels[:, 0].tolist()
    return labels[:, 0].tolist()


def test_the_last_whole_batches_fill_up_a_small_one():
    memory = BatchMemory(6, 3)
    assert recalled(memory, 1, 2) == []
    assert recalled(memory, 2, 3) == [1, 1]
    assert recalled(memory, 3, 2) == [2, 2, 2]  # the first batch would be the seventh and eighth garment
    assert recalled(memory, 4, 0) == [3, 3, 2, 2, 2]
    assert recalled(memory, 5, 4) == [3, 3]
    assert recalled(memory, 6, 6) == []
    assert recalled(memory, 7, 1) == []
    assert recalled(memory, 8, 9) == []  # more than the memory holds: nothing of it is kept
    assert recalled(memory, 9, 1) == []
    assert recalled(memory, 10, 1) == [9]


def test_what_is_not_finite_is_not_kept():
    memory = BatchMemory(6, 3)
    projections, labels = batch(1, 3)
    projections[1, 2] = float('inf')
    memory.exchange(projections, labels)
    assert recalled(memory, 2, 1) == [1, 1]


def test_a_checkpoint_holds_it_and_may_lack_it():
    memory = BatchMemory(6, 3)
    recalled(memory, 1, 2)
    copy, other_size = BatchMemory(6, 3), BatchMemory(4, 3)
    copy.load_state_dict(memory.state_dict())
    assert recalled(copy, 2, 1) == recalled(memory, 2, 1) == [1, 1]
    for state in ({}, other_size.state_dict()):
        copy.load_state_dict(state)
        assert recalled(copy, 3, 0) == [2, 1, 1]


def made_head(**options):
    torch.manual_seed(0)
    return MatchHead(in_channels=6, conv_channels=(8,), embed_dims=10, **options).train()


def made_garments(seed, count=4):
    """Projections and labels: user and shop garments by turns, two of each identity."""
    torch.manual_seed(seed)
    identities = torch.arange(count) // 2 + 10 * seed
    return torch.randn(count, 10) + seed, torch.arange(count) % 2, identities, identities, identities


def test_new_garments_are_compared_with_those_of_the_last_batch():
    head, first, second = made_head(memory=8), made_garments(1), made_garments(2)
    head.loss(*first)
    head.norm.train()
    new = head.norm(second[0])
    # The same step again: the running statistics have moved by one batch, as they have in the loss.
    head.norm.load_state_dict(made_head().norm.state_dict())
    head.norm(first[0])
    found = head.loss(*second)['loss_match']
    old = head.norm.eval()(first[0])
    users = torch.cat([new[::2], old[::2]])
    shops = torch.cat([new[1::2], old[1::2]])
    identities = torch.cat([second[2][::2], first[2][::2]])
    targets = pair_targets(identities, identities, identities, identities)
    targets[2:, 2:] = IGNORED
    expected = match_loss(head.pair_logits(users, shops), targets)
    torch.testing.assert_close(found, expected)
    assert (targets == IGNORED).sum() == 4


def test_a_full_batch_is_compared_with_itself_alone():
    with_memory, without = made_head(memory=4), made_head(memory=0)
    for seed in (1, 2):
        losses = [head.loss(*made_garments(seed)) for head in (with_memory, without)]
        torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_one_infinite_row_spoils_one_step():
    head = made_head(memory=8)
    head.loss(*made_garments(1))
    projections, *labels = made_garments(2)
    projections[1] = float('inf')
    assert not head.loss(projections, *labels)['loss_match'].isfinite()
    assert head.norm.running_mean.isfinite().all() and head.norm.running_var.isfinite().all()
    assert head.loss(*made_garments(3))['loss_match'].isfinite()


def test_a_memory_without_a_batch_norm_is_refused():
    with pytest.raises(ValueError, match='Set memory=0'):
        made_head(norm_cfg={'type': 'LN'})
    assert made_head(norm_cfg=None, memory=0).memory is None

import pytest
import torch
import torch.distributed
from processes import run_in_processes

from mmdf2.models import MatchHead
from mmdf2.models.gather import averaging_factors, gather_counts, gather_rows

# The rows of three processes. The second has none, and only the rows of all together have a pair.
ROWS = (3, 0, 2)
IS_SHOP, IDENTITIES, PAIR_IDS = [0, 0, 1, 1, 0], [7, 9, 9, 7, -1], [1, 2, 2, 1, 2]
LABELS = [0, 0, 0, 1, 0]
PLAIN = {}
OPTIONS = {'true_metric': True, 'same_category_weight': 3.0, 'contrastive_weight': 0.5}
NORMS = ({'type': 'mmdf2.BatchNorm'}, {'type': 'BN1d'}, {'type': 'LN'}, None)
VARIANTS = (PLAIN, OPTIONS, *({'norm_cfg': norm, 'memory': 0} for norm in NORMS))


def rows_of(rank):
    return slice(sum(ROWS[:rank]), sum(ROWS[: rank + 1]))


def train_step(rows, options):
    """The loss, gradients and buffers of a training step on some of the rows."""
    torch.manual_seed(0)
    head = MatchHead(in_channels=3, conv_channels=(4,), embed_dims=5, **options).train()
    features = torch.randn(sum(ROWS), 3, 7, 7)[rows]
    labels = (torch.tensor(values)[rows] for values in (IS_SHOP, IDENTITIES, PAIR_IDS, LABELS))
    loss = sum(head.loss(head.project([features]), *labels).values())
    return loss.detach(), list(torch.autograd.grad(loss, list(head.parameters()))), dict(head.named_buffers())


def averaged_steps(rank):
    results = []
    for options in VARIANTS:
        loss, gradients, buffers = train_step(rows_of(rank), options)
        for gradient in gradients:
            torch.distributed.all_reduce(gradient)
            gradient /= len(ROWS)
        results.append((loss, gradients, buffers))
    return results


def test_processes_have_the_loss_gradients_and_statistics_of_one():
    expected = [
        train_step(slice(None), options) for options in (PLAIN, OPTIONS, *({'norm_cfg': n, 'memory': 0} for n in NORMS))
    ]
    assert expected[0][0] != expected[1][0] and expected[0][0] > 0
    for found in run_in_processes(averaged_steps, len(ROWS)):
        for of_processes, of_one in zip(found, expected, strict=True):
            torch.testing.assert_close(of_processes, of_one)


def gathered(rank):
    """Columns of many types and shapes, gathered in all processes."""
    rows = rows_of(rank)
    generator = torch.Generator().manual_seed(0)
    count = sum(ROWS)
    columns = (
        torch.randn(count, 2, 3, generator=generator),
        torch.randint(-(2**62), 2**62, (count,), generator=generator),
        torch.randn(count, 1, generator=generator).double(),
        torch.rand(count, generator=generator) < 0.5,
        torch.randn(count, 3, generator=generator).bfloat16(),
        torch.zeros(count, 0),
    )
    counts = gather_counts(torch.tensor([rank, len(range(count)[rows])]))
    return list(columns), gather_rows(*(column[rows] for column in columns)), counts


def test_columns_of_all_types_keep_every_bit():
    for columns, found, counts in run_in_processes(gathered, len(ROWS)):
        assert counts.tolist() == [[0, 3], [1, 0], [2, 2]]
        for column, rows in zip(columns, found, strict=True):
            assert rows.dtype == column.dtype and torch.equal(rows, column)


def test_one_process_keeps_its_rows():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(rows)[0] is rows


def test_averaging_factors_make_one_mean_of_all():
    counts = torch.tensor([[3, 0, 1], [0, 0, 0], [2, 0, 0]])
    factors = averaging_factors(counts)
    assert factors.tolist() == pytest.approx([5 / 3, 1, 1 / 3])
    sums = torch.tensor([6.0, 0.0, 9.0])
    assert (sums / factors[0]).mean().item() == pytest.approx(sums.sum().item() / 5)

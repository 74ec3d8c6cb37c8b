import copy

import pytest
import torch
import torch.distributed
from mmcv.cnn import build_norm_layer
from processes import run_in_processes
from torch import nn

from mmdf2.models import BatchNorm
from mmdf2.models.batch_norm import statistics_of_processes

SHAPES = {'rows': (6, 5), 'maps': (6, 5, 4, 3)}
# The rows of each process; one process has none.
SPLIT = (3, 0, 1, 2)


def torch_norm(like: BatchNorm, dims: int):
    norm = (nn.BatchNorm1d if dims == 2 else nn.BatchNorm2d)(like.num_features, like.eps, like.momentum)
    norm.load_state_dict(like.state_dict())
    return norm


def made(shape, dtype=torch.float32, layout=torch.contiguous_format):
    torch.manual_seed(1)
    values = (3 + 2 * torch.randn(shape)).to(dtype)
    return values.contiguous(memory_format=layout) if len(shape) == 4 else values


def norm_with_weights(**options):
    torch.manual_seed(2)
    norm = BatchNorm(5, **options)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(5))
        norm.running_var.copy_(torch.rand(5) + 0.5)
    return norm


def step(norm, values):
    """Outputs, gradients and buffers after one batch, with a gradient that differs between rows."""
    values = values.detach().clone().requires_grad_()
    outputs = norm(values)
    cotangent = torch.arange(outputs.numel(), dtype=torch.float32).view(outputs.shape).sin().to(outputs)
    gradients = torch.autograd.grad(outputs, [values, norm.weight, norm.bias], cotangent)
    return outputs.detach(), list(gradients), {name: buffer.clone() for name, buffer in norm.named_buffers()}


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kind', SHAPES)
def test_one_process_does_what_torch_does(kind, training):
    ours = norm_with_weights().train(training)
    reference = torch_norm(ours, len(SHAPES[kind])).train(training)
    torch.testing.assert_close(step(ours, made(SHAPES[kind])), step(reference, made(SHAPES[kind])))


def shared_step(rank, shape, dtype, layout):
    rows = slice(sum(SPLIT[:rank]), sum(SPLIT[: rank + 1]))
    values = made(shape, dtype, layout)[rows].requires_grad_()
    norm = norm_with_weights(sync=True)
    outputs = norm(values)
    whole = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape).sin()
    gradients = torch.autograd.grad(outputs, [values, norm.weight, norm.bias], whole[rows].to(outputs))
    for gradient in gradients[1:]:
        torch.distributed.all_reduce(gradient)
    return outputs.detach(), list(gradients), dict(norm.named_buffers())


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('kind', SHAPES)
def test_processes_do_what_one_does(kind, dtype, layout):
    shape = SHAPES[kind]
    outputs, (of_values, *of_weights), buffers = step(norm_with_weights(), made(shape, dtype, layout))
    found = run_in_processes(shared_step, len(SPLIT), shape, dtype, layout)
    tolerance = {'rtol': 0.02, 'atol': 0.02} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(torch.cat([rows for rows, *_ in found]), outputs, **tolerance)
    torch.testing.assert_close(torch.cat([gradients[0] for _, gradients, _ in found]), of_values, **tolerance)
    for _, (_, *own_weights), own_buffers in found:
        torch.testing.assert_close(own_weights, of_weights, **tolerance)
        torch.testing.assert_close(own_buffers, buffers)
        assert all(torch.equal(own_buffers[name], found[0][2][name]) for name in buffers)


def double_step(rank):
    """Gradients of a synchronised step in float64, to be compared with differences of the loss."""
    norm = norm_with_weights(sync=True).double()
    values = made(SHAPES['rows'], torch.float64)[rank::2].requires_grad_()

    def loss(shift):
        copied = copy.deepcopy(norm)
        total = (copied(values + shift) ** 3).sum()
        everyone = total.detach().clone()
        torch.distributed.all_reduce(everyone)
        return total, everyone

    gradient = torch.autograd.grad(loss(0)[0], values)[0]
    step = 1e-5
    differences = torch.zeros(2, 3, 5, dtype=torch.float64)
    for process in range(2):
        for row in range(3):
            for channel in range(5):
                shift = torch.zeros(3, 5, dtype=torch.float64)
                if process == rank:
                    shift[row, channel] = step
                above, below = loss(shift)[1], loss(-shift)[1]
                differences[process, row, channel] = (above - below) / (2 * step)
    return gradient, differences[rank]


def test_the_gradient_is_that_of_the_losses_of_all_processes():
    for gradient, differences in run_in_processes(double_step, 2):
        torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('broken', [float('inf'), float('nan')])
def test_what_is_not_finite_never_enters_the_running_statistics(broken):
    norm, values = norm_with_weights(), made(SHAPES['rows'])
    before = copy.deepcopy(norm.state_dict())
    values[2, 3] = broken
    norm(values)
    others = torch.arange(5) != 3
    for name in ('running_mean', 'running_var'):
        running = getattr(norm, name)
        assert running[3] == before[name][3] and (running[others] != before[name][others]).all()
    norm(made(SHAPES['rows']))
    assert norm.running_mean.isfinite().all() and norm.running_mean[3] != before['running_mean'][3]


def broken_in_one_process(rank):
    norm, values = norm_with_weights(sync=True), made(SHAPES['rows'])
    if rank:
        values[0] = float('inf')
    before = copy.deepcopy(norm.state_dict())
    norm(values)
    return before, dict(norm.state_dict())


def test_what_is_not_finite_in_one_process_leaves_those_of_all_alone():
    for before, after in run_in_processes(broken_in_one_process, 2):
        for name in ('running_mean', 'running_var'):
            assert torch.equal(before[name], after[name])


@pytest.mark.parametrize('count', [0, 1])
def test_fewer_than_two_rows_are_normalised_by_running_statistics(count):
    norm, values = norm_with_weights(), made(SHAPES['rows'])[:count]
    before = copy.deepcopy(norm.state_dict())
    outputs = norm(values)
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(outputs, norm.eval()(values))


def one_row_in_all(rank):
    norm, values = norm_with_weights(sync=True), made(SHAPES['rows'])[: 1 - rank]
    before = norm.running_mean.clone()
    outputs = norm(values)
    return torch.equal(before, norm.running_mean), torch.equal(outputs, norm.eval()(values))


def test_the_rows_of_all_processes_count():
    assert run_in_processes(one_row_in_all, 2) == [(True, True)] * 2


def far_from_zero(rank):
    torch.manual_seed(0)
    whole = 1e4 + torch.randn(64, 3)
    count, mean, variance = statistics_of_processes(whole[rank::2])
    exact = whole.double()
    return count, (mean - exact.mean(dim=0)).abs().max(), (variance / exact.var(dim=0, correction=0) - 1).abs().max()


def test_statistics_far_from_zero_are_exact():
    for count, error_of_mean, error_of_variance in run_in_processes(far_from_zero, 2):
        assert count == 64 and error_of_mean < 1e-2 and error_of_variance < 1e-2


def test_configs_name_it():
    name, norm = build_norm_layer({'type': 'mmdf2.BatchNorm', 'sync': True, 'requires_grad': False}, 7, postfix=1)
    assert name == 'bn1' and isinstance(norm, BatchNorm) and norm.sync and not norm.weight.requires_grad


@pytest.mark.parametrize('wrong', [{'momentum': None}, {'momentum': 2}, {'track_running_stats': False}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BatchNorm(3, **wrong)

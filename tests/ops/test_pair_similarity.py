"""The logits of all pairs and their gradients, against the direct form in double precision."""

import numpy as np
import pytest
import torch

from mmdf2.ops import pair_similarity

OP = torch.ops.mmdf2.pair_similarity.default
BACKWARD = torch.ops.mmdf2.pair_similarity_backward.default


def make(rows=5, columns=7, width=6, classes=2, dtype=torch.float64, offset=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    arguments = (draw(rows, width) + offset, draw(columns, width) + offset, draw(classes, width), draw(classes))
    return tuple(argument.to(dtype) for argument in arguments)


def reference(query, gallery, weight, bias=None):
    query, gallery, weight = (x.detach().double().numpy() for x in (query, gallery, weight))
    logits = np.einsum('mnk,ck->mnc', (query[:, None] - gallery[None]) ** 2, weight)
    return logits if bias is None else logits + bias.detach().double().numpy()


@pytest.mark.parametrize('classes', [1, 2, 5])
@pytest.mark.parametrize('shape', [(5, 7, 6), (1, 9, 1), (0, 4, 3), (4, 0, 3), (0, 0, 3), (3, 2, 0), (2, 9000, 3)])
def test_equals_the_direct_form(shape, classes):
    query, gallery, weight, bias = make(*shape, classes=classes)
    for b in (bias, None):
        logits = pair_similarity(query, gallery, weight, b)
        assert logits.shape == (*shape[:2], classes) and logits.dtype == torch.float64 and logits.is_contiguous()
        np.testing.assert_allclose(logits.numpy(), reference(query, gallery, weight, b), atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
@pytest.mark.parametrize(('dtype', 'rtol'), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_a_gpu_gives_the_same_logits_and_gradients(dtype, rtol):
    results = []
    for device in ('cpu', 'cuda'):
        arguments = [x.to(device).requires_grad_() for x in make(65, 70, 256, dtype=dtype, offset=1.0)]
        logits = pair_similarity(*arguments)
        logits.square().mean().backward()
        results.append([x.detach().cpu() for x in (logits, *(x.grad for x in arguments))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * one.abs().max().item())


@pytest.mark.parametrize('offset', [0.0, 5.0, 100.0])
def test_common_offset_costs_no_digits(offset):
    arguments = make(64, 64, 256, dtype=torch.float32, offset=offset)
    logits = pair_similarity(*arguments)
    assert logits.dtype == torch.float32
    error = np.abs(logits.numpy() - reference(*arguments)).max()
    scale = (reference(arguments[0], arguments[1], arguments[2].abs())).max()
    assert error < 2e-7 * scale


def test_non_contiguous_arguments():
    query, gallery, weight, bias = make(6, 8, 5)
    strided = (
        query.repeat_interleave(2, 0)[::2],
        gallery.T.contiguous().T,
        weight.repeat_interleave(3, 1)[:, ::3],
        bias.expand(3, -1).T[:, 1],
    )
    assert not strided[0].is_contiguous() and not strided[1].is_contiguous()
    torch.testing.assert_close(pair_similarity(*strided), pair_similarity(query, gallery, weight, bias))


@pytest.mark.parametrize('shape', [(4, 3, 5), (1, 1, 1), (0, 3, 2), (3, 0, 2)])
@pytest.mark.parametrize('classes', [1, 2, 3])
def test_gradients(shape, classes):
    arguments = [argument.requires_grad_() for argument in make(*shape, classes=classes, offset=2.0)]
    assert torch.autograd.gradcheck(pair_similarity, arguments)
    assert torch.autograd.gradcheck(lambda *args: pair_similarity(*args), arguments[:3])


def test_gradients_reach_only_who_asks():
    query, gallery, weight, bias = make()
    gallery.requires_grad_()
    pair_similarity(query, gallery, weight, bias).square().sum().backward()
    assert gallery.grad is not None and query.grad is None and weight.grad is None and bias.grad is None


def test_gradients_in_float32_equal_those_of_the_broadcast():
    arguments = [argument.requires_grad_() for argument in make(32, 48, 256, dtype=torch.float32, offset=5.0)]
    upstream = torch.randn(32, 48, 2, generator=torch.Generator().manual_seed(3))
    got = torch.autograd.grad(pair_similarity(*arguments), arguments, upstream)
    query, gallery, weight, bias = (argument.detach().double().requires_grad_() for argument in arguments)
    direct = ((query[:, None] - gallery) ** 2) @ weight.T + bias
    expected = torch.autograd.grad(direct, (query, gallery, weight, bias), upstream.double())
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < 2e-6 * other.abs().max()


def test_second_derivatives_are_refused():
    query, *rest = make()
    query.requires_grad_()
    (gradient,) = torch.autograd.grad(pair_similarity(query, *rest).sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match='first derivatives only'):
        gradient.sum().backward()


def test_opcheck():
    arguments = [argument.requires_grad_() for argument in make()]
    torch.library.opcheck(OP, arguments)
    torch.library.opcheck(OP, (*arguments[:3], None))
    query, gallery, weight, _ = make()
    torch.library.opcheck(BACKWARD, (torch.randn(5, 7, 2).double(), query, gallery, weight))


def test_compiles_into_one_graph():
    arguments = [argument.requires_grad_() for argument in make(dtype=torch.float32)]

    def loss(query, gallery, weight, bias):
        return pair_similarity(query.relu(), gallery, weight, bias).logsumexp(-1).mean()

    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*arguments), loss(*arguments))
    expected = torch.autograd.grad(loss(*arguments), arguments)
    torch.testing.assert_close(torch.autograd.grad(compiled(*arguments), arguments), expected)


def test_autocast_runs_in_float32():
    query, gallery, weight, bias = make(16, 16, 64, dtype=torch.float32)
    half = query.bfloat16().requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        logits = pair_similarity(half, gallery, weight, bias)
        logits.sum().backward()
    assert logits.dtype == torch.float32
    full = half.detach().float().requires_grad_()
    expected = pair_similarity(full, gallery, weight, bias)
    expected.sum().backward()
    assert torch.equal(logits, expected)
    assert half.grad.dtype == torch.bfloat16 and torch.equal(half.grad, full.grad.bfloat16())


QUERY, GALLERY, WEIGHT, BIAS = make(3, 4, 5)


@pytest.mark.parametrize(
    ('arguments', 'error', 'words'),
    [
        (([[1.0]], GALLERY, WEIGHT, BIAS), TypeError, 'query must be a torch.Tensor, got list'),
        ((QUERY, GALLERY, WEIGHT, 1.0), TypeError, 'bias must be a torch.Tensor, got float'),
        ((QUERY[0], GALLERY, WEIGHT, BIAS), ValueError, r'query must have shape \(M, D\), got \(5,\)'),
        ((QUERY, GALLERY[None], WEIGHT, BIAS), ValueError, r'gallery must have shape \(N, D\), got \(1, 4, 5\)'),
        ((QUERY, GALLERY[:, :4], WEIGHT, BIAS), ValueError, r'gallery must .* D = 5, got \(4, 4\)'),
        ((QUERY, GALLERY, WEIGHT[:, :3], BIAS), ValueError, r'weight must .* D = 5, got \(2, 3\)'),
        ((QUERY, GALLERY, WEIGHT[:0], BIAS[:0]), ValueError, r'weight must have at least one row, got \(0, 5\)'),
        ((QUERY, GALLERY, WEIGHT, BIAS[:1]), ValueError, r'bias must have shape \(2,\).*got \(1,\)'),
        ((QUERY.half(), GALLERY, WEIGHT, BIAS), TypeError, 'query must be float32 or float64, got torch.float16'),
        ((QUERY, GALLERY.long(), WEIGHT, BIAS), TypeError, 'gallery must be float32 or float64, got torch.int64'),
        ((QUERY, GALLERY, WEIGHT.float(), BIAS), TypeError, 'weight is torch.float32, but query is torch.float64'),
        ((QUERY, GALLERY.to('meta'), WEIGHT, BIAS), ValueError, 'gallery is on meta, but query is on cpu'),
        ((QUERY, GALLERY, WEIGHT.log(), BIAS), ValueError, r'weight must be finite, got NaN .* shape \(2, 5\)'),
        ((QUERY, GALLERY, WEIGHT, BIAS / 0), ValueError, 'bias must be finite'),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        pair_similarity(*arguments)


def test_the_operator_itself_checks_shapes():
    with pytest.raises(ValueError, match='one width D'):
        OP(QUERY, GALLERY[:, :4], WEIGHT, None)
    with pytest.raises(ValueError, match=r'grad \(M, N, C\)'):
        BACKWARD(torch.zeros(3, 4, 1).double(), QUERY, GALLERY, WEIGHT)

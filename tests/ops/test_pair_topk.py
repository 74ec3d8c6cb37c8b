"""pair_topk against brute force, in each of the ways in which it runs (see conftest.py)."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from mmdf2.ops import composite as composite_module
from mmdf2.ops import pair_similarity, pair_topk
from mmdf2.ops.composite import pair_topk_composite


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brute_force(query, gallery, weight, k):
    """The direct form in float64 and a stable sort, so that equal scores keep the order of their indices."""
    query, gallery, weight = (x.double().numpy() for x in (query, gallery, weight))
    scores = np.stack([((row - gallery) ** 2 * weight).sum(1) for row in query]).reshape(len(query), len(gallery))
    order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
    return np.take_along_axis(scores, order, 1), order


def assert_exact(search, query, gallery, weight, k, rtol=1e-6):
    scores, indices = search(query, gallery, weight, None, k)
    expected_scores, expected_indices = brute_force(query, gallery, weight, k)
    assert scores.dtype == query.dtype and indices.dtype == torch.int64
    np.testing.assert_array_equal(indices.numpy(), expected_indices)
    atol = 1e-13 * np.abs(expected_scores).max()  # scores near zero are differences of large sums
    np.testing.assert_allclose(scores.numpy(), expected_scores, rtol=rtol, atol=atol)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ('rows', 'columns', 'width', 'k'),
    [(30, 500, 256, 20), (1, 1, 1, 1), (3, 9000, 17, 1), (1100, 60, 5, 10), (5, 1500, 64, 1024), (7, 300, 33, 300)],
)
def test_mixed_sign_weights(search, rows, columns, width, k, dtype):
    query, gallery, weight = draw(rows, width, seed=1), draw(columns, width, seed=2), draw(width, seed=3)
    rtol = 1e-6 if dtype == torch.float32 else 1e-12
    assert_exact(search, query.to(dtype), gallery.to(dtype), weight.to(dtype), k, rtol)


@pytest.mark.parametrize('offset', [5.0, 1e4])
@pytest.mark.parametrize('sign', [-1, 1])
def test_common_offset(search, offset, sign):
    query, gallery = draw(20, 256, seed=1) + offset, draw(5000, 256, seed=2) + offset
    assert_exact(search, query, gallery, sign * draw(256, seed=3).abs(), 20)


def test_near_duplicates_of_the_query(search):
    """The best scores are close to 0 while the terms of the expanded form are large, so that its digits cancel."""
    query = 10 * draw(12, 128, seed=1)
    noise = 1e-3 * draw(12 * 50, 128, seed=2)
    gallery = torch.cat([query.repeat(50, 1) + noise, 10 * draw(800, 128, seed=4)])
    assert_exact(search, query, gallery, -draw(128, seed=3).abs(), 20)


def test_ties_go_to_the_smaller_index(search):
    integers = torch.Generator().manual_seed(5)
    query = torch.randint(-2, 3, (40, 3), generator=integers).float()
    gallery = torch.randint(-2, 3, (6000, 3), generator=integers).float()
    for weight in ([-1.0, -1.0, -1.0], [1.0, -2.0, 0.0], [0.0, 0.0, 0.0]):
        assert_exact(search, query, gallery, torch.tensor(weight), 50)


def test_more_duplicates_than_candidates(search):
    """One row is there 700 times, and 700 rows differ from it by less than a product in float32 can resolve."""
    query, row = draw(5, 64, seed=1), draw(1, 64, seed=2)
    almost = row.repeat(700, 1)
    almost[:, 0] += torch.arange(700) * 1.2e-7
    gallery = torch.cat([row.repeat(700, 1), almost, draw(100, 64, seed=4) * 5])
    gallery = gallery[torch.randperm(1500, generator=torch.Generator().manual_seed(6))]
    assert_exact(search, query, gallery, -draw(64).abs(), 20)


def test_all_items_equal(search):
    scores, indices = search(torch.ones(3, 8), torch.ones(9000, 8), -torch.ones(8), None, 5)
    assert torch.equal(scores, torch.zeros(3, 5)) and torch.equal(indices, torch.arange(5).expand(3, 5))


@pytest.mark.parametrize('scale', [1e-25, 1e-19, 1e18, 1e25])
def test_scales_that_float32_squares_cannot_hold(search, scale):
    query, gallery = scale * draw(6, 16, seed=1), scale * draw(200, 16, seed=2)
    indices = search(query, gallery, draw(16, seed=3), None, 10)[1]
    np.testing.assert_array_equal(indices.numpy(), brute_force(query, gallery, draw(16, seed=3), 10)[1])


def test_one_outlier_leaves_the_others_in_order(search):
    query, gallery = draw(8, 32, seed=1), draw(3000, 32, seed=2)
    gallery[17] = 1e6
    assert_exact(search, query, gallery, -draw(32, seed=3).abs(), 20)
    assert_exact(search, query, gallery, draw(32, seed=3).abs(), 20)


@pytest.mark.parametrize('weight', [0.0, 1e-40])
def test_one_row_that_overflows_float32_is_not_lost(search, weight):
    """The row is far off in a column without weight. Only the expanded form has NaN there, from infinity times 0."""
    query, gallery, weights = draw(8, 12, seed=1), draw(600, 12, seed=2), -draw(12, seed=3).abs()
    query[:, 4] = gallery[:, 4] = 3e38
    gallery[17] = query[3]
    gallery[17, 4] = -3e38
    weights[4] = weight
    assert_exact(search, query, gallery, weights, 5)


def test_reduced_matmul_precision_does_not_change_the_order(search):
    query, gallery, weight = draw(64, 128, seed=1), draw(2000, 128, seed=2), draw(128, seed=3)
    torch.set_float32_matmul_precision('medium')
    try:
        assert_exact(search, query, gallery, weight, 20)
    finally:
        torch.set_float32_matmul_precision('highest')


def test_the_composition_notices_a_matrix_product_in_bfloat16(monkeypatch):

    class Coarse(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.matmul and args[0].dtype == torch.float32:
                seen.append(len(args[0]))
                args = [arg.bfloat16().float() for arg in args]
            return super().__torch_function__(function, types, args, kwargs or {})

    seen = []
    query, gallery, weight = draw(50, 128, seed=1), draw(2000, 128, seed=2), draw(128, seed=3)
    monkeypatch.setattr(composite_module, 'QUERY_TILE', 20)
    _, indices = pair_topk_composite(query.as_subclass(Coarse), gallery, weight, None, 20)
    assert seen == [20]  # once, because the rest is done in double precision
    expected = brute_force(query, gallery, weight, 20)[1]
    np.testing.assert_array_equal(indices.as_subclass(torch.Tensor).numpy(), expected)


def test_empty_query_and_zero_width(search):
    scores, indices = search(draw(0, 4), draw(7, 4), draw(4), None, 3)
    assert scores.shape == indices.shape == (0, 3)
    scores, indices = search(draw(2, 0), draw(7, 0), draw(0), torch.tensor(1.5), 3)
    assert torch.equal(scores, torch.full((2, 3), 1.5)) and indices.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_non_contiguous(search):
    query, gallery, weight = draw(9, 24, seed=1), draw(400, 24, seed=2), draw(24, seed=3)
    strided = (query.T.contiguous().T, gallery.repeat_interleave(2, 0)[::2], weight.repeat_interleave(2)[::2])
    for one, other in zip(search(*strided, None, 7), search(query, gallery, weight, None, 7), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('side', [0, 1])
def test_rows_that_are_not_finite_are_refused(search, value, side):
    rows = [draw(3, 4), draw(50, 4)]
    rows[side][2, 1] = value
    with pytest.raises(ValueError, match='query or gallery holds NaN or infinity'):
        search(*rows, draw(4), None, 3)


def test_threads_do_not_change_the_result():
    arguments = (draw(3000, 16, seed=1), draw(9000, 16, seed=2), draw(2, 16, seed=3))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(pair_topk(*arguments, k=5))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize('positive', [0, 1])
def test_agrees_with_the_logits(positive):
    query, gallery, weight, bias = draw(6, 32, seed=1), draw(90, 32, seed=2), draw(2, 32, seed=3), draw(2, seed=4)
    logits = pair_similarity(query, gallery, weight, bias)
    scores, indices = pair_topk(query, gallery, weight, bias, k=12, positive=positive)
    expected = (logits[..., positive] - logits[..., 1 - positive]).topk(12)
    assert torch.equal(indices, expected.indices)
    torch.testing.assert_close(scores, expected.values, rtol=1e-5, atol=1e-4)
    without_bias = pair_topk(query, gallery, weight, k=12, positive=positive)[0]
    shift = (bias[positive] - bias[1 - positive]).expand(6, 12)
    torch.testing.assert_close(scores - without_bias, shift, atol=1e-4, rtol=0)


def test_has_no_gradient():
    scores, indices = pair_topk(draw(2, 4).requires_grad_(), draw(9, 4), draw(2, 4).requires_grad_(), k=3)
    assert not scores.requires_grad and not indices.requires_grad


def test_opcheck():
    arguments = (draw(4, 8, seed=1), draw(30, 8, seed=2), draw(8, seed=3))
    torch.library.opcheck(torch.ops.mmdf2.pair_topk.default, (*arguments, torch.tensor(0.5), 6))
    torch.library.opcheck(torch.ops.mmdf2.pair_topk.default, (*arguments, None, 30))


def test_compiles_into_one_graph():
    arguments = (draw(4, 8, seed=1), draw(30, 8, seed=2), draw(2, 8, seed=3), draw(2))
    compiled = torch.compile(pair_topk, fullgraph=True, backend='aot_eager')
    for one, other in zip(compiled(*arguments, k=7), pair_topk(*arguments, k=7), strict=True):
        assert torch.equal(one, other)


def test_autocast_searches_in_float32():
    query, gallery, weight = draw(20, 64, seed=1), draw(400, 64, seed=2), draw(2, 64, seed=3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        scores, indices = pair_topk(query, gallery.bfloat16(), weight, k=5)
    expected = pair_topk(query, gallery.bfloat16().float(), weight, k=5)
    assert scores.dtype == torch.float32 and torch.equal(scores, expected[0]) and torch.equal(indices, expected[1])


@pytest.mark.parametrize(
    ('changed', 'error', 'words'),
    [
        ({'k': 0}, ValueError, 'k must be from 1 to N = 9, the rows of gallery, got 0'),
        ({'k': 10}, ValueError, 'k must be from 1 to N = 9, the rows of gallery, got 10'),
        ({'gallery': draw(0, 4), 'k': 1}, ValueError, 'k must be from 1 to N = 0'),
        ({'k': 2.0}, TypeError, 'k must be an int, got float'),
        ({'k': True}, TypeError, 'k must be an int, got bool'),
        ({'positive': 2}, ValueError, 'positive must be 0 or 1, a row of weight, got 2'),
        ({'weight': draw(3, 4)}, ValueError, r'weight must have shape \(2, D\).*got \(3, 4\)'),
        ({'weight': draw(2, 4).log()}, ValueError, 'weight must be finite'),
        ({'query': draw(2, 4).bfloat16()}, TypeError, 'query must be float32 or float64'),
        ({'gallery': draw(9, 5)}, ValueError, r'gallery must have the width of query'),
    ],
)
def test_bad_arguments_are_named(changed, error, words):
    arguments = {'query': draw(2, 4), 'gallery': draw(9, 4), 'weight': draw(2, 4), 'k': 3, **changed}
    with pytest.raises(error, match=words):
        pair_topk(**arguments)


def test_the_operator_itself_checks_what_it_reads():
    op = torch.ops.mmdf2.pair_topk
    with pytest.raises(ValueError, match='weight_difference'):
        op(draw(2, 4), draw(9, 4), draw(5), None, 3)
    with pytest.raises(TypeError, match='the same for all'):
        op(draw(2, 4), draw(9, 4).double(), draw(4), None, 3)
    with pytest.raises(ValueError, match='1 <= k <= 9'):
        op(draw(2, 4), draw(9, 4), draw(4), None, 10)


LARGE_SEARCH = """
import resource
import torch
from mmdf2.ops import pair_topk

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

query, gallery, weight = torch.randn(47000, 4), torch.randn(47000, 4), torch.randn(2, 4)
pair_topk(query[:2], gallery, weight, k=3)
before = peak()
scores, indices = pair_topk(query, gallery, weight, k=3)
after = peak()
rows = torch.tensor([0, 1023, 1024, 46999])
difference = ((query[rows, None].double() - gallery.double()) ** 2) @ (weight[0] - weight[1]).double()
assert torch.equal(indices[rows], difference.topk(3).indices)
print(after - before)
"""


def test_memory_does_not_grow_with_all_pairs():
    """There are 2.2e9 pairs, which would take 8.8 GB."""
    pytest.importorskip('resource', reason='only Unix has the module that reads the peak memory')
    run = subprocess.run([sys.executable, '-c', LARGE_SEARCH], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 100  # MB: a tile of 16 MB, candidates, results

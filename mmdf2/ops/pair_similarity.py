"""The learned similarity of Match R-CNN between all pairs of embeddings, and its nearest items.

The matching network scores a pair by ``W (a - b)^2 + bias`` (DeepFashion2, Ge et al., CVPR 2019, section 4). The
kernels are in csrc; here are their public face, the fake kernels and the autograd formulas.
"""

import torch

from mmdf2.ops import composite
from mmdf2.ops.checks import check_pairs
from mmdf2.ops.library import build_info, load

load()


def pair_similarity(query, gallery, weight, bias=None):
    """Logits of all pairs: ``logits[m, n, c] = sum_k weight[c, k] (query[m, k] - gallery[n, k])^2 + bias[c]``.

    Computed, as are the gradients, by matrix products around a common centre: nothing of size M x N x D is made.
    Differentiable once in all arguments; a graph for ``torch.compile``. Under autocast it runs in float32. On a GPU the
    same code uses torch's CUDA matrix products, in the precision that torch is set to (TF32 costs three digits).

    Args:
        query: (M, D) float32 or float64.
        gallery: (N, D), as query.
        weight: (C, D), finite, either sign.
        bias: (C,) or None for none.

    Returns:
        torch.Tensor: (M, N, C), any of M and N may be 0.

    Raises:
        TypeError: An argument is no tensor or of another dtype.
        ValueError: A shape or device does not fit, or weight or bias is not finite (not checked while compiling).
    """
    check_pairs(query, gallery, weight, bias)
    return torch.ops.mmdf2.pair_similarity(query, gallery, weight, bias)


def pair_topk(query, gallery, weight, bias=None, k=20, positive=0):
    """The k gallery rows most similar to each query row, by logit ``positive`` minus the other one.

    The order is exact: that of the direct form ``sum_k w_k (a_k - b_k)^2`` evaluated in double precision with
    ``w = weight[positive] - weight[1 - positive]``; equal scores go to the smaller index. Candidates come from matrix
    products tile by tile, an error bound proves that none is missing, and a query without that proof is searched
    again. Memory beside the inputs: O(M k) plus some tens of MB. Not differentiable.

    On CUDA tensors the tiles go through tensor cores as 3xTF32, whatever precision torch's own matrix products are set
    to. A library built without CUDA warns once and runs them as a composition of torch operators instead, several
    times slower.

    Args:
        query: (M, D) float32 or float64, finite.
        gallery: (N, D), as query.
        weight: (2, D), finite, either sign.
        bias: (2,) or None for none.
        k: How many, 1 to N; on a GPU at most 1024.
        positive: Row of weight that means 'same', 0 or 1.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: scores (M, k), descending, in query's dtype, and indices (M, k) int64.

    Raises:
        TypeError: An argument is no tensor or of another dtype, or k or positive is no integer.
        ValueError: A shape or device does not fit, k or positive is out of range, weight or bias is not finite, or
            query or gallery holds NaN or infinity.
    """
    check_pairs(query, gallery, weight, bias)
    if weight.shape[0] != 2:
        raise ValueError(f'weight must have shape (2, D), the logits of same and different, got {tuple(weight.shape)}')
    for name, value in (('k', k), ('positive', positive)):
        if not isinstance(value, (int, torch.SymInt)) or isinstance(value, bool):
            raise TypeError(f'{name} must be an int, got {type(value).__name__}')
    if not 1 <= k <= gallery.shape[0]:
        raise ValueError(f'k must be from 1 to N = {gallery.shape[0]}, the rows of gallery, got {k}')
    if positive not in (0, 1):
        raise ValueError(f'positive must be 0 or 1, a row of weight, got {positive}')
    with torch.no_grad():
        weight_difference = weight[positive] - weight[1 - positive]
        bias_difference = None if bias is None else bias[positive] - bias[1 - positive]
        return torch.ops.mmdf2.pair_topk(query, gallery, weight_difference, bias_difference, k)


@torch.library.register_fake('mmdf2::pair_similarity')
def _(query, gallery, weight, bias):
    return query.new_empty(query.shape[0], gallery.shape[0], weight.shape[0])


@torch.library.register_fake('mmdf2::pair_similarity_backward')
def _(grad, query, gallery, weight):
    like = torch.contiguous_format
    return (
        torch.empty_like(query, memory_format=like),
        torch.empty_like(gallery, memory_format=like),
        torch.empty_like(weight, memory_format=like),
        weight.new_empty(weight.shape[0]),
    )


@torch.library.register_fake('mmdf2::pair_topk')
def _(query, gallery, weight_difference, bias_difference, k):
    return query.new_empty(query.shape[0], k), query.new_empty(query.shape[0], k, dtype=torch.int64)


def _save_for_backward(ctx, inputs, output):
    query, gallery, weight, bias = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(query, gallery, weight)


def _backward(ctx, grad):
    *gradients, bias_gradient = torch.ops.mmdf2.pair_similarity_backward(grad, *ctx.saved_tensors)
    return (*gradients, bias_gradient if ctx.has_bias else None)


def _no_second_backward(ctx, *grads):
    raise RuntimeError('mmdf2.ops.pair_similarity has first derivatives only; do not ask for create_graph=True')


torch.library.register_autograd('mmdf2::pair_similarity', _backward, setup_context=_save_for_backward)
torch.library.register_autograd('mmdf2::pair_similarity_backward', _no_second_backward)
if build_info()['cuda'] is None:
    torch.library.impl('mmdf2::pair_topk', 'CUDA', composite.pair_topk_without_kernels)

"""The learned similarity between all pairs of embeddings, and the k most similar items of each query.

The kernels are in csrc. Here are the operators' public functions with the checks of their arguments, the fake kernels
and the autograd formulas. :mod:`mmdf2.retrieval.similarity` derives the algebra behind them.
"""

import torch

from mmdf2.ops import composite
from mmdf2.ops.library import build_info, load

DTYPES = (torch.float32, torch.float64)
AUTOCAST_DTYPES = (torch.float16, torch.bfloat16)

load()


def pair_similarity(query, gallery, weight, bias=None):
    """Logits of all pairs: ``logits[m, n, c] = sum_k weight[c, k] (query[m, k] - gallery[n, k])^2 + bias[c]``.

    The logits and their gradients are computed by matrix products around a common centre, so nothing of size M x N x D
    is made. The operator is differentiable once in all arguments, and ``torch.compile`` keeps it in its graph. Under
    autocast it runs in float32. On a GPU it uses torch's CUDA matrix products in the precision that torch is set to;
    TF32 costs three digits.

    Args:
        query: (M, D) float32 or float64.
        gallery: (N, D), of query's dtype and device.
        weight: (C, D), finite, of either sign.
        bias: (C,), or None for no bias.

    Returns:
        torch.Tensor: (M, N, C); M and N may be 0.

    Raises:
        TypeError: An argument is not a tensor, or has another dtype.
        ValueError: A shape or device does not fit, or weight or bias is not finite (not checked while compiling).
    """
    _check_pairs(query, gallery, weight, bias)
    return torch.ops.mmdf2.pair_similarity(query, gallery, weight, bias)


def pair_topk(query, gallery, weight, bias=None, k=20, positive=0):
    """The k gallery rows most similar to each query row, by logit ``positive`` minus the other one.

    The order is exactly that of the direct form ``sum_k w_k (a_k - b_k)^2`` in double precision, with
    ``w = weight[positive] - weight[1 - positive]``; equal scores are ordered by rising index. Candidates come from
    matrix products tile by tile, an error bound proves that none is missing, and a query without that proof is searched
    again. Beside the inputs it needs O(M k) memory and some tens of MB. It is not differentiable.

    On CUDA tensors the tiles go through tensor cores as 3xTF32, whatever precision torch's own matrix products are set
    to. A library built without CUDA warns once and runs a composition of torch operators instead, several times slower.

    Args:
        query: (M, D) float32 or float64, finite.
        gallery: (N, D), finite, of query's dtype and device.
        weight: (2, D), finite, of either sign.
        bias: (2,), or None for no bias.
        k: Rows per query, 1 to N; on a GPU at most 1024.
        positive: The row of weight that means 'same', 0 or 1.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: scores (M, k), descending, in query's dtype, and indices (M, k) int64.

    Raises:
        TypeError: An argument is not a tensor or has another dtype, or k or positive is not an integer.
        ValueError: A shape or device does not fit, k or positive is out of range, weight or bias is not finite, or
            query or gallery holds NaN or infinity.
    """
    _check_pairs(query, gallery, weight, bias)
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


def _check_pairs(query, gallery, weight, bias):
    """Checks the arguments that both operators share."""
    tensors = {'query': query, 'gallery': gallery, 'weight': weight}
    if bias is not None:
        tensors['bias'] = bias
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f'{name} must be a torch.Tensor, got {type(tensor).__name__}')
    _check_shapes(**tensors)
    for name, tensor in tensors.items():
        if tensor.device != query.device:
            raise ValueError(f'{name} is on {tensor.device}, but query is on {query.device}: move one of them')
    _check_dtypes(tensors)
    # Reading values would break the compiler's graph; shapes and dtypes do not.
    if torch.compiler.is_compiling():
        return
    for name, tensor in (('weight', weight), ('bias', bias)):
        if tensor is not None and not torch.isfinite(tensor).all():
            raise ValueError(f'{name} must be finite, got NaN or infinity in shape {tuple(tensor.shape)}')


def _check_shapes(query, gallery, weight, bias=None):
    """Checks for the shapes (M, D), (N, D), (C, D) and (C,)."""
    for name, tensor, letters in (('query', query, 'M, D'), ('gallery', gallery, 'N, D'), ('weight', weight, 'C, D')):
        if tensor.ndim != 2:
            raise ValueError(f'{name} must have shape ({letters}), got {tuple(tensor.shape)}')
        if tensor.shape[1] != query.shape[1]:
            raise ValueError(
                f'{name} must have the width of query, ({letters}) with D = {query.shape[1]}, got {tuple(tensor.shape)}'
            )
    if weight.shape[0] < 1:
        raise ValueError(f'weight must have at least one row, got {tuple(weight.shape)}')
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f'bias must have shape ({weight.shape[0]},), one per row of weight, got {tuple(bias.shape)}')


def _check_dtypes(tensors):
    """Checks that all are float32 or all float64; autocast itself converts 16-bit floats to float32."""
    query = tensors['query']
    autocast = torch.is_autocast_enabled(query.device.type)
    allowed = DTYPES + AUTOCAST_DTYPES if autocast else DTYPES
    for name, tensor in tensors.items():
        if tensor.dtype not in allowed:
            raise TypeError(f'{name} must be float32 or float64, got {tensor.dtype} (16-bit floats need autocast)')
        if (tensor.dtype == torch.float64) != (query.dtype == torch.float64):
            raise TypeError(f'{name} is {tensor.dtype}, but query is {query.dtype}: convert one of them')


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

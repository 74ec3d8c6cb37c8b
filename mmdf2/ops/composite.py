"""``pair_topk`` composed of torch's own operators, for CUDA tensors where the library was built without CUDA.

The algorithm and its exactness are those of the compiled operator: candidates by matrix products around a common
centre, their scores by the direct form in double precision, a bound on the error that proves that no candidate is
missing, and a direct search for queries without that proof. :mod:`mmdf2.retrieval.similarity` derives it.
"""

import functools
import math
import warnings
from typing import NamedTuple

import torch

QUERY_TILE = 1024
GALLERY_TILE = 16384
DIRECT_ENTRIES = 1 << 22
"""Most entries of the (rows, items, D) block in double precision that the direct form computes at a time."""


def pair_topk_without_kernels(query, gallery, weight_difference, bias_difference, k):
    """Calls :func:`pair_topk_composite`, with a warning at the first call."""
    _warn_once(query.device.type)
    return pair_topk_composite(query, gallery, weight_difference, bias_difference, k)


@functools.cache
def _warn_once(device_type):
    warnings.warn(
        f'mmdf2.ops is compiled without CUDA, so that pair_topk on {device_type} runs out of torch operators, several '
        'times slower than its kernel. To compile it, install the CUDA toolkit that torch was built with, and mmdf2 '
        'again with FORCE_CUDA=1 in the environment.',
        stacklevel=2,
    )


@torch.no_grad()
def pair_topk_composite(query, gallery, weight_difference, bias_difference, k):
    """Takes and returns what ``torch.ops.mmdf2.pair_topk`` does, on any device.

    Args:
        query: (M, D) float32 or float64.
        gallery: (N, D).
        weight_difference: (D,).
        bias_difference: One element, or None.
        k: 1 to N.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: scores and indices, (M, k).

    Raises:
        ValueError: query or gallery holds NaN or infinity.
    """
    centre = (_sum_rows(query) + _sum_rows(gallery)) / (len(query) + len(gallery))
    if not torch.isfinite(centre).all():
        raise ValueError('query or gallery holds NaN or infinity (or values whose sum is not finite)')
    scores = query.new_empty(len(query), k, dtype=torch.float64)
    indices = query.new_empty(len(query), k, dtype=torch.int64)
    work = query.dtype
    for begin in range(0, len(query), QUERY_TILE):
        rows = slice(begin, begin + QUERY_TILE)
        found = _search(query[rows], gallery, weight_difference, centre, k, work)
        if found is None:
            # TF32 or another reduced precision is allowed. Double precision has no such modes, so go on with it.
            work = torch.float64
            found = _search(query[rows], gallery, weight_difference, centre, k, work)
        scores[rows], indices[rows] = found
    if bias_difference is not None:
        scores += bias_difference
    return scores.to(query.dtype), indices


def _search(query, gallery, weight, centre, k, work):
    """The best k of each row, with scores in double precision.

    None when the matrix product turns out to be less exact than the dtype ``work`` is.
    """
    query_terms = _centre(query, centre, weight, work)
    weighted = query_terms.rows * (-2 * weight.to(work))
    count = min(len(gallery), k + k // 8 + 16)
    kept = query.new_empty(len(query), 0, dtype=work)
    indices = query.new_empty(len(query), 0, dtype=torch.int64)
    magnitude = query.new_zeros((), dtype=torch.float64)
    largest = magnitude
    for begin in range(0, len(gallery), GALLERY_TILE):
        tile = _centre(gallery[begin : begin + GALLERY_TILE], centre, weight, work)
        magnitude = torch.maximum(magnitude, tile.magnitude.max())
        largest = torch.maximum(largest, tile.largest.max())
        expanded = weighted @ tile.rows.T + tile.form.to(work)
        best = expanded.topk(min(count, expanded.shape[1]))
        kept = torch.cat([kept, best.values], 1)
        indices = torch.cat([indices, best.indices + begin], 1)
        kept, order = kept.topk(min(count, kept.shape[1]))
        indices = indices.gather(1, order)

    bound = _error_bound(query_terms, magnitude, largest, weight, work)
    direct = _direct_scores(query, gallery, weight, indices)
    expanded = query_terms.form[:, None] + kept
    usable = torch.isfinite(bound)
    if work != torch.float64 and ((expanded - direct).abs() > bound[:, None])[usable].any():
        return None
    direct, indices = _best(direct, indices, k)
    if count < len(gallery):
        # Strictly above, because an item of equal score and smaller index would come first.
        open_rows = ~(direct[:, -1] > expanded[:, -1] + bound) | ~usable
        for row in open_rows.nonzero()[:, 0].tolist():
            direct[row], indices[row] = _search_directly(query[row : row + 1], gallery, weight, k)
    return direct, indices


def _sum_rows(rows):
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for tile in rows.split(GALLERY_TILE):
        total += tile.sum(0, dtype=torch.float64)
    return total


class _CentredRows(NamedTuple):
    """Centred rows, and what the expanded form and its error bound need of each, in double precision.

    Attributes:
        rows: (rows, D) in the dtype of the matrix product.
        form: (rows,) ``sum_k w_k x_k^2``.
        magnitude: (rows,) ``sum_k |w_k| x_k^2``.
        largest: (rows,) ``max_k |x_k|``.
    """

    rows: torch.Tensor
    form: torch.Tensor
    magnitude: torch.Tensor
    largest: torch.Tensor


def _centre(rows, centre, weight, work):
    rows = rows.to(work) - centre.to(work)
    square = rows.double() ** 2
    # One more column of zeros, so that a row of width 0 has a largest entry too.
    largest = torch.nn.functional.pad(rows.abs(), (0, 1)).amax(1).double()
    return _CentredRows(
        rows=rows,
        form=square @ weight.double(),
        magnitude=square @ weight.double().abs(),
        largest=largest,
    )


def _error_bound(query, magnitude, largest, weight, work):
    """Bound on the error of each query's expanded scores, as ``error_bound`` in csrc/error_bound.h computes it."""
    width = len(weight)
    info = torch.finfo(work)
    largest_weight = weight.double().abs().sum()  # at least the largest
    scale = (query.magnitude.sqrt() + magnitude.sqrt()) ** 2
    lost = 4 * (width + 1) * info.tiny * (1 + (1 + largest_weight) * (query.largest + largest))
    steps = (width + 10) * (info.eps / 2 + torch.finfo(torch.float64).eps)
    if steps >= 0.5:
        return torch.full_like(scale, math.inf)
    bound = steps / (1 - steps) * scale + lost
    return torch.where(scale < info.max / 8, bound, math.inf)


def _direct_scores(query, gallery, weight, indices):
    """The direct form in double for each query row and its own candidates, (rows, candidates)."""
    scores = query.new_empty(indices.shape, dtype=torch.float64)
    step = max(1, DIRECT_ENTRIES // max(1, indices.shape[1] * query.shape[1]))
    for begin in range(0, len(query), step):
        rows = slice(begin, begin + step)
        difference = query[rows, None].double() - gallery[indices[rows]].double()
        # No matrix product, which could sum equal rows in different orders: ties would not be ties.
        scores[rows] = (difference**2 * weight.double()).sum(-1)
    return scores


def _best(scores, indices, k):
    """The k highest scores of each row; equal ones are ordered by rising index."""
    indices, order = indices.sort(1)
    scores = scores.gather(1, order)
    # NaN, which the direct form gives for infinity minus infinity, comes last.
    keys = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    rank = keys.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return scores.gather(1, rank), indices.gather(1, rank)


def _search_directly(query, gallery, weight, k):
    """The best k of one row by nothing but the direct form."""
    scores = query.new_empty(1, 0, dtype=torch.float64)
    indices = query.new_empty(1, 0, dtype=torch.int64)
    step = max(k, DIRECT_ENTRIES // max(1, query.shape[1]))
    for begin in range(0, len(gallery), step):
        tile = torch.arange(begin, min(begin + step, len(gallery)), device=query.device)[None]
        scores = torch.cat([scores, _direct_scores(query, gallery, weight, tile)], 1)
        indices = torch.cat([indices, tile], 1)
        scores, indices = _best(scores, indices, k)
    return scores, indices

"""Gathering from all processes, so that losses are those of the whole batch however many processes share it."""

import math

import torch
from mmengine.dist import all_gather, get_rank, get_world_size
from torch import Tensor


def gather_counts(counts: Tensor) -> Tensor:
    """Gathers what every process counted.

    Args:
        counts: (k,) int64. Every process must call the function.

    Returns:
        (processes, k) int64, in the order of ranks.
    """
    return torch.stack(all_gather(counts))


def averaging_factors(counts: Tensor) -> Tensor:
    """What each process divides its sums by, so that all processes together average over all of their elements.

    DistributedDataParallel averages gradients over processes. If each process divides the sum over its own elements by
    the average count of elements per process, the averaged gradient is that of one mean over the elements of all.
    MMDetection calls such a number ``avg_factor``.

    Args:
        counts: (processes, k) int64 numbers of elements of k means, from :func:`gather_counts`.

    Returns:
        (k,) float32 average counts; 1 where no process has an element.
    """
    average = counts.float().mean(dim=0)
    return torch.where(average > 0, average, 1.0)


def gather_rows(*columns: Tensor, counts: Tensor | None = None) -> list[Tensor]:
    """Concatenates the rows of all processes; the number of rows may differ between processes.

    When every process computes the same loss on the result, the gradients that DistributedDataParallel averages are
    those of one process with all rows: only a process's own rows have a gradient, and it is multiplied by the number of
    processes to compensate for the averaging.

    Args:
        *columns: (n, ...) rows, whose type and shape, except for n, are the same in all processes; n is that of all
            columns. Every process must call the function.
        counts: (processes,) int64 numbers of rows, if they are known already, which saves an exchange.

    Returns:
        (sum of n, ...) for each column, the rows in the order of ranks; the columns themselves when there is only one
        process.
    """
    world_size = get_world_size()
    if world_size == 1:
        return list(columns)
    if counts is None:
        counts = gather_counts(torch.tensor([len(columns[0])], device=columns[0].device))[:, 0]
    lengths = counts.tolist()
    # All columns travel as bytes in one exchange.
    packed = [_as_bytes(column) for column in columns]
    padded = packed[0].new_zeros(max(lengths), sum(rows.shape[1] for rows in packed))
    padded[: len(packed[0])] = torch.cat(packed, dim=1)
    gathered = torch.cat([part[:length] for part, length in zip(all_gather(padded), lengths, strict=True)])
    start = sum(lengths[: get_rank()])
    own = slice(start, start + lengths[get_rank()])
    results = []
    for column, rows in zip(columns, gathered.split([rows.shape[1] for rows in packed], dim=1), strict=True):
        # A copy starts where numbers of any type may start.
        values = rows.flatten().clone().view(column.dtype).view(len(gathered), *column.shape[1:])
        if column.requires_grad:
            values = torch.cat([values[: own.start], _scale_gradient(column, world_size), values[own.stop :]])
        results.append(values)
    return results


def _as_bytes(rows: Tensor) -> Tensor:
    """(n, bytes per row) uint8."""
    return rows.detach().reshape(len(rows), math.prod(rows.shape[1:])).view(torch.uint8)


def _scale_gradient(values: Tensor, factor: float) -> Tensor:
    """``values``, whose gradient is multiplied by ``factor``."""
    return values.detach() + (values - values.detach()) * factor

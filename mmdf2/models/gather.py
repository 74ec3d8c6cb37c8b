"""Gathering of rows from all processes, so that a loss over pairs sees the pairs of the whole batch."""

import torch
from mmengine.dist import all_gather, get_rank, get_world_size
from torch import Tensor


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenates the rows of all processes; the number of rows may differ between processes.

    When every process computes the same loss on the result, the gradients that DistributedDataParallel averages are
    those of one process with all rows: only a process's own rows have a gradient, and it is multiplied by the number of
    processes to compensate for the averaging.

    Args:
        rows: (n, ...) rows, whose type and shape, except for n, are the same in all processes. Every process must call
            the function.

    Returns:
        (sum of n, ...) the rows in the order of ranks; ``rows`` itself when there is only one process.
    """
    world_size = get_world_size()
    if world_size == 1:
        return rows
    counts = torch.cat(all_gather(torch.tensor([len(rows)], device=rows.device))).tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [part[:count] for part, count in zip(all_gather(padded), counts, strict=True)]
    parts[get_rank()] = _scale_gradient(rows, world_size) if rows.requires_grad else rows
    return torch.cat(parts)


def _scale_gradient(values: Tensor, factor: float) -> Tensor:
    """``values``, whose gradient is multiplied by ``factor``."""
    return values.detach() + (values - values.detach()) * factor

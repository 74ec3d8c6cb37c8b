"""Rows of all processes, so that a loss over pairs sees the pairs of the whole batch."""

import torch
from mmengine.dist import all_gather, get_rank, get_world_size
from torch import Tensor


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenates the rows of all processes, which may have different numbers of them.

    A loss that every process computes on the result has, after the averaging of gradients by DistributedDataParallel,
    the gradients of one process with all the rows: only a process's own rows carry a gradient, and it is scaled by the
    number of processes to make up for the averaging.

    Args:
        rows: (n, ...), of the same type and shape but for n in all processes; every process must call.

    Returns:
        (sum of n, ...) in the order of ranks; ``rows`` itself where there is one process.
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
    return values.detach() + (values - values.detach()) * factor

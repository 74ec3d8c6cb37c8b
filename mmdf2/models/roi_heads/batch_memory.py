"""Garments of preceding batches that fill up a batch which is too small to compare garments in."""

import torch
from torch import Tensor, nn

# Labels of a garment that the loss of the match head needs: source, identity, pair_id and category.
NUM_LABELS = 4


class BatchMemory(nn.Module):
    """Keeps the garments of the last batches.

    A match head learns from comparisons within a batch. When a batch has one or two image pairs there is hardly a pair
    of different garments in it, and with garments of the preceding batches there are enough of them. (Wang et al.,
    Cross-Batch Memory for Embedding Learning, CVPR 2020, compare with older garments in the same way.)

    Batches are kept and recalled whole, and are gathered from all processes before, so the memory does not depend on
    how a batch was shared among processes. It is part of a checkpoint, so that a resumed run goes on as it was; a
    checkpoint without it, or of another size, leaves the memory as it is.

    Args:
        size: Garments that a batch is filled up to.
        dims: Length of a garment's projection.
    """

    projections: Tensor
    labels: Tensor
    batches: Tensor
    filled: Tensor

    def __init__(self, size: int, dims: int) -> None:
        super().__init__()
        self.size = size
        # The newest garments come first.
        self.register_buffer('projections', torch.zeros(size, dims))
        self.register_buffer('labels', torch.zeros(size, NUM_LABELS, dtype=torch.long))
        self.register_buffer('batches', torch.zeros(size, dtype=torch.long))
        self.register_buffer('filled', torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def exchange(self, projections: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the garments of a batch, and returns those of the last batches that fit beside them.

        Args:
            projections: (n, dims) result of the match head's ``project``; rows that are not finite are not stored.
            labels: (n, 4) source, identity, pair_id and category.

        Returns:
            Projections (m, dims) and labels (m, 4), with n + m of ``size`` at most; the newest come first.
        """
        finite = projections.isfinite().all(dim=1)
        projections, labels = projections.detach()[finite], labels[finite]
        ends = self.batches[: int(self.filled)].unique_consecutive(return_counts=True)[1].cumsum(dim=0)
        number = max(ends[ends <= self.size - len(projections)].tolist(), default=0)
        earlier = self.projections[:number].clone(), self.labels[:number].clone()
        if len(projections) > self.size:
            projections, labels = projections[:0], labels[:0]
        batches = (self.batches[:1] + 1).expand(len(projections))
        filled = len(projections) + number
        for buffer, new in ((self.projections, projections), (self.labels, labels), (self.batches, batches)):
            buffer[:filled] = torch.cat([new.to(buffer), buffer[:number]])
        self.filled.fill_(filled)
        return earlier

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, *others) -> None:
        found = {name: state_dict.get(prefix + name) for name in self._buffers}
        if any(value is None or value.shape != getattr(self, name).shape for name, value in found.items()):
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *others)

"""Cross-entropy over space, one softmax per landmark."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor


def landmark_loss(groups: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Mean over all labelled landmarks of the cross-entropy between heatmap and hot cell (Mask R-CNN, section 5).

    Args:
        groups: Per category, logits (r, K, S, S), cells (r, K) int64 and valid (r, K) bool; K may differ between
            groups. At least one group, possibly without rows.

    Returns:
        Scalar, float32. 0 when no landmark is valid, with a zero gradient for every logit.
    """
    total, count = 0, 0
    for logits, cells, valid in groups:
        total = total + F.cross_entropy(logits.flatten(2)[valid].float(), cells[valid], reduction='sum')
        count = count + valid.sum()
    return total / count.clamp(min=1)

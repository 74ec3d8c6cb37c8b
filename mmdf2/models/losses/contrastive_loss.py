"""Supervised contrastive loss over pairs: which garment it is, of all in the batch."""

from torch import Tensor

from .match_loss import IGNORED, SAME


def contrastive_loss(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over garments of the cross-entropy of a softmax over the garments that each is compared with.

    A garment of either side with a same one on the other is an anchor. Its loss is the mean, over those that are the
    same, of ``-log softmax(score / temperature)`` with score the logit of 'same' minus the other; pairs that are left
    out are in no softmax. Only differences of an anchor's scores matter, so the bias gets no gradient: this goes beside
    :func:`match_loss`, which fixes the odds, and not in its place.

    Args:
        logits: (M, N, 2), class 0 is 'same'.
        targets: (M, N) int64 as of :func:`pair_targets`.
        temperature: Above 0; below 1 it stresses the nearest garments.

    Returns:
        Scalar, float32; 0 with a zero gradient when there is no same pair.

    Source: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2.
    """
    logits = logits.float()
    scores = (logits[..., 0] - logits[..., 1]) / temperature
    from_rows, rows = _of_anchors(scores, targets)
    from_columns, columns = _of_anchors(scores.T, targets.T)
    return (from_rows + from_columns) / max(rows + columns, 1)


def _of_anchors(scores: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Sum over the rows that have a same pair, and their number."""
    # Rows without one go first: a softmax over nothing has no gradient but NaN.
    anchors = (targets == SAME).any(dim=1)
    scores, targets = scores[anchors], targets[anchors]
    same = targets == SAME
    losses = -scores.masked_fill(targets == IGNORED, -float('inf')).log_softmax(dim=1)
    return (losses.where(same, 0).sum(dim=1) / same.sum(dim=1)).sum(), len(scores)

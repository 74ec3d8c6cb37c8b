"""Supervised contrastive loss over all pairs of the batch: which of all these garments is the same?"""

import torch
from torch import Tensor

from .match_loss import IGNORED, SAME, pair_targets


def contrastive_targets(identities: Tensor, pair_ids: Tensor, is_shop: Tensor) -> Tensor:
    """What each pair of garments of the batch is to the contrastive loss.

    As :func:`pair_targets`, but that a same pair counts only between a consumer's and a shop's garment, which is what a
    search looks for: two crops of one photo are alike without learning anything. Different garments count wherever
    they are.

    Args:
        identities: (n,) identity codes, -1 where there is none.
        pair_ids: (n,) ``pair_id`` of the garment's image, -1 where unknown.
        is_shop: (n,) 1 from a shop's image, 0 from a consumer's, -1 unknown and left out.

    Returns:
        (n, n) int64, symmetric: 0 same, 1 different, -1 left out.
    """
    targets = pair_targets(identities, identities, pair_ids, pair_ids)
    unknown = (is_shop < 0)[:, None] | (is_shop < 0)
    one_side = is_shop[:, None] == is_shop
    return targets.masked_fill(unknown | ((targets == SAME) & one_side), IGNORED)


def contrastive_loss(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over garments of the cross-entropy of a softmax over the garments that each is compared with.

    A row with a same pair is an anchor. Its loss is the mean, over its same pairs, of ``-log softmax(score /
    temperature)`` with score the logit of 'same' minus the other; pairs that are left out are in no softmax. Only
    differences of an anchor's scores matter, so the bias gets no gradient: this goes beside :func:`match_loss`, which
    fixes the odds, and not in its place.

    Args:
        logits: (M, N, 2), class 0 is 'same'.
        targets: (M, N) int64 as of :func:`contrastive_targets`.
        temperature: Above 0; below 1 it stresses the nearest garments.

    Returns:
        Scalar, float32; 0 with a zero gradient when there is no same pair.

    Source: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2.
    """
    logits = logits.float()
    scores = (logits[..., 0] - logits[..., 1]) / temperature
    # Rows without a same pair go first: a softmax over nothing has no gradient but NaN.
    anchors = (targets == SAME).any(dim=1)
    scores, targets = scores[anchors], targets[anchors]
    same = targets == SAME
    losses = -scores.masked_fill(targets == IGNORED, -torch.inf).log_softmax(dim=1)
    return (losses.where(same, 0).sum(dim=1) / same.sum(dim=1)).sum() / max(len(scores), 1)

"""The supervised contrastive loss over all pairs of garments of the batch."""

import torch
from torch import Tensor

from .match_loss import IGNORED, SAME, pair_targets


def contrastive_targets(identities: Tensor, pair_ids: Tensor, is_shop: Tensor) -> Tensor:
    """The target of each pair of garments of the batch for the contrastive loss.

    The targets are those of :func:`pair_targets`, except that a same pair counts only between a user's and a shop's
    garment. That is what a search looks for; two crops of one photo are similar without any learning. Different
    garments count whatever their sources are.

    Args:
        identities: (n,) identity codes of the garments, -1 for none.
        pair_ids: (n,) ``pair_id`` of each garment's image, -1 when unknown.
        is_shop: (n,) source of each garment's image: 1 for a shop image, 0 for a user image, -1 when unknown; garments
            of unknown source are left out.

    Returns:
        (n, n) int64, symmetric: 0 same, 1 different, -1 left out.
    """
    targets = pair_targets(identities, identities, pair_ids, pair_ids)
    unknown = (is_shop < 0)[:, None] | (is_shop < 0)
    one_side = is_shop[:, None] == is_shop
    return targets.masked_fill(unknown | ((targets == SAME) & one_side), IGNORED)


def contrastive_loss(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of a softmax over all garments that a garment is compared with, averaged over garments.

    A row with a same pair is an anchor. Its loss is the mean, over its same pairs, of ``-log softmax(score /
    temperature)``, where the score is the logit of 'same' minus that of 'different'; pairs that are left out are in no
    softmax. Only differences between the scores of an anchor matter, so the bias gets no gradient. This loss therefore
    complements :func:`match_loss`, which sets the odds, and does not replace it.

    Args:
        logits: (M, N, 2) logits of the pairs; class 0 is 'same'.
        targets: (M, N) int64 targets from :func:`contrastive_targets`.
        temperature: Temperature of the softmax, above 0; values below 1 emphasise the nearest garments.

    Returns:
        Scalar, float32; 0 with a zero gradient when there are no same pairs.

    Source: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2.
    """
    logits = logits.float()
    scores = (logits[..., 0] - logits[..., 1]) / temperature
    # Rows without a same pair are removed first, because the gradient of a softmax over no entries is NaN.
    anchors = (targets == SAME).any(dim=1)
    scores, targets = scores[anchors], targets[anchors]
    same = targets == SAME
    losses = -scores.masked_fill(targets == IGNORED, -torch.inf).log_softmax(dim=1)
    return (losses.where(same, 0).sum(dim=1) / same.sum(dim=1)).sum() / max(len(scores), 1)

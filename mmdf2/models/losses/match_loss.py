"""The loss over pairs of garments with the two classes 'same' and 'different'."""

import torch
import torch.nn.functional as F
from torch import Tensor

SAME, DIFFERENT, IGNORED = 0, 1, -1


def pair_targets(
    query_identities: Tensor, gallery_identities: Tensor, query_pair_ids: Tensor, gallery_pair_ids: Tensor
) -> Tensor:
    """The target of each pair of a query and a gallery garment.

    Garments of equal identity are the same. A garment without identity (-1) may be any garment of its own image pair,
    so a pair with such a garment and equal ``pair_id`` is left out. All other garments are different.

    Args:
        query_identities: (M,) identity codes of the query garments, -1 for none.
        gallery_identities: (N,) identity codes of the gallery garments, -1 for none.
        query_pair_ids: (M,) ``pair_id`` of the images of the query garments, -1 when unknown.
        gallery_pair_ids: (N,) ``pair_id`` of the images of the gallery garments, -1 when unknown.

    Returns:
        (M, N) int64: 0 same, 1 different, -1 left out.
    """
    same = query_identities[:, None] == gallery_identities
    unknown = (query_identities < 0)[:, None] | (gallery_identities < 0)
    related = (query_pair_ids[:, None] == gallery_pair_ids) | (query_pair_ids < 0)[:, None] | (gallery_pair_ids < 0)
    targets = torch.where(same, SAME, DIFFERENT)
    return torch.where(unknown, torch.where(related, IGNORED, DIFFERENT), targets)


def pair_weights(targets: Tensor, query_labels: Tensor, gallery_labels: Tensor, same_category_weight: float) -> Tensor:
    """The weight of each pair when different garments of the same category, the hard negatives, have another weight.

    Args:
        targets: (M, N) int64 targets from :func:`pair_targets`.
        query_labels: (M,) category labels of the query garments.
        gallery_labels: (N,) category labels of the gallery garments.
        same_category_weight: Weight of a pair of different garments of the same category; all other pairs have the
            weight 1.

    Returns:
        (M, N) float32 weights.
    """
    hard = (targets == DIFFERENT) & (query_labels[:, None] == gallery_labels)
    return torch.ones_like(targets, dtype=torch.float32).masked_fill(hard, same_category_weight)


def match_loss(
    logits: Tensor, targets: Tensor, positive_share: float | None = None, weights: Tensor | None = None
) -> Tensor:
    """Softmax cross-entropy over pairs.

    Args:
        logits: (M, N, 2) logits of the pairs; class 0 is 'same'.
        targets: (M, N) int64 targets from :func:`pair_targets`.
        positive_share: With None the loss is one mean over all pairs, in which same pairs count by their number: with
            B image pairs per batch about one pair in B is the same. Otherwise ``positive_share`` is the weight of the
            mean over the same pairs, and the mean over the different pairs has the remaining weight.
        weights: (M, N) weight of each pair in these means; None for 1.

    Returns:
        Scalar, float32. When there are no same pairs, or no different ones, their mean is 0; the loss is 0 with a zero
        gradient when there are no pairs.
    """
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction='none', ignore_index=IGNORED)
    losses = losses.view_as(targets)
    if weights is None:
        weights = torch.ones_like(losses)
    if positive_share is None:
        return _mean(losses, weights * (targets != IGNORED))
    same = _mean(losses, weights * (targets == SAME))
    different = _mean(losses, weights * (targets == DIFFERENT))
    return positive_share * same + (1 - positive_share) * different


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean; 0 when all weights are 0."""
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)

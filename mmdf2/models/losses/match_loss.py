"""Two-class loss over pairs of garments: same or different."""

import torch
import torch.nn.functional as F
from torch import Tensor

SAME, DIFFERENT, IGNORED = 0, 1, -1


def pair_targets(
    query_identities: Tensor, gallery_identities: Tensor, query_pair_ids: Tensor, gallery_pair_ids: Tensor
) -> Tensor:
    """What each pair of a query and a gallery garment should be called.

    Equal known identities are the same garment. A garment without identity (-1) may be any garment of its own image
    pair, so pairs of equal ``pair_id`` with an unknown side teach nothing; every other pair is a different garment.

    Args:
        query_identities: (M,) identity codes, -1 where there is none.
        gallery_identities: (N,).
        query_pair_ids: (M,) ``pair_id`` of the garment's image, -1 where unknown.
        gallery_pair_ids: (N,).

    Returns:
        (M, N) int64: 0 same, 1 different, -1 left out.
    """
    same = query_identities[:, None] == gallery_identities
    unknown = (query_identities < 0)[:, None] | (gallery_identities < 0)
    related = (query_pair_ids[:, None] == gallery_pair_ids) | (query_pair_ids < 0)[:, None] | (gallery_pair_ids < 0)
    targets = torch.where(same, SAME, DIFFERENT)
    return torch.where(unknown, torch.where(related, IGNORED, DIFFERENT), targets)


def pair_weights(targets: Tensor, query_labels: Tensor, gallery_labels: Tensor, same_category_weight: float) -> Tensor:
    """How much each pair counts when different garments of one category, the hard negatives, count more.

    Args:
        targets: (M, N) int64 as of :func:`pair_targets`.
        query_labels: (M,) category labels.
        gallery_labels: (N,).
        same_category_weight: Of a pair of different garments of one category; every other pair counts 1.

    Returns:
        (M, N) float32.
    """
    hard = (targets == DIFFERENT) & (query_labels[:, None] == gallery_labels)
    return torch.ones_like(targets, dtype=torch.float32).masked_fill(hard, same_category_weight)


def match_loss(
    logits: Tensor, targets: Tensor, positive_share: float | None = None, weights: Tensor | None = None
) -> Tensor:
    """Softmax cross-entropy over pairs.

    Args:
        logits: (M, N, 2), class 0 is 'same'.
        targets: (M, N) int64 as of :func:`pair_targets`.
        positive_share: None: one mean over all pairs, in which same pairs count by their number (about one in the
            batch's image pairs). Else the weight of the mean over the same pairs, the mean over the different ones
            taking the rest.
        weights: (M, N), what each pair counts in those means; None for 1.

    Returns:
        Scalar, float32. A kind of pair that is absent adds 0; 0 with a zero gradient when there is no pair.
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
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)

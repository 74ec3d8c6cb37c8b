"""Losses as pure functions: tensors in, one finite scalar out, zero with a gradient when nothing is labelled."""

from .contrastive_loss import contrastive_loss, contrastive_targets
from .match_loss import DIFFERENT, IGNORED, SAME, match_loss, pair_targets, pair_weights

__all__ = [
    'DIFFERENT',
    'IGNORED',
    'SAME',
    'contrastive_loss',
    'contrastive_targets',
    'match_loss',
    'pair_targets',
    'pair_weights',
]

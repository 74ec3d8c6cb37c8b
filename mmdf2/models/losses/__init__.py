"""The losses over pairs of garments, as pure functions; they are 0 with a zero gradient when no pair counts."""

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

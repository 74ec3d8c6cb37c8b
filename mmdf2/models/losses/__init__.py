"""Losses as pure functions: tensors in, one finite scalar out, zero with a gradient when nothing is labelled."""

from .landmark_loss import landmark_loss
from .match_loss import DIFFERENT, IGNORED, SAME, match_loss, pair_targets

__all__ = ['DIFFERENT', 'IGNORED', 'SAME', 'landmark_loss', 'match_loss', 'pair_targets']

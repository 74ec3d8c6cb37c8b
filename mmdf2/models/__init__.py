"""Match R-CNN: detector, RoI heads and losses. Importing this package registers them and the ``mmdf2://`` weights."""

from . import packaged_weights
from .detectors import MatchRCNN
from .roi_heads import ClothesMaskHead, ClothesRoIHead, ClothesStreamsMixin, ClothingPoseHead, MatchHead

__all__ = [
    'ClothesMaskHead',
    'ClothesRoIHead',
    'ClothesStreamsMixin',
    'ClothingPoseHead',
    'MatchHead',
    'MatchRCNN',
    'packaged_weights',
]

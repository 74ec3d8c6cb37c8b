"""Match R-CNN: detector, RoI heads and losses. Importing this package registers them and the ``mmdf2://`` weights."""

from . import packaged_weights
from .batch_norm import BatchNorm
from .detectors import MatchRCNN
from .roi_heads import ClothesMaskHead, ClothesRoIHead, ClothesStreamsMixin, ClothingPoseHead, MatchHead

__all__ = [
    'BatchNorm',
    'ClothesMaskHead',
    'ClothesRoIHead',
    'ClothesStreamsMixin',
    'ClothingPoseHead',
    'MatchHead',
    'MatchRCNN',
    'packaged_weights',
]

"""Match R-CNN: detector, RoI heads, losses. Importing it registers them."""

from .detectors import MatchRCNN
from .roi_heads import ClothesMaskHead, ClothesRoIHead, ClothesStreamsMixin, ClothingPoseHead, MatchHead

__all__ = ['ClothesMaskHead', 'ClothesRoIHead', 'ClothesStreamsMixin', 'ClothingPoseHead', 'MatchHead', 'MatchRCNN']

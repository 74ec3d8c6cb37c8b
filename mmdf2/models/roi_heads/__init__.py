"""RoI heads: the streams of Match R-CNN, and the head that runs them together."""

from .clothes_mask_head import ClothesMaskHead
from .clothes_roi_head import ClothesRoIHead
from .clothes_streams import ClothesStreamsMixin
from .clothing_pose_head import ClothingPoseHead
from .match_head import MatchHead

__all__ = ['ClothesMaskHead', 'ClothesRoIHead', 'ClothesStreamsMixin', 'ClothingPoseHead', 'MatchHead']

"""Match R-CNN (DeepFashion2, section 4)."""

import torch
from mmdet.models.detectors import TwoStageDetector
from torch import Tensor, nn

from mmdf2.registry import MODELS


@MODELS.register_module()
class MatchRCNN(TwoStageDetector):
    """Mask R-CNN with landmark and matching streams: seven losses, one forward pass.

    Trains under autocast in bfloat16 or float16 on CPU and GPU: proposals, RoIAlign and losses stay in float32.
    Gradient checkpointing is the backbone's ``with_cp``. See :class:`ClothesRoIHead` for what a prediction carries.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        if self.with_rpn:
            self.rpn_head.register_forward_hook(_outputs_in_float32)


def _outputs_in_float32(module: nn.Module, inputs: tuple, outputs: tuple[list[Tensor], ...]) -> tuple:
    """Forward hook: scores and deltas in float32, which decoding and non-maximum suppression need on the CPU."""
    return tuple([level.to(torch.float32) for level in levels] for levels in outputs)

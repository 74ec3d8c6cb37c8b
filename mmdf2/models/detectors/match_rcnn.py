"""Match R-CNN (DeepFashion2, section 4)."""

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.structures import SampleList
from torch import Tensor, nn

from mmdf2.models.mirroring import mirrored_images
from mmdf2.registry import MODELS


@MODELS.register_module()
class MatchRCNN(TwoStageDetector):
    """Mask R-CNN with a landmark and a matching stream: seven losses in one forward pass.

    The model trains under autocast in bfloat16 or float16 on CPU and GPU; proposals, RoIAlign and losses stay in
    float32. The backbone's option ``with_cp`` switches gradient checkpointing on. :class:`ClothesRoIHead` describes the
    fields of a prediction.

    With ``test_cfg.rcnn.flip_average`` every embedding is averaged with that of the same garment instance on the
    mirrored image, which costs a second pass of the backbone. The setting must be the same for queries and gallery.

    Args:
        **kwargs: Arguments of MMDetection's ``TwoStageDetector``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        if self.with_rpn:
            self.rpn_head.register_forward_hook(_outputs_in_float32)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Predicts the garment instances of a batch; for the arguments see the base class."""
        samples = super().predict(batch_inputs, batch_data_samples, rescale)
        head = self.roi_head
        if getattr(head, 'with_match', False) and head.test_cfg.get('flip_average', False):
            images = mirrored_images(batch_inputs, [sample.img_shape[1] for sample in samples])
            head.average_with_mirror(self.extract_feat(images), samples, rescale)
        return samples


def _outputs_in_float32(module: nn.Module, inputs: tuple, outputs: tuple[list[Tensor], ...]) -> tuple:
    """Forward hook: converts scores and deltas to float32, which decoding and NMS need on the CPU."""
    return tuple([level.to(torch.float32) for level in levels] for levels in outputs)

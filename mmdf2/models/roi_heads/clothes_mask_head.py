"""MMDetection's mask head with its convolutions open to other readers."""

import torch
from mmcv.ops import roi_align
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures.mask import BaseInstanceMasks, BitmapMasks
from torch import Tensor

from mmdf2.registry import MODELS


@MODELS.register_module()
class ClothesMaskHead(FCNMaskHead):
    """:class:`mmdet.FCNMaskHead` in two steps, so that the match head can read its features without a second pass.

    Args and weights are FCNMaskHead's: its checkpoints load.
    """

    def forward_features(self, roi_features: Tensor) -> Tensor:
        """The convolutions alone, (n, C, S, S) to (n, conv_out_channels, S, S)."""
        for conv in self.convs:
            roi_features = conv(roi_features)
        return roi_features

    def forward_logits(self, features: Tensor) -> Tensor:
        """Mask logits (n, classes, s, s) from :meth:`forward_features`."""
        if self.upsample is not None:
            features = self.upsample(features)
            if self.upsample_method == 'deconv':
                features = self.relu(features)
        return self.conv_logits(features)

    def forward(self, roi_features: Tensor) -> Tensor:
        """Both steps at once."""
        return self.forward_logits(self.forward_features(roi_features))

    def loss(self, logits: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """``loss_mask`` of logits (n, classes, s, s) against targets (n, s, s) in 0..1, each RoI in its own class."""
        if len(logits) == 0:
            return {'loss_mask': logits.sum() * 0}
        channels = torch.zeros_like(labels) if self.class_agnostic else labels
        return {'loss_mask': self.loss_mask(logits.float(), targets, channels)}


def mask_targets(boxes: Tensor, gt_rows: Tensor, masks: BaseInstanceMasks, size: int) -> Tensor:
    """The part of a garment's mask that lies in a RoI, at the resolution of the mask head.

    Args:
        boxes: (n, 4) RoIs, xyxy.
        gt_rows: (n,) which mask each RoI is to show.
        masks: The image's masks.
        size: Pixels along each side of the result.

    Returns:
        (n, size, size) float32, 0 or 1. Equal to MMDetection's ``mask_target``, whose bitmap branch copies a full-size
        mask for every RoI.
    """
    if len(boxes) == 0:
        return boxes.new_zeros(0, size, size)
    limits = boxes.new_tensor([masks.width, masks.height]).repeat(2)
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    if not isinstance(masks, BitmapMasks):
        crops = masks.crop_and_resize(boxes.cpu().numpy(), (size, size), gt_rows.cpu().numpy())
        return torch.from_numpy(crops.to_ndarray()).to(boxes)
    # RoIAlign reads memory as if it were contiguous.
    bitmaps = torch.from_numpy(masks.masks)[:, None].to(boxes).contiguous()
    rois = torch.cat([gt_rows[:, None].to(boxes), boxes], dim=1)
    return (roi_align(bitmaps, rois, (size, size), 1.0, 0, 'avg', True)[:, 0] >= 0.5).float()

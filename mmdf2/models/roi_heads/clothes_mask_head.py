"""MMDetection's mask head, whose features the match head can read, and the targets of its loss."""

import torch
from mmcv.ops import roi_align
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures.mask import BaseInstanceMasks, BitmapMasks
from torch import Tensor

from mmdf2.registry import MODELS


@MODELS.register_module()
class ClothesMaskHead(FCNMaskHead):
    """:class:`mmdet.FCNMaskHead` in two steps, so that the match head can read its features without a second pass.

    Arguments and weights are those of FCNMaskHead, so its checkpoints load.
    """

    def forward_features(self, roi_features: Tensor) -> Tensor:
        """Applies the convolutions, (n, C, S, S) to (n, conv_out_channels, S, S)."""
        for conv in self.convs:
            roi_features = conv(roi_features)
        return roi_features

    def forward_logits(self, features: Tensor) -> Tensor:
        """Mask logits (n, classes, s, s) from the result of :meth:`forward_features`."""
        if self.upsample is not None:
            features = self.upsample(features)
            if self.upsample_method == 'deconv':
                features = self.relu(features)
        return self.conv_logits(features)

    def forward(self, roi_features: Tensor) -> Tensor:
        """Mask logits (n, classes, s, s) from RoI features (n, C, S, S)."""
        return self.forward_logits(self.forward_features(roi_features))

    def loss(
        self, logits: Tensor, targets: Tensor, labels: Tensor, avg_factor: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The loss of the mask of each RoI's own class.

        Args:
            logits: (n, classes, s, s).
            targets: (n, s, s) in 0..1.
            labels: (n,) category labels of the RoIs.
            avg_factor: What the sum over RoIs is divided by; by default their number.

        Returns:
            A dict with the scalar ``loss_mask``, 0 with a zero gradient when there are no RoIs.
        """
        if len(logits) == 0:
            return {'loss_mask': logits.sum() * 0}
        channels = torch.zeros_like(labels) if self.class_agnostic else labels
        # MMDetection's function returns a vector of one element.
        loss = self.loss_mask(logits.float(), targets, channels).sum()
        return {'loss_mask': loss if avg_factor is None else loss * (len(logits) / avg_factor)}


def mask_targets(boxes: Tensor, gt_rows: Tensor, masks: BaseInstanceMasks, size: int) -> Tensor:
    """The parts of ground-truth masks that lie in RoIs, at the resolution of the mask head.

    The result equals that of MMDetection's ``mask_target``, which copies a full-size bitmap per RoI.

    Args:
        boxes: (n, 4) RoIs, xyxy.
        gt_rows: (n,) row of each RoI's mask among ``masks``.
        masks: The masks of the image's garment instances.
        size: Pixels along each side of the result.

    Returns:
        (n, size, size) float32, 0 or 1.
    """
    if len(boxes) == 0:
        return boxes.new_zeros(0, size, size)
    limits = boxes.new_tensor([masks.width, masks.height]).repeat(2)
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    if not isinstance(masks, BitmapMasks):
        crops = masks.crop_and_resize(boxes.cpu().numpy(), (size, size), gt_rows.cpu().numpy())
        return torch.from_numpy(crops.to_ndarray()).to(boxes)
    # RoIAlign reads the memory as if it were contiguous.
    bitmaps = torch.from_numpy(masks.masks)[:, None].to(boxes).contiguous()
    rois = torch.cat([gt_rows[:, None].to(boxes), boxes], dim=1)
    return (roi_align(bitmaps, rois, (size, size), 1.0, 0, 'avg', True)[:, 0] >= 0.5).float()

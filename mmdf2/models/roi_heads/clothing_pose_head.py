"""The landmark stream: RoI features to one heatmap for each landmark of the RoI's category."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdf2.categories import LANDMARK_COUNTS, LANDMARK_OFFSETS, MAX_LANDMARKS, TOTAL_LANDMARKS
from mmdf2.codecs.roi_heatmap import decode_heatmaps, encode_cells
from mmdf2.registry import MODELS


class CategoryLogits(NamedTuple):
    """Landmark logits of the RoIs of one category.

    Attributes:
        label: 0-based category label.
        rows: (r,) int64, rows of these RoIs in the batch.
        logits: (r, K, S, S), K the category's own landmarks.
    """

    label: int
    rows: Tensor
    logits: Tensor


class CategoryDeconv(nn.ConvTranspose2d):
    """Deconvolution (4 x 4, stride 2) to the 294 landmark channels that computes each RoI's own category only.

    Weight and bias are those of the dense layer, so a dense checkpoint loads. The landmarks of the 13 categories make
    8 to 39 of the 294 channels: the work and the memory fall to a thirteenth on average.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, TOTAL_LANDMARKS, kernel_size=4, stride=2, padding=1)

    def forward(self, features: Tensor, labels: Tensor) -> list[CategoryLogits]:
        """Logits per category present.

        Args:
            features: (n, in_channels, S / 2, S / 2).
            labels: (n,) int64, 0 to 12.

        Returns:
            One entry per category present, in the order of labels; rows partition 0..n-1. Without any RoI one entry
            without rows, so that weight and bias take part in the backward pass all the same.
        """
        rows_by_label = labels.argsort(stable=True).split(
            torch.bincount(labels, minlength=len(LANDMARK_COUNTS)).tolist()
        )
        present = [label for label, rows in enumerate(rows_by_label) if len(rows)] or [0]
        return [
            CategoryLogits(label, rows_by_label[label], self._category_logits(features[rows_by_label[label]], label))
            for label in present
        ]

    def _category_logits(self, features: Tensor, label: int) -> Tensor:
        start = int(LANDMARK_OFFSETS[label])
        channels = slice(start, start + int(LANDMARK_COUNTS[label]))
        return F.conv_transpose2d(
            features, self.weight[:, channels], self.bias[channels], stride=self.stride, padding=self.padding
        )


@MODELS.register_module()
class ClothingPoseHead(BaseModule):
    """Convolutions, then deconvolutions that each double the resolution, the last of them the predictor.

    The defaults are the DeepFashion2 paper's (section 4): eight convolutions and two deconvolutions turn 14 x 14
    features into 56 x 56 heatmaps. One head serves all 13 categories; only the channels of each RoI's own category are
    computed (see :class:`CategoryDeconv`). It takes RoI features, boxes and labels from whoever proposed them.

    Args:
        num_convs: 3 x 3 convolutions before the deconvolutions.
        in_channels: Channels of the RoI features.
        conv_channels: Channels of each convolution, and of the features that :class:`MatchHead` may read.
        num_deconvs: Doublings of the resolution, at least 1.
        norm_cfg: Norm layer after each convolution, none by default.
        roi_scale: RoIs are grown by this factor about their centre before features are cut out of them. Landmarks
            sit on a garment's border, where a box that is a little too small loses them.
        loss_weight: Weight of ``loss_keypoint``.

    Raises:
        ValueError: ``num_deconvs`` is below 1.
    """

    def __init__(
        self,
        num_convs: int = 8,
        in_channels: int = 256,
        conv_channels: int = 512,
        num_deconvs: int = 2,
        norm_cfg: dict | None = None,
        roi_scale: float = 1.0,
        loss_weight: float = 1.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        if num_deconvs < 1:
            raise ValueError(f'ClothingPoseHead: num_deconvs must be 1 or more (the last predicts), got {num_deconvs}')
        # The predictor starts with flat heatmaps: a loss of log(cells), whatever the features.
        default_init = [
            {'type': 'Kaiming', 'layer': ['Conv2d', 'ConvTranspose2d'], 'mode': 'fan_out', 'nonlinearity': 'relu'},
            {'type': 'Normal', 'std': 0.001, 'override': {'name': 'predictor'}},
        ]
        super().__init__(init_cfg=default_init if init_cfg is None else init_cfg)
        widths = [in_channels] + [conv_channels] * num_convs
        self.convs = nn.Sequential(
            *(
                ConvModule(before, after, 3, padding=1, norm_cfg=norm_cfg)
                for before, after in itertools.pairwise(widths)
            )
        )
        self.deconvs = nn.Sequential(*(_deconv(widths[-1], widths[-1]) for _ in range(num_deconvs - 1)))
        self.predictor = CategoryDeconv(widths[-1])
        self.roi_scale = roi_scale
        self.loss_weight = loss_weight

    def forward_features(self, roi_features: Tensor) -> Tensor:
        """The convolutions alone, (n, C, S, S) to (n, conv_channels, S, S): what the match head may read."""
        return self.convs(roi_features)

    def forward_logits(self, features: Tensor, labels: Tensor) -> list[CategoryLogits]:
        """Heatmap logits of each RoI's own category from :meth:`forward_features`; labels (n,) are 0-based."""
        return self.predictor(self.deconvs(features), labels)

    def forward(self, roi_features: Tensor, labels: Tensor) -> list[CategoryLogits]:
        """Both steps at once: RoI features (n, C, S, S) and labels (n,) to logits per category."""
        return self.forward_logits(self.forward_features(roi_features), labels)

    def loss(self, groups: list[CategoryLogits], boxes: Tensor, points: Tensor, visible: Tensor) -> dict[str, Tensor]:
        """Loss against the landmarks of the garment that each RoI was assigned to.

        Visible and occluded landmarks count alike; those not labelled or outside their RoI do not.

        Args:
            groups: Logits of n RoIs.
            boxes: (n, 4) the RoIs that the features came from.
            points: (n, 39, 2) landmarks in the coordinates of the boxes.
            visible: (n, 39) 0 not labelled, 1 occluded, 2 visible.

        Returns:
            ``loss_keypoint``, a scalar.
        """
        cells, inside = encode_cells(boxes, points, size=groups[0].logits.shape[-1])
        valid = inside & (visible > 0)

        def own(values: Tensor, group: CategoryLogits) -> Tensor:
            return values[group.rows, : group.logits.shape[1]]

        loss = landmark_loss((group.logits, own(cells, group), own(valid, group)) for group in groups)
        return {'loss_keypoint': self.loss_weight * loss}

    def predict(self, groups: list[CategoryLogits], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks of n RoIs.

        Args:
            groups: Logits of n RoIs.
            boxes: (n, 4) the RoIs that the features came from.

        Returns:
            Keypoints (n, 39, 2) in the coordinates of the boxes and scores (n, 39) in 0..1; both 0 beyond the
            category's own landmarks.
        """
        keypoints = boxes.new_zeros(len(boxes), MAX_LANDMARKS, 2)
        scores = boxes.new_zeros(len(boxes), MAX_LANDMARKS)
        for group in groups:
            count = group.logits.shape[1]
            keypoints[group.rows, :count], scores[group.rows, :count] = decode_heatmaps(
                group.logits.to(boxes), boxes[group.rows]
            )
        return keypoints, scores


def landmark_loss(groups: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Mean over all labelled landmarks of the cross-entropy between heatmap and hot cell (Mask R-CNN, section 5).

    Args:
        groups: Per category, logits (r, K, S, S), cells (r, K) int64 and valid (r, K) bool; K may differ between
            groups. At least one group, possibly without rows.

    Returns:
        Scalar, float32. 0 when no landmark is valid, with a zero gradient for every logit.
    """
    total, count = 0, 0
    for logits, cells, valid in groups:
        total = total + F.cross_entropy(logits.flatten(2)[valid].float(), cells[valid], reduction='sum')
        count = count + valid.sum()
    return total / count.clamp(min=1)


def scale_boxes_about_centre(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (n, 4) xyxy grown ``factor`` times about their centres; they may leave the image."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def _deconv(in_channels: int, out_channels: int) -> nn.Sequential:
    deconv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1)
    return nn.Sequential(deconv, nn.ReLU(inplace=True))

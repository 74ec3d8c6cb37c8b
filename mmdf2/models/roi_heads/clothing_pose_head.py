"""The landmark head: from RoI features to one heatmap per landmark of the RoI's category, their loss and prediction.

``mmdf2.codecs.roi_heatmap`` converts landmarks to cells of the heatmap and heatmaps to landmarks.
"""

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
        logits: (r, K, S, S), with one channel for each of the category's K landmarks.
    """

    label: int
    rows: Tensor
    logits: Tensor


class CategoryDeconv(nn.ConvTranspose2d):
    """A deconvolution (4 x 4, stride 2) to 294 landmark channels that computes only those of each RoI's category.

    Weight and bias are those of the dense layer, so a dense checkpoint loads. A category has 8 to 39 of the 294
    channels: work and memory fall to a thirteenth on average.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, TOTAL_LANDMARKS, kernel_size=4, stride=2, padding=1)

    def forward(self, features: Tensor, labels: Tensor) -> list[CategoryLogits]:
        """Computes the logits of all RoIs, grouped by category.

        Args:
            features: (n, in_channels, S / 2, S / 2).
            labels: (n,) int64 category labels, 0 to 12.

        Returns:
            One entry per category that occurs, in the order of labels; together their rows are 0..n-1. When there are
            no RoIs there is one entry without rows, so that weight and bias still take part in the backward pass.
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
    """Convolutions, then deconvolutions that each double the resolution; the last deconvolution is the predictor.

    The defaults are those of the DeepFashion2 paper (section 4): eight convolutions and two deconvolutions turn 14 x 14
    features into 56 x 56 heatmaps. One head serves all 13 categories; only the channels of each RoI's own category are
    computed (see :class:`CategoryDeconv`). The head takes RoI features, boxes and labels, wherever they come from.

    Args:
        num_convs: Number of 3 x 3 convolutions before the deconvolutions.
        in_channels: Channels of the RoI features.
        conv_channels: Channels of each convolution, and of the features that :class:`MatchHead` may read.
        num_deconvs: Number of deconvolutions, at least 1.
        norm_cfg: Norm layer after each convolution; none by default.
        roi_scale: Factor by which RoIs are grown about their centre before their features are extracted. Landmarks
            lie on a garment's border, so a box that is slightly too small loses them.
        loss_weight: Weight of ``loss_keypoint``.
        init_cfg: MMEngine's config of the initial weights; by default Kaiming's, and for the predictor a normal
            distribution of standard deviation 0.001.

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
        # The predictor starts with flat heatmaps: the loss is log(number of cells), whatever the features are.
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
        """Applies the convolutions, (n, C, S, S) to (n, conv_channels, S, S); the match head may read the result."""
        return self.convs(roi_features)

    def forward_logits(self, features: Tensor, labels: Tensor) -> list[CategoryLogits]:
        """Logits per category from the result of :meth:`forward_features` and the labels (n,), 0-based."""
        return self.predictor(self.deconvs(features), labels)

    def forward(self, roi_features: Tensor, labels: Tensor) -> list[CategoryLogits]:
        """Logits per category from RoI features (n, C, S, S) and labels (n,), 0-based."""
        return self.forward_logits(self.forward_features(roi_features), labels)

    def loss(
        self,
        groups: list[CategoryLogits],
        boxes: Tensor,
        points: Tensor,
        visible: Tensor,
        avg_factor: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss against the landmarks of the garment instance that each RoI was assigned to.

        Visible and occluded landmarks count equally; landmarks that are not labelled or lie outside their RoI do not
        count.

        Args:
            groups: Logits of n RoIs.
            boxes: (n, 4) xyxy of the RoIs that the features were extracted from.
            points: (n, 39, 2) landmarks in the coordinates of the boxes.
            visible: (n, 39) visibility of the landmarks: 0 not labelled, 1 occluded, 2 visible.
            avg_factor: What the sum over landmarks is divided by; by default the number of those that count.

        Returns:
            A dict with the scalar ``loss_keypoint``.
        """
        cells, valid = landmark_targets(boxes, points, visible, size=groups[0].logits.shape[-1])

        def own(values: Tensor, group: CategoryLogits) -> Tensor:
            return values[group.rows, : group.logits.shape[1]]

        loss = landmark_loss(((group.logits, own(cells, group), own(valid, group)) for group in groups), avg_factor)
        return {'loss_keypoint': self.loss_weight * loss}

    def predict(self, groups: list[CategoryLogits], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The landmarks of n RoIs.

        Args:
            groups: Logits of the RoIs.
            boxes: (n, 4) xyxy of the RoIs that the features were extracted from.

        Returns:
            Landmarks (n, 39, 2) in the coordinates of the boxes, and scores (n, 39) in 0..1; both are 0 in the padding
            beyond the category's own landmarks.
        """
        keypoints = boxes.new_zeros(len(boxes), MAX_LANDMARKS, 2)
        scores = boxes.new_zeros(len(boxes), MAX_LANDMARKS)
        for group in groups:
            count = group.logits.shape[1]
            keypoints[group.rows, :count], scores[group.rows, :count] = decode_heatmaps(
                group.logits.to(boxes), boxes[group.rows]
            )
        return keypoints, scores


def landmark_targets(boxes: Tensor, points: Tensor, visible: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The hot cell of each landmark, and which landmarks count: those that are labelled and lie inside their RoI.

    Args:
        boxes: (n, 4) xyxy of the RoIs.
        points: (n, 39, 2) landmarks in the coordinates of the boxes.
        visible: (n, 39) visibility of the landmarks: 0 not labelled, 1 occluded, 2 visible.
        size: Cells along each side of a heatmap; which landmarks count does not depend on it.

    Returns:
        Cells (n, 39) int64, and valid (n, 39) bool.
    """
    cells, inside = encode_cells(boxes, points, size)
    return cells, inside & (visible > 0)


def landmark_loss(groups: Iterable[tuple[Tensor, Tensor, Tensor]], avg_factor: Tensor | float | None = None) -> Tensor:
    """Mean, over all valid landmarks, of the cross-entropy between heatmap and hot cell (Mask R-CNN, section 5).

    The softmax of a landmark is over the cells of its heatmap.

    Args:
        groups: At least one group of RoIs of the same category, possibly empty: logits (r, K, S, S), hot cells (r, K)
            int64 and valid (r, K) bool. K may differ between groups.
        avg_factor: What the sum over landmarks is divided by; by default the number of valid landmarks.

    Returns:
        Scalar, float32. When no landmark is valid it is 0, with a zero gradient for every logit.
    """
    total, count = 0, 0
    for logits, cells, valid in groups:
        total = total + F.cross_entropy(logits.flatten(2)[valid].float(), cells[valid], reduction='sum')
        count = count + valid.sum()
    return total / (count.clamp(min=1) if avg_factor is None else avg_factor)


def scale_boxes_about_centre(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (n, 4) xyxy, grown by ``factor`` about their centres; they may extend beyond the image."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def _deconv(in_channels: int, out_channels: int) -> nn.Sequential:
    deconv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1)
    return nn.Sequential(deconv, nn.ReLU(inplace=True))

"""The pose head's last layer: one slice of channels per clothing category, of which each RoI needs only its own."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdf2.categories import LANDMARK_COUNTS, LANDMARK_OFFSETS, TOTAL_LANDMARKS


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

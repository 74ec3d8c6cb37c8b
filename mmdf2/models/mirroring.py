"""Mirrored images, and the boxes on them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def mirrored_images(images: Tensor, widths: Sequence[int]) -> Tensor:
    """Mirrors the images of a batch left to right; the padding stays on the right.

    A mirrored image is therefore, pixel by pixel, what the pipeline would have made of a mirrored photo.

    Args:
        images: (n, C, H, W) images, each padded on the right.
        widths: Width of each image without its padding, at most W.
    """
    mirrored = images.clone()
    for image, source, width in zip(mirrored, images, widths, strict=True):
        image[..., :width] = source[..., :width].flip(-1)
    return mirrored


def mirrored_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes (n, 4) x1, y1, x2, y2 on an image of the given width, as they lie on its mirror image."""
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)

"""Landmarks as one hot cell of a heatmap laid over a RoI (Mask R-CNN, section 5).

A RoI ``(x1, y1, x2, y2)`` is cut into ``size x size`` equal cells. Cell ``i`` covers ``[i, i + 1)`` of the RoI's own
units and stands for its centre ``i + 0.5``: image coordinates are continuous, a pixel's centre lies at half.
"""

import torch
from torch import Tensor

# Below this extent a RoI has no cells to speak of; the clamp keeps degenerate boxes finite.
MIN_EXTENT = 1e-3


def encode_cells(boxes: Tensor, points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cell of each landmark within its RoI.

    Args:
        boxes: (n, 4) RoIs, xyxy.
        points: (n, K, 2) landmarks x, y in the coordinates of the boxes.
        size: Cells along each side.

    Returns:
        Cells (n, K) int64, row-major ``y * size + x``, 0 where outside; inside (n, K) bool, borders included.
    """
    origin, extent = _origin_and_extent(boxes)
    relative = (points - origin) / extent
    inside = ((relative >= 0) & (relative <= 1)).all(dim=-1)
    # A landmark on the far border belongs to the last cell.
    column, row = (relative * size).floor().clamp(0, size - 1).long().unbind(dim=-1)
    return torch.where(inside, row * size + column, 0), inside


def decode_heatmaps(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Most likely place of each landmark, finer than a cell, and how sure the heatmap is of it.

    The peak cell is refined by the vertex of the parabola through its log-probability and its two neighbours' along
    each axis, which is exact for a Gaussian; the answer never leaves the peak cell.

    Args:
        logits: (n, K, S, S), a softmax over the S * S cells gives the probability of each.
        boxes: (n, 4) RoIs, xyxy.

    Returns:
        Points (n, K, 2) in the coordinates of the boxes; scores (n, K) in 0..1, the probability that the landmark lies
        in the 3 x 3 cells around the peak.
    """
    num_rois, num_landmarks, size = logits.shape[:3]
    log_probability = logits.flatten(2).log_softmax(dim=-1)
    peak = log_probability.argmax(dim=-1, keepdim=True)
    window, inside = _window_around(log_probability, peak, size)
    scores = (window.exp() * inside).sum(dim=(-1, -2)).clamp(max=1)
    inside_x, inside_y = inside[..., 1, :], inside[..., :, 1]
    offset = torch.stack([_vertex(window[..., 1, :], inside_x), _vertex(window[..., :, 1], inside_y)], dim=-1)
    cell = torch.cat([peak % size, peak // size], dim=-1)
    origin, extent = _origin_and_extent(boxes)
    points = origin + extent * (cell + 0.5 + offset).to(extent) / size
    return points.view(num_rois, num_landmarks, 2), scores


def _origin_and_extent(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Top left corners and (width, height) of (n, 4) boxes, each (n, 1, 2)."""
    origin = boxes[:, None, :2]
    return origin, (boxes[:, None, 2:] - origin).clamp(min=MIN_EXTENT)


def _window_around(maps: Tensor, peak: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The 3 x 3 values around ``peak`` (n, K, 1) of flat maps (n, K, S * S), and which of them lie on the map."""
    step = torch.arange(-1, 2, device=maps.device)
    rows, columns = peak // size + step, peak % size + step
    inside = ((rows >= 0) & (rows < size))[..., :, None] & ((columns >= 0) & (columns < size))[..., None, :]
    cells = rows.clamp(0, size - 1)[..., :, None] * size + columns.clamp(0, size - 1)[..., None, :]
    window = maps.gather(-1, cells.flatten(-2)).unflatten(-1, (3, 3))
    return window, inside


def _vertex(values: Tensor, inside: Tensor) -> Tensor:
    """Offset (n, K), within half a cell, of the parabola's vertex through values (n, K, 3) at -1, 0, 1.

    0 where the peak touches the map's border or its neighbours are as high as itself.
    """
    left, centre, right = values.unbind(dim=-1)
    curvature = 2 * centre - left - right
    usable = inside.all(dim=-1) & (curvature > 1e-6)
    offset = (right - left) / (2 * torch.where(usable, curvature, 1))
    return torch.where(usable, offset, 0).clamp(-0.5, 0.5)

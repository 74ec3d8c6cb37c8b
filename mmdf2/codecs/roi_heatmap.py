"""Landmarks as one-hot heatmaps over a RoI (Mask R-CNN, section 5): encoding to cells and decoding of logits.

A RoI ``(x1, y1, x2, y2)`` is divided into ``size x size`` equal cells. Cell ``i`` covers ``[i, i + 1)`` in units of
cells and stands for its centre ``i + 0.5``: image coordinates are continuous, and the centre of a pixel lies at half.
"""

import torch
from torch import Tensor

# Least width and height of a RoI in pixels, which keeps the cells of degenerate boxes finite.
MIN_EXTENT = 1e-3
# Decoding looks at this many cells on each side of the peak.
WINDOW_RADIUS = 3


def encode_cells(boxes: Tensor, points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Finds the cell of each landmark within its RoI.

    Args:
        boxes: (n, 4) RoIs, xyxy.
        points: (n, K, 2) landmarks x, y in the coordinates of the boxes.
        size: Cells along each side.

    Returns:
        Cells (n, K) int64, row-major ``y * size + x``, 0 for landmarks outside the RoI; and inside (n, K) bool, whether
        the landmark lies in the RoI or on its border.
    """
    origin, extent = _origin_and_extent(boxes)
    relative = (points - origin) / extent
    inside = ((relative >= 0) & (relative <= 1)).all(dim=-1)
    # A landmark on the far border belongs to the last cell.
    column, row = (relative * size).floor().clamp(0, size - 1).long().unbind(dim=-1)
    return torch.where(inside, row * size + column, 0), inside


def decode_heatmaps(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the most likely position of each landmark, finer than a cell, and its score.

    Along each axis, a parabola is fitted to the log-probabilities around the peak cell, where each cell is weighted by
    its probability; the vertex is the position. The fit is exact for a Gaussian of any width, as is the parabola
    through three cells. With noise on the logits, its error is as small as that of the mean over the window, which is
    biased when there is no noise.

    Args:
        logits: (n, K, S, S); a softmax over the S * S cells gives their probabilities.
        boxes: (n, 4) RoIs, xyxy.

    Returns:
        Points (n, K, 2) in the coordinates of the boxes and inside them; and scores (n, K) in 0..1, the probability
        that the landmark lies in the 7 x 7 cells around the peak.
    """
    size = logits.shape[-1]
    probability = logits.flatten(2).softmax(dim=-1)
    peak = probability.argmax(dim=-1, keepdim=True)
    window = _window_around(probability, peak, size)
    offset = torch.stack([_vertex(window.sum(dim=-2)), _vertex(window.sum(dim=-1))], dim=-1)
    cell = torch.cat([peak % size, peak // size], dim=-1)
    origin, extent = _origin_and_extent(boxes)
    points = origin + extent * ((cell + 0.5 + offset).clamp(0, size) / size).to(extent)
    return points, window.sum(dim=(-1, -2)).clamp(max=1)


def _origin_and_extent(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Top left corners and (width, height) of (n, 4) boxes, each (n, 1, 2)."""
    origin = boxes[:, None, :2]
    return origin, (boxes[:, None, 2:] - origin).clamp(min=MIN_EXTENT)


def _window_around(maps: Tensor, peak: Tensor, size: int) -> Tensor:
    """The (n, K, 7, 7) values around ``peak`` (n, K, 1) of flat maps (n, K, S * S), 0 beyond the map."""
    step = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1, device=maps.device)
    rows, columns = peak // size + step, peak % size + step
    inside = ((rows >= 0) & (rows < size))[..., :, None] & ((columns >= 0) & (columns < size))[..., None, :]
    cells = rows.clamp(0, size - 1)[..., :, None] * size + columns.clamp(0, size - 1)[..., None, :]
    return maps.gather(-1, cells.flatten(-2)).view_as(cells) * inside


def _vertex(probability: Tensor) -> Tensor:
    """Fits a parabola to log ``probability`` (n, K, 7), weighted by it; returns its vertex's offset from the middle.

    A cell counts only if its mirror image lies on the map too: a window that is cut off on one side would shift even
    a single peak to the other side. The offset is (n, K), and 0 where the fit has no maximum.
    """
    probability = probability * (probability.flip(-1) > 0)
    x = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1, device=probability.device).to(probability)
    weight = probability / probability.sum(dim=-1, keepdim=True)
    y = torch.where(probability > 0, probability, 1).log()

    def covariance(a: Tensor, b: Tensor) -> Tensor:
        mean_a = (weight * a).sum(dim=-1, keepdim=True)
        return (weight * (a - mean_a) * b).sum(dim=-1)

    # Least squares of y on x and x^2; the determinant cancels in the vertex -b / 2a.
    linear = covariance(x, y) * covariance(x**2, x**2) - covariance(x**2, y) * covariance(x, x**2)
    quadratic = covariance(x**2, y) * covariance(x, x) - covariance(x, y) * covariance(x, x**2)
    usable = quadratic < 0
    offset = -linear / (2 * torch.where(usable, quadratic, -1))
    return torch.where(usable, offset, 0).clamp(-WINDOW_RADIUS, WINDOW_RADIUS)

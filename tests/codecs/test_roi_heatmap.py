import math

import pytest
import torch

from mmdf2.codecs.roi_heatmap import decode_heatmaps, encode_cells


def one_hot_logits(cells, size, height=30.0):
    logits = torch.zeros(*cells.shape, size * size, dtype=torch.float64)
    return logits.scatter_(-1, cells[..., None], height).unflatten(-1, (size, size))


def random_boxes(count, generator):
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 300 - 50
    extent = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 200 + 5
    return torch.cat([corner, corner + extent], dim=1)


def gaussian_logits(centres, sigma, size):
    """Log-probabilities of Gaussians integrated over each cell; ``centres`` (n, K, 2) are in units of cells."""
    edges = torch.arange(size + 1, dtype=torch.float64)
    cumulative = 0.5 * (1 + torch.erf((edges - centres[..., None]) / (sigma * math.sqrt(2))))
    along = cumulative.diff(dim=-1).clamp(min=1e-30).log()
    return along[..., 1, :, None] + along[..., 0, None, :]


@pytest.mark.parametrize('size', [14, 28, 56])
def test_roundtrip_is_within_half_a_cell_and_unbiased(size):
    generator = torch.Generator().manual_seed(size)
    boxes = random_boxes(500, generator)
    relative = torch.rand(500, 39, 2, generator=generator, dtype=torch.float64)
    extent = boxes[:, None, 2:] - boxes[:, None, :2]
    points = boxes[:, None, :2] + relative * extent
    cells, inside = encode_cells(boxes, points, size)
    decoded, scores = decode_heatmaps(one_hot_logits(cells, size), boxes)
    error = (decoded - points) / extent * size
    assert inside.all()
    assert error.abs().max() <= 0.5 + 1e-9
    # An error that is uniform over a cell has standard deviation 0.289. The mean of 19,500 errors should be within 5
    # standard errors of 0.
    assert error.mean(dim=(0, 1)).abs().max() < 5 * 0.289 / math.sqrt(500 * 39)
    assert (scores > 0.99).all()


def test_cells_are_rows_of_x_within_y_and_borders_are_inside():
    boxes = torch.tensor([[10.0, 20.0, 18.0, 36.0]])
    points = torch.tensor([[[10.0, 20.0], [18.0, 36.0], [11.9, 20.1], [12.0, 24.0], [9.99, 25.0], [12.0, 36.01]]])
    cells, inside = encode_cells(boxes, points, size=4)
    assert inside.tolist() == [[True, True, True, True, False, False]]
    assert cells[0, :4].tolist() == [0, 15, 0, 1 * 4 + 1]
    assert (cells[~inside] == 0).all()


@pytest.mark.parametrize('sigma', [0.6, 1.0, 2.0, 4.0])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_a_gaussian_is_decoded_to_its_centre(sigma, dtype):
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(40, 5, 2, generator=generator, dtype=torch.float64) * 50 + 3
    boxes = torch.tensor([[0.0, 0.0, 56.0, 56.0]], dtype=dtype).expand(40, 4)
    decoded, _ = decode_heatmaps(gaussian_logits(centres, sigma, 56).to(dtype), boxes)
    assert (decoded - centres).abs().max() < 0.02


def test_decoding_is_better_than_the_peak_cell_under_noise():
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(200, 5, 2, generator=generator, dtype=torch.float64) * 46 + 5
    logits = gaussian_logits(centres, 1.5, 56)
    logits += 0.3 * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    boxes = torch.tensor([[0.0, 0.0, 56.0, 56.0]], dtype=torch.float64).expand(200, 4)
    decoded, _ = decode_heatmaps(logits, boxes)
    peak = logits.flatten(2).argmax(dim=-1)
    peak_points = torch.stack([peak % 56, peak // 56], dim=-1) + 0.5
    error, peak_error = ((points - centres).square().mean().sqrt() for points in (decoded, peak_points))
    assert error < 0.5 * peak_error


def test_scores_are_the_probability_around_the_peak():
    logits = torch.full((1, 1, 20, 20), -50.0)
    logits[0, 0, 4, 5] = math.log(0.6)
    logits[0, 0, 7, 8] = math.log(0.1)
    logits[0, 0, 15, 15] = math.log(0.3)
    _, scores = decode_heatmaps(logits, torch.tensor([[0.0, 0.0, 20.0, 20.0]]))
    assert scores.item() == pytest.approx(0.7, abs=1e-5)


@pytest.mark.parametrize('value', [0.0, 1e4])
def test_flat_huge_and_border_heatmaps_stay_finite_and_inside(value):
    logits = torch.zeros(1, 3, 8, 8)
    logits[0, 1, 0, 0] = logits[0, 2, 7, 7] = value
    boxes = torch.tensor([[2.0, 3.0, 10.0, 11.0]])
    points, scores = decode_heatmaps(logits, boxes)
    assert torch.isfinite(points).all() and torch.isfinite(scores).all()
    assert (points >= boxes[:, None, :2]).all() and (points <= boxes[:, None, 2:]).all()


def test_degenerate_boxes_and_no_rois():
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    cells, inside = encode_cells(boxes, torch.tensor([[[5.0, 5.0], [6.0, 5.0]]]), size=4)
    assert cells.tolist() == [[0, 0]] and inside.tolist() == [[True, False]]
    points, scores = decode_heatmaps(torch.zeros(0, 8, 4, 4), torch.zeros(0, 4))
    assert points.shape == (0, 8, 2) and scores.shape == (0, 8)

"""Conversion of polygons to masks and back; tracing of the wardrobe's masks is tested with the wardrobe."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmdf2.codecs.polygons import mask_to_polygons, outline_length, polygons_to_mask


@pytest.mark.parametrize('seed', range(10))
def test_masks_survive_the_way_to_polygons_and_back(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((120, 90), np.uint8)
    for _ in range(3):
        cv2.ellipse(mask, rng.integers(20, 80, 2).tolist(), rng.integers(10, 30, 2).tolist(), 0, 0, 360, 1, -1)
    polygons, kept = mask_to_polygons(mask)
    again = polygons_to_mask(polygons, *mask.shape)
    assert (again & (kept > 0)).sum() / (again | (kept > 0)).sum() > 0.97


def test_a_union_is_filled_as_pycocotools_does():
    polygons = [np.array([[2.0, 2], [20, 2], [20, 20]]), np.array([[10.0, 10], [30, 12], [15, 30]])]
    flat = [polygon.ravel().tolist() for polygon in polygons]
    expected = mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(flat, 32, 40)))
    assert np.array_equal(polygons_to_mask(polygons, 32, 40), expected > 0)
    assert polygons_to_mask([], 3, 4).tolist() == np.zeros((3, 4), bool).tolist()


def test_polygons_beyond_the_image_fill_what_is_in_it():
    far = np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])
    assert polygons_to_mask([far], 8, 9).all()


def zigzag(points):
    """A small polygon of many far points, whose outline would take gigabytes to fill."""
    x = np.where(np.arange(points) % 2, 9e4, -9e4)
    return np.stack([x, np.linspace(0, 20, points)], axis=1)


def test_an_outline_that_would_take_all_memory_is_refused():
    assert polygons_to_mask([zigzag(8)], 20, 30).any()
    with pytest.raises(ValueError, match='has an outline of 3600000 pixels, 2000000 at most'):
        polygons_to_mask([zigzag(20)], 20, 30)
    assert outline_length(np.array([[0.0, 0], [3, 0], [3, 4]])) == 3 + 4 + 4


@pytest.mark.parametrize('bad', [np.zeros((2, 2)), np.zeros((3, 3)), np.full((3, 2), np.nan)])
def test_refusals(bad):
    with pytest.raises(ValueError, match=r'a polygon must be \(P, 2\), P >= 3, finite'):
        polygons_to_mask([bad], 8, 8)

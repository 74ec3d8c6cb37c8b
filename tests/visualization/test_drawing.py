"""Boxes, masks, landmarks and annotated items drawn on images."""

import numpy as np
import pytest

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, PALETTE
from mmdf2.datasets.annotation import read_annotation
from mmdf2.images import read_image
from mmdf2.visualization import draw_boxes, draw_instances, draw_items, draw_landmarks, draw_masks

GREY = 127


def canvas(height=240, width=320):
    return np.full((height, width, 3), GREY, np.uint8)


def changed(picture):
    """(H, W) bool, the pixels in which a picture differs from the canvas."""
    return (picture != GREY).any(axis=2)


def bounds(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1], rows[-1]


def is_colour(picture, x, y, label):
    return np.abs(picture[y, x].astype(int) - PALETTE[label]).max() <= 2


def test_palette_has_a_colour_of_its_own_for_each_category():
    assert len(PALETTE) == len(CATEGORIES)
    colours = np.array(PALETTE, dtype=float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 60


def test_box_is_drawn_on_its_border_and_nowhere_else():
    picture = draw_boxes(canvas(), [[40, 60, 200, 180]], [3])
    assert is_colour(picture, 40, 100, 3)
    assert is_colour(picture, 120, 180, 3)
    mask = changed(picture)
    np.testing.assert_allclose(bounds(mask), (40, 60, 200, 180), atol=2)
    assert not mask[64:176, 44:196].any()


def test_input_image_is_left_alone():
    image = canvas()
    draw_instances(image, [0], [[10, 10, 50, 50]], [0.5], np.ones((1, 240, 320), bool), np.full((1, 39, 2), 30.0))
    assert (image == GREY).all()


@pytest.mark.parametrize('box', [[-50, -50, 100, 100], [250, 200, 900, 1e9], [-1e12, 20, 1e12, 40]])
def test_box_partly_outside_is_cut_at_the_image(box):
    picture = draw_boxes(canvas(), [box], [1], ['long sleeve top 0.90'])
    assert picture.shape == (240, 320, 3)
    lines = changed(draw_boxes(canvas(), [box], [1]))
    x1, y1, x2, y2 = np.clip(box, -1, [320, 240, 320, 240])
    rows, columns = np.mgrid[:240, :320]
    border = np.minimum.reduce([abs(columns - x1), abs(columns - x2), abs(rows - y1), abs(rows - y2)])
    assert lines.any()
    assert border[lines].max() <= 1
    assert (columns[lines] >= x1 - 1).all() and (rows[lines] <= y2 + 1).all()


def test_box_wholly_outside_draws_no_line():
    assert not changed(draw_boxes(canvas(), [[400, 300, 500, 400]], [0])).any()


@pytest.mark.parametrize('size', [(120, 160), (240, 320), (1200, 900)])
def test_caption_stays_in_the_image_and_grows_with_it(size):
    height, width = size
    picture = draw_boxes(canvas(*size), [[width - 20, 2, width - 2, height - 2]], [5], ['short sleeve outwear 1.00'])
    left, top, right, _ = bounds(changed(picture))
    assert left >= 0 and right < width and top >= 0
    filled = (np.abs(picture.astype(int) - PALETTE[5]).max(axis=2) <= 2).sum()
    assert filled > 0.004 * height * width / (1 + np.hypot(*size) / 1000)


def test_captions_do_not_cover_each_other():
    boxes = [[20, 100, 200, 220]] * 3
    alone = [draw_boxes(canvas(), boxes[:1], [label], ['sling dress 0.50']) for label in (0, 6, 12)]
    areas = [
        (np.abs(picture.astype(int) - PALETTE[label]).max(axis=2) <= 2)[:90].sum()
        for label, picture in zip((0, 6, 12), alone, strict=True)
    ]
    together = draw_boxes(canvas(), boxes, [0, 6, 12], ['sling dress 0.50'] * 3)
    for label, area in zip((0, 6, 12), areas, strict=True):
        assert (np.abs(together.astype(int) - PALETTE[label]).max(axis=2) <= 2).sum() >= 0.9 * area


def test_mask_tints_its_own_pixels_only():
    mask = np.zeros((2, 240, 320), bool)
    mask[0, 50:100, 60:160] = True
    mask[1, 150:200, 200:201] = True
    picture = draw_masks(canvas(), mask, [2, 7], alpha=0.5)
    np.testing.assert_array_equal(changed(picture), mask.any(axis=0))
    np.testing.assert_allclose(picture[75, 100], (np.array(PALETTE[2]) + GREY) / 2, atol=1)
    assert is_colour(picture, 60, 75, 2)


def test_empty_mask_and_no_instances_change_nothing():
    picture = draw_masks(canvas(), np.zeros((1, 240, 320), bool), [0])
    assert not changed(picture).any()
    picture = draw_instances(
        canvas(),
        np.zeros(0, int),
        np.zeros((0, 4)),
        np.zeros(0),
        np.zeros((0, 240, 320), bool),
        np.zeros((0, MAX_LANDMARKS, 2)),
        np.zeros((0, MAX_LANDMARKS), int),
    )
    assert not changed(picture).any()


def test_visible_landmark_is_filled_occluded_is_hollow_unlabelled_is_absent():
    # Landmarks 0, 2 and 4 of a skirt have no line between them.
    points, flags = np.zeros((1, MAX_LANDMARKS, 2)), np.zeros((1, MAX_LANDMARKS), int)
    points[0, [0, 2, 4]] = (400, 200), (800, 200), (600, 700)
    flags[0, [0, 2]] = 2, 1
    picture = draw_landmarks(canvas(900, 1200), points, [8], flags)
    assert is_colour(picture, 400, 200, 8)
    assert picture[200, 800].min() > 240
    ring = picture[195:206, 795:806].reshape(-1, 3).astype(int)
    assert (np.abs(ring - PALETTE[8]).max(axis=1) <= 2).any()
    assert not changed(picture)[600:].any()


def test_skeleton_joins_drawn_landmarks_only():
    points, flags = np.zeros((1, MAX_LANDMARKS, 2)), np.zeros((1, MAX_LANDMARKS), int)
    points[0, [0, 1, 2]] = (50, 100), (150, 100), (250, 100)
    flags[0, [0, 1]] = 2
    assert (0, 1) in CATEGORIES[6].skeleton and (1, 2) in CATEGORIES[6].skeleton
    picture = draw_landmarks(canvas(), points, [6], flags)
    distance = np.abs(picture[100, 100].astype(int) - PALETTE[6]).max()
    assert distance < np.abs(GREY - np.array(PALETTE[6])).max() / 2
    assert not changed(picture)[:, 170:].any()


@pytest.mark.parametrize('category', CATEGORIES, ids=lambda category: category.name)
def test_columns_beyond_the_category_are_not_read(category):
    rng = np.random.default_rng(category.id)
    points = rng.uniform(20, 200, (1, MAX_LANDMARKS, 2))
    expected = draw_landmarks(canvas(), points, [category.label])
    points[0, category.num_landmarks :] = np.nan
    np.testing.assert_array_equal(draw_landmarks(canvas(), points, [category.label]), expected)
    for x, y in points[0, : category.num_landmarks].astype(int):
        assert changed(expected)[y, x]


def test_smaller_garment_lies_above_larger_one():
    masks = np.zeros((2, 240, 320), bool)
    masks[0, 80:120, 80:120] = True
    masks[1, 20:220, 20:300] = True
    boxes = [[80, 80, 120, 120], [20, 20, 300, 220]]
    picture = draw_instances(canvas(), [0, 6], boxes, masks=masks)
    small_last = draw_masks(draw_masks(canvas(), masks[1:], [6]), masks[:1], [0])
    np.testing.assert_array_equal(picture[100, 100], small_last[100, 100])


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'labels': [13], 'boxes': [[0, 0, 5, 5]]}, 'labels must be'),
        ({'labels': [-1]}, 'labels must be'),
        ({'labels': [0], 'boxes': [[0, 0, np.nan, 5]]}, 'boxes must be finite'),
        ({'labels': [0, 1], 'boxes': [[0, 0, 5, 5]]}, r'boxes must be \(2, 4\)'),
        ({'labels': [0], 'masks': np.ones((1, 10, 10), bool)}, 'masks must be'),
        ({'labels': [0], 'landmarks': np.zeros((1, 8, 2))}, '25 landmarks, got 8'),
        ({'labels': [0], 'landmarks': np.full((1, 39, 2), np.inf)}, 'must be finite'),
        ({'labels': [0], 'landmarks': np.zeros((1, 39, 2)), 'visibility': np.zeros((1, 38))}, 'visibility must be'),
    ],
)
def test_bad_input_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        draw_instances(canvas(), **kwargs)


@pytest.mark.parametrize('image', [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)])
def test_image_of_another_type_is_refused(image):
    with pytest.raises(ValueError, match='image must be'):
        draw_boxes(image, np.zeros((0, 4)), [])


def test_items_are_drawn_inside_their_mask_and_box_and_no_items_draw_nothing(make_item):
    image = np.full((64, 96, 3), 128, np.uint8)
    assert np.array_equal(draw_items(image, []), image)
    item = make_item(np.random.default_rng(3), 1, 8, 1, (96, 64))
    drawn = draw_items(image, [item])
    centre = ((np.array(item.bbox[:2]) + item.bbox[2:]) / 2).astype(int)
    assert (drawn[centre[1], centre[0]] != 128).any()
    assert np.array_equal(image, np.full((64, 96, 3), 128, np.uint8))


def test_items_of_a_photo(photo_root):
    image = read_image(photo_root / 'validation/image/000264.jpg')
    items = read_annotation(photo_root / 'validation/annos/000264.json').items
    changed = (draw_items(image, items) != image).any(axis=2)
    x1, y1, x2, y2 = np.round(items[0].bbox).astype(int)
    assert changed[y1:y2, x1:x2].mean() > 0.3
    assert changed.mean() < 0.9

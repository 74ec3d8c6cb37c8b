"""Drawing what is annotated."""

import numpy as np

from mmdf2.visualization import draw_items


def test_draws_inside_the_mask_and_the_box_and_nothing_for_no_items(make_item):
    image = np.full((64, 96, 3), 128, np.uint8)
    assert np.array_equal(draw_items(image, []), image)
    item = make_item(np.random.default_rng(3), 1, 8, 1, (96, 64))
    drawn = draw_items(image, [item])
    centre = ((np.array(item.bbox[:2]) + item.bbox[2:]) / 2).astype(int)
    assert (drawn[centre[1], centre[0]] != 128).any()
    assert np.array_equal(image, np.full((64, 96, 3), 128, np.uint8))


def test_annotation_of_a_photo(photo_root):
    from mmdf2.datasets.annotation import read_annotation
    from mmdf2.images import read_image

    image = read_image(photo_root / 'validation/image/000264.jpg')
    items = read_annotation(photo_root / 'validation/annos/000264.json').items
    changed = (draw_items(image, items) != image).any(axis=2)
    x1, y1, x2, y2 = np.round(items[0].bbox).astype(int)
    assert changed[y1:y2, x1:x2].mean() > 0.3
    assert changed.mean() < 0.9

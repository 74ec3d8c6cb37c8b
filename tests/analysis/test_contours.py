"""Contours of items against their masks, for drawn garments of every category and for two photos."""

import numpy as np
import pytest

from mmdf2.analysis.contours import category_table, contour_page, draw_contour, item_contour, worst_first
from mmdf2.categories import CATEGORY_NAMES
from mmdf2.codecs.contour import coverage
from mmdf2.codecs.polygons import polygons_to_mask
from mmdf2.datasets.annotation import read_annotation
from mmdf2.datasets.prepare import image_size, open_or_prepare
from mmdf2.images import read_image
from mmdf2.wardrobe import make_wardrobe


@pytest.fixture(scope='module', name='drawn')
def fixture_drawn(tmp_path_factory):
    """The image folder of a small wardrobe, and the contours of its items."""
    root = tmp_path_factory.mktemp('wardrobe')
    make_wardrobe(root, 70, seed=4, size=256, workers=1, progress=False)
    store = open_or_prepare(root, 'train')
    images = [store.image(index) for index in range(len(store))]
    return root / 'train' / 'image', [
        item_contour(image.file_name, item, image.height, image.width) for image in images for item in image.items
    ]


def easy(contours, label):
    """Contours of the items of a category that are hardly occluded and entirely within the image."""
    return [c for c in contours if (c.item.label, c.item.occlusion, c.item.zoom_in) == (label, 1, 1)]


def test_contours_cover_the_garments_of_the_wardrobe(drawn):
    _, contours = drawn
    for label, name in enumerate(CATEGORY_NAMES):
        found = easy(contours, label)
        assert len(found) >= 3, name
        # Folds reach beyond the straight lines between landmarks, and masks leave out the arms in front of the cloth.
        assert np.median([c.coverage.inside for c in found]) > 0.8, name
        unworn = [c.coverage.iou for c in found if c.item.viewpoint == 1]
        assert np.median(unworn or [1]) > 0.85, name


def test_the_order_of_the_landmarks_matters(drawn):
    """Landmarks that are joined in another order enclose much less of the garment."""
    _, contours = drawn
    for label in (0, 1, 9, 10):
        found = [c for c in easy(contours, label) if c.item.landmarks[:, 2].all()]
        shuffled = []
        for contour in found:
            size = (int(contour.item.bbox[3]) + 2, int(contour.item.bbox[2]) + 2)
            mask = polygons_to_mask(contour.item.segmentation, *size)
            polygon = np.random.default_rng(0).permutation(contour.item.landmarks[:, :2].astype(np.float64))
            shuffled.append(coverage(polygons_to_mask([polygon], *size), mask).iou)
        assert np.median(shuffled) < np.median([c.coverage.iou for c in found]) - 0.1


def test_contours_of_photos_are_their_masks(photo_root):
    shares = []
    for path in sorted((photo_root / 'validation/image').iterdir()):
        width, height = image_size(path)
        annotation = read_annotation(photo_root / 'validation/annos' / f'{path.stem}.json', (width, height))
        shares += [item_contour(path.name, item, height, width).coverage.iou for item in annotation.items]
    # On one of the photos the skirt extends beyond its last landmark, to the border of the photo.
    assert len(shares) == 2 and max(shares) > 0.98 and min(shares) > 0.7


def test_items_with_few_landmarks_have_no_contour(drawn):
    _, contours = drawn
    item = next(c.item for c in contours if c.item.landmarks[:, 2].all())
    assert item_contour('x.jpg', item, 400, 400).polygons
    item.landmarks[len(item.landmarks) // 2 - 1 :] = 0
    bare = item_contour('x.jpg', item, 400, 400)
    assert bare.polygons == [] and bare.coverage is None and not bare.is_short()


def test_table_counts_every_item_and_the_page_shows_the_worst(drawn):
    images, contours = drawn
    rows = category_table(contours)
    assert [row[0] for row in rows] == [*CATEGORY_NAMES, 'all']
    for column in (1, 2, 3, 6):
        assert sum(row[column] for row in rows[:-1]) == rows[-1][column]
    assert rows[-1][1] == len(contours)
    short = worst_first(contours)
    assert len(short) == rows[-1][6] > 3
    assert [c.coverage.inside for c in short] == sorted(c.coverage.inside for c in short)
    page = contour_page(contours, images, 0.8, 3)
    assert page.count('<img src="data:image/jpeg;base64,') == 3 and short[0].name in page
    assert 'None falls short' in contour_page(contours, images, 0.0, 3)
    picture = draw_contour(read_image(images / short[0].name), short[0])
    assert max(picture.shape[:2]) == 320

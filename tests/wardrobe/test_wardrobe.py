"""The drawn wardrobe on disk: layout, validity, masks and landmarks, attributes, determinism and resuming."""

import hashlib
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdf2 import files
from mmdf2.categories import CATEGORIES, identity_code
from mmdf2.codecs.polygons import MIN_AREA, mask_to_polygons
from mmdf2.datasets.annotation import read_annotation
from mmdf2.images import read_image
from mmdf2.wardrobe import make_wardrobe
from mmdf2.wardrobe.contact_sheet import write_contact_sheet
from mmdf2.wardrobe.labels import REACH, occlusion_code, scale_code, zoom_code
from mmdf2.wardrobe.picture import take
from mmdf2.wardrobe.plan import plan_pairs, plan_shots
from mmdf2.wardrobe.version import VERSIONS, Version

SIZE = 240
# The published shares of the four attributes, and the largest difference allowed for this small sample.
PUBLISHED = {
    'scale': (0.26, 0.50, 0.24),
    'occlusion': (0.47, 0.47, 0.06),
    'zoom_in': (0.67, 0.21, 0.12),
    'viewpoint': (0.07, 0.78, 0.15),
}
TOLERANCE = 0.12


@pytest.fixture(scope='module', params=sorted(VERSIONS))
def wardrobe(request, tmp_path_factory):
    out = tmp_path_factory.mktemp('wardrobe')
    version = Version(request.param)
    return make_wardrobe(
        out, 60, seed=3, validation_identities=8, size=SIZE, version=version, workers=2, progress=False
    )


@pytest.fixture(scope='module')
def annotated(wardrobe):
    """(image (H, W, 3), annotation) of each image of the training split; every annotation is checked strictly."""
    result = []
    for path in sorted((wardrobe / 'train' / 'annos').glob('*.json')):
        image = cv2.imread(str(wardrobe / 'train' / 'image' / f'{path.stem}.jpg'))
        height, width = image.shape[:2]
        result.append((image, read_annotation(path, (width, height))))
    return result


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*.*'))
        if path.suffix != '.lock'
    }


def filled(item, image):
    height, width = image.shape[:2]
    mask = np.zeros((height, width), dtype=np.uint8)
    for polygon in item.segmentation:
        mask |= coco_mask.decode(coco_mask.frPyObjects([polygon.reshape(-1).tolist()], height, width))[..., 0]
    return mask


def test_layout(wardrobe):
    assert [path.name for path in sorted((wardrobe / 'train' / 'image').iterdir())] == [
        f'{number:06d}.jpg' for number in range(1, 301)
    ]
    assert len(list((wardrobe / 'train' / 'annos').iterdir())) == 300
    assert len(list((wardrobe / 'validation' / 'annos').iterdir())) == 40
    assert json.loads((wardrobe / 'train' / 'wardrobe.json').read_text())['finished'] is True


def test_all_categories_with_their_landmark_counts(annotated):
    items = [item for _, annotation in annotated for item in annotation.items]
    assert {item.category_id for item in items} == {category.id for category in CATEGORIES}
    for item in items:
        assert item.landmarks.shape == (CATEGORIES[item.label].num_landmarks, 3)


def test_images_show_several_garments_and_numbers_are_consecutive(annotated):
    counts = [len(annotation.items) for _, annotation in annotated]
    assert np.mean(counts) > 1.4
    for _, annotation in annotated:
        assert [item.item_id for item in annotation.items] == list(range(1, len(annotation.items) + 1))


def test_every_identity_is_in_shop_and_user_images(wardrobe, annotated):
    sources = {}
    for _, annotation in annotated:
        for item in annotation.items:
            if item.style:
                code = identity_code(annotation.pair_id, item.style)
                sources.setdefault(code, set()).add(annotation.source)
    assert len(sources) == 60
    assert all(found == {'shop', 'user'} for found in sources.values())
    validation = [json.loads(path.read_text())['pair_id'] for path in (wardrobe / 'validation' / 'annos').iterdir()]
    assert not set(validation) & {annotation.pair_id for _, annotation in annotated}


def test_an_identity_keeps_its_category(annotated):
    categories = {}
    for _, annotation in annotated:
        for item in annotation.items:
            if item.style:
                categories.setdefault((annotation.pair_id, item.style), set()).add(item.category_id)
    assert all(len(found) == 1 for found in categories.values())


def test_box_holds_mask_and_landmarks_tightly(annotated):
    for image, annotation in annotated:
        height, width = image.shape[:2]
        for item in annotation.items:
            points = np.concatenate([*item.segmentation, item.landmarks[item.landmarks[:, 2] > 0, :2]])
            np.testing.assert_allclose(item.bbox, [*points.min(axis=0), *points.max(axis=0)], atol=0.02)
            x1, y1, x2, y2 = item.bbox
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


def test_visible_landmarks_are_on_the_mask_and_others_are_not_outside_the_image(annotated):
    seen = 0
    for image, annotation in annotated:
        height, width = image.shape[:2]
        for item in annotation.items:
            near = cv2.dilate(filled(item, image), np.ones((2 * REACH + 5, 2 * REACH + 5), dtype=np.uint8))
            for x, y, v in item.landmarks:
                if v == 2:
                    seen += near[min(int(y), height - 1), min(int(x), width - 1)] > 0
                if v == 0:
                    assert x == y == 0
    total = sum(int((item.landmarks[:, 2] == 2).sum()) for _, annotation in annotated for item in annotation.items)
    assert seen / total > 0.998


def test_masks_of_an_image_do_not_overlap(annotated):
    overlap = area = 0
    for image, annotation in annotated[:80]:
        masks = np.stack([filled(item, image) for item in annotation.items])
        overlap += (masks.sum(axis=0) > 1).sum()
        area += masks.sum()
    assert overlap / area < 0.01, 'a pixel shows one garment; only the outlines may touch'


def test_attributes_follow_the_definitions(annotated):
    for image, annotation in annotated:
        for item in annotation.items:
            visibility = item.landmarks[:, 2]
            x1, y1, x2, y2 = item.bbox
            share = (x2 - x1) * (y2 - y1) / (image.shape[0] * image.shape[1])
            occluded, outside = (visibility == 1).mean(), (visibility == 0).mean()
            assert item.scale == (1 if share < 0.1 else 2 if share <= 0.4 else 3)
            assert item.occlusion == (1 if occluded < 0.2 else 2 if occluded <= 0.5 else 3)
            assert item.zoom_in == (1 if outside == 0 else 2 if outside <= 0.3 else 3)


def test_attribute_limits():
    assert [scale_code(share) for share in (0.0999, 0.1, 0.4, 0.4001)] == [1, 2, 2, 3]
    ten = np.full(10, 2)
    hidden = [np.where(np.arange(10) < count, 1, ten) for count in (1, 2, 5, 6)]
    assert [occlusion_code(visibility) for visibility in hidden] == [1, 2, 2, 3]
    outside = [np.where(np.arange(10) < count, 0, ten) for count in (0, 1, 3, 4)]
    assert [zoom_code(visibility) for visibility in outside] == [1, 2, 2, 3]


def test_shares_are_near_the_published_ones(annotated):
    items = [item for _, annotation in annotated for item in annotation.items]
    for name, published in PUBLISHED.items():
        values = np.array([getattr(item, name) for item in items])
        measured = [(values == code).mean() for code in (1, 2, 3)]
        np.testing.assert_allclose(measured, published, atol=TOLERANCE, err_msg=name)


def test_style_changes_the_cloth_and_not_the_cut():
    pairs = [pair for pair in plan_pairs('train', 60, 3) if len(pair.clothes) - pair.has_second > 1]
    assert pairs
    for pair in pairs:
        first, second = pair.clothes[:2]
        assert first.cut == second.cut
        assert first.fabric != second.fabric


def test_plan_has_exactly_the_identities_asked_for():
    for count in (1, 2, 7, 61):
        pairs = plan_pairs('train', count, 0)
        assert sum(len(pair.clothes) for pair in pairs) == count
        shots = plan_shots('train', pairs, (2, 3), 0)
        assert len(shots) == 5 * count
        assert [shot.image_id for shot in shots] == list(range(1, 5 * count + 1))


def test_same_seed_same_bytes_whatever_the_number_of_workers(tmp_path):
    arguments = {'seed': 5, 'size': 160, 'progress': False}
    one = make_wardrobe(tmp_path / 'one', 4, workers=1, **arguments)
    two = make_wardrobe(tmp_path / 'two', 4, workers=2, **arguments)
    assert len(digests(one)) == 41
    assert digests(one) == digests(two)
    other = make_wardrobe(tmp_path / 'other', 4, workers=1, **(arguments | {'seed': 6}))
    assert not set(digests(one).values()) & set(digests(other).values())


def test_a_longer_wardrobe_begins_with_the_same_pictures(tmp_path):
    short, long = (
        plan_shots('train', plan_pairs('train', 6, 1), (1, 1), 1),
        plan_shots('train', plan_pairs('train', 30, 1), (1, 1), 1),
    )
    assert short[0].seed == long[0].seed
    np.testing.assert_array_equal(take(short[0], 96)[0], take(long[0], 96)[0])


def test_a_killed_run_is_completed(tmp_path):
    arguments = {'seed': 5, 'size': 96, 'workers': 1, 'progress': False}
    whole = make_wardrobe(tmp_path / 'whole', 3, **arguments)
    cut = make_wardrobe(tmp_path / 'cut', 3, **arguments)
    recipe = cut / 'train' / 'wardrobe.json'
    recipe.write_text(recipe.read_text().replace('true', 'false'))
    (cut / 'train' / 'annos' / '000004.json').unlink()
    (cut / 'train' / 'image' / '000004.jpg').write_bytes(b'half a picture')
    (cut / 'train' / 'annos' / '000009.json').unlink()
    (cut / 'train' / 'image' / '000009.jpg').unlink()
    (cut / 'train' / 'image' / '.000009.7-0123abcd.unfinished.jpg').write_bytes(b'half a picture')
    untouched = (cut / 'train' / 'image' / '000001.jpg').stat().st_mtime_ns
    make_wardrobe(cut, 3, **arguments)
    assert digests(cut) == digests(whole)
    assert (cut / 'train' / 'image' / '000001.jpg').stat().st_mtime_ns == untouched


@pytest.mark.parametrize('content', ['', '[]', '{"version": 2}', '{"version": 2, "fini'])
def test_a_damaged_manifest_is_named_with_the_remedy(tmp_path, content):
    arguments = {'size': 96, 'workers': 1, 'progress': False, 'images_per_identity': (1, 0)}
    make_wardrobe(tmp_path, 1, seed=1, **arguments)
    (tmp_path / 'train/wardrobe.json').write_text(content)
    with pytest.raises(ValueError, match=r'wardrobe\.json is damaged .*: remove .*train to draw it anew'):
        make_wardrobe(tmp_path, 1, seed=1, **arguments)


def test_a_second_process_waits_until_the_first_has_drawn(tmp_path):
    code = """
import sys
from mmdf2.wardrobe import make_wardrobe
make_wardrobe(sys.argv[1], 3, seed=5, size=96, workers=1, progress=False)
"""
    arguments = {'seed': 5, 'size': 96, 'workers': 1, 'progress': False}
    leftover = tmp_path / 'both/train/image/.000009.7-0123abcd.unfinished.jpg'
    make_wardrobe(tmp_path / 'both', 3, **arguments)
    recipe = tmp_path / 'both/train/wardrobe.json'
    recipe.write_text(recipe.read_text().replace('true', 'false'))
    with files.locked(tmp_path / 'both/.train.lock'):
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'PYTHONUNBUFFERED': '1'}
        command = [sys.executable, '-c', code, str(tmp_path / 'both')]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert 'another process is drawing' in other.stdout.readline()
        # What the first process is about to rename, which the second must not take for a leftover of a killed one.
        leftover.write_bytes(b'half a picture')
        (tmp_path / 'both/train/image/000009.jpg').unlink()
        leftover.rename(tmp_path / 'both/train/image/000009.jpg')
        (tmp_path / 'both/train/annos/000009.json').unlink()
    assert other.wait() == 0
    assert digests(tmp_path / 'both') == digests(make_wardrobe(tmp_path / 'alone', 3, **arguments))


def test_refuses_a_folder_made_otherwise(tmp_path):
    arguments = {'size': 96, 'workers': 1, 'progress': False, 'images_per_identity': (1, 0)}
    make_wardrobe(tmp_path, 1, seed=1, **arguments)
    with pytest.raises(ValueError, match=r"holds a wardrobe made by .*'seed': 1.*choose another folder"):
        make_wardrobe(tmp_path, 1, seed=2, **arguments)
    foreign = tmp_path / 'foreign' / 'train' / 'image'
    foreign.mkdir(parents=True)
    (foreign / '000001.jpg').write_bytes(b'somebody else')
    with pytest.raises(ValueError, match='no wardrobe'):
        make_wardrobe(tmp_path / 'foreign', 1, seed=1, **arguments)
    assert (foreign / '000001.jpg').read_bytes() == b'somebody else'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'identities': 0}, 'identities'),
        ({'identities': 1, 'seed': -1}, 'seed'),
        ({'identities': 1, 'size': 10}, 'size'),
        ({'identities': 1, 'split': 'test'}, 'split'),
        ({'identities': 1, 'images_per_identity': (0, 0)}, 'images_per_identity'),
        ({'identities': 1, 'workers': 0}, 'workers'),
        ({'identities': 1, 'split': 'validation', 'validation_identities': 1}, 'validation_identities'),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_wardrobe(tmp_path / 'never', **arguments)
    assert not (tmp_path / 'never').exists()


def test_contact_sheet_has_a_row_for_each_category(tmp_path):
    path = write_contact_sheet(tmp_path / 'made' / 'sheet.jpg', size=40)
    rows, columns, captions = 7, 12, 18  # two columns of six pictures, the last block empty
    assert read_image(path).shape == (rows * (40 + captions), columns * 40, 3)
    with pytest.raises(ValueError, match=r'must end in \.jpg'):
        write_contact_sheet(tmp_path / 'sheet.tiff')


def test_trace_follows_pixel_edges_pieces_and_holes():
    mask = np.zeros((80, 90), dtype=np.uint8)
    mask[10:60, 20:70] = 1
    mask[25:40, 30:55] = 0
    mask[65:75, 5:25] = 1
    mask[2:4, 2:4] = 1
    polygons, kept = mask_to_polygons(mask)
    assert len(polygons) == 2, f'a piece smaller than {MIN_AREA} pixels has no polygon'
    drawn = np.zeros_like(mask)
    for polygon in polygons:
        drawn |= coco_mask.decode(coco_mask.frPyObjects([polygon.reshape(-1).tolist()], 80, 90))[..., 0]
    mask[2:4, 2:4] = 0
    np.testing.assert_array_equal(kept, mask)
    union, inside = (drawn | mask).sum(), (drawn & mask).sum()
    assert inside / union > 0.97
    assert drawn[32, 42] == 0, 'the hole stays empty'

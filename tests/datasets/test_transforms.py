import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config
from PIL import Image

from mmdf2.categories import CATEGORIES, FLIP_PERMUTATIONS, LANDMARK_COUNTS
from mmdf2.datasets.deepfashion2 import DeepFashion2Dataset
from mmdf2.datasets.transforms import (
    LoadClothesAnnotations,
    LoadImage,
    PackClothesInputs,
    RandomAffine,
    RandomCrop,
    RandomFlip,
    Resize,
)
from mmdf2.images import ImageError, image_size, read_image
from mmdf2.registry import TRANSFORMS

WIDTH, HEIGHT = 120, 90
# Read off the published figure of landmark definitions (numbers from 1): a landmark on the left side of the picture and
# its mirror image, on the cuffs where there are sleeves.
LEFT_RIGHT = {
    'short sleeve top': (9, 23),
    'long sleeve top': (11, 29),
    'short sleeve outwear': (9, 23),
    'long sleeve outwear': (11, 29),
    'vest': (10, 12),
    'sling': (7, 15),
    'shorts': (5, 9),
    'trousers': (6, 12),
    'skirt': (5, 7),
    'short sleeve dress': (9, 27),
    'long sleeve dress': (11, 33),
    'vest dress': (12, 14),
    'sling dress': (7, 19),
}


def loaded(instances, width=WIDTH, height=HEIGHT, **options):
    results = {
        'img': np.zeros((height, width, 3), dtype=np.uint8),
        'img_shape': (height, width),
        'ori_shape': (height, width),
        'height': height,
        'width': width,
        'instances': instances,
    }
    return LoadClothesAnnotations(**options)(results)


def instance(label, box, landmarks, identity=5, item_id=1):
    x1, y1, x2, y2 = box
    outline = [x1, (y1 + y2) / 2, (x1 + x2) / 2, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2]
    return {
        'bbox': list(box),
        'bbox_label': label,
        'mask': [outline],
        'ignore_flag': 0,
        'landmarks': np.asarray(landmarks, dtype=np.float32),
        'identity': identity,
        'item_id': item_id,
    }


def random_instance(rng, label, item_id=1):
    count = LANDMARK_COUNTS[label]
    x1, y1 = rng.uniform(5, 40), rng.uniform(5, 30)
    x2, y2 = rng.uniform(60, WIDTH - 5), rng.uniform(50, HEIGHT - 5)
    landmarks = np.stack([rng.uniform(x1, x2, count), rng.uniform(y1, y2, count), rng.integers(0, 3, count)], axis=1)
    landmarks[landmarks[:, 2] == 0] = 0
    return instance(label, (x1, y1, x2, y2), landmarks, identity=100 + item_id, item_id=item_id)


def all_fields(results):
    fields = {name: value for name, value in results.items() if name.startswith('gt_')}
    assert len({len(value) for value in fields.values()}) == 1
    return fields


@pytest.mark.parametrize('name', LEFT_RIGHT)
def test_left_landmark_becomes_the_right_one(name):
    label = [category.name for category in CATEGORIES].index(name)
    left, right = (number - 1 for number in LEFT_RIGHT[name])
    landmarks = np.zeros((LANDMARK_COUNTS[label], 3))
    landmarks[left] = 20, 30, 2
    landmarks[right] = 95, 40, 1
    results = RandomFlip(prob=1.0)(loaded([instance(label, (10, 10, 110, 80), landmarks)]))
    assert results['gt_keypoints'][0, right].tolist() == [WIDTH - 20, 30]
    assert results['gt_keypoints'][0, left].tolist() == [WIDTH - 95, 40]
    visible = results['gt_keypoints_visible'][0]
    assert (visible[right], visible[left], visible.sum()) == (2, 1, 3)
    assert np.count_nonzero(results['gt_keypoints']) == 4


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_flipping_twice_changes_nothing(direction):
    rng = np.random.default_rng(0)
    before = loaded([random_instance(rng, label, label + 1) for label in range(13)])
    before['img'] = rng.integers(0, 255, before['img'].shape, dtype=np.uint8)
    flip = RandomFlip(prob=1.0, direction=direction)
    once = flip(copy.deepcopy(before))
    assert not np.allclose(once['gt_keypoints'], before['gt_keypoints'])
    twice = flip(copy.deepcopy(once))
    assert np.array_equal(twice['img'], before['img'])
    assert np.allclose(twice['gt_keypoints'], before['gt_keypoints'], atol=1e-4)
    assert np.array_equal(twice['gt_keypoints_visible'], before['gt_keypoints_visible'])
    assert np.allclose(twice['gt_bboxes'].numpy(), before['gt_bboxes'].numpy(), atol=1e-4)
    assert np.array_equal(twice['gt_masks'].to_ndarray(), before['gt_masks'].to_ndarray())


def test_a_half_turn_is_two_mirrors():
    before = loaded([random_instance(np.random.default_rng(1), label) for label in range(13)])
    turned = RandomFlip(prob=1.0, direction='diagonal')(copy.deepcopy(before))
    mirrored = RandomFlip(prob=1.0, direction='vertical')(RandomFlip(prob=1.0)(copy.deepcopy(before)))
    assert np.allclose(turned['gt_keypoints'], mirrored['gt_keypoints'], atol=1e-4)
    assert np.array_equal(turned['gt_keypoints_visible'], mirrored['gt_keypoints_visible'])


def geometric_transforms():
    yield 'resize', lambda: Resize(scale=(300, 200), keep_ratio=False)
    yield 'resize keep ratio', lambda: Resize(scale=(200, 200), keep_ratio=True)
    for direction in ('horizontal', 'vertical', 'diagonal'):
        yield f'flip {direction}', lambda direction=direction: RandomFlip(prob=1.0, direction=direction)
    yield 'crop', lambda: RandomCrop((90, 70))
    yield 'affine', lambda: RandomAffine(max_rotate_degree=40, scaling_ratio_range=(0.7, 1.4))


@pytest.mark.parametrize(('name', 'build'), [pytest.param(*case, id=case[0]) for case in geometric_transforms()])
@pytest.mark.parametrize('seed', range(3))
def test_landmarks_are_where_their_pixels_went(name, build, seed):
    # Each landmark is drawn as a spot in its own image, and the spot is searched in the transformed image.
    rng = np.random.default_rng(seed)
    np.random.seed(seed)  # noqa: NPY002 (the state that the transforms use)
    label = 10
    transform = build()
    count = LANDMARK_COUNTS[label]
    xs, ys = rng.integers(15, 105, count) + 0.5, rng.integers(15, 75, count) + 0.5
    landmarks = np.stack([xs, ys, np.full(count, 2)], axis=1)
    image = np.zeros((HEIGHT, WIDTH, count), dtype=np.uint8)
    for number, (x, y, _) in enumerate(landmarks):
        image[int(y), int(x), number] = 255
    image = cv2.blur(cv2.blur(image, (5, 5)), (3, 3)).astype(np.float32) * 10
    state = np.random.get_state()  # noqa: NPY002
    results, spots = None, []
    for number in range(count):
        np.random.set_state(state)  # noqa: NPY002
        single = loaded([instance(label, (2, 2, 118, 88), landmarks)])
        single['img'] = np.ascontiguousarray(np.repeat(image[..., number : number + 1], 3, axis=2))
        if isinstance(transform, RandomAffine):
            transform.border_val = (0, 0, 0)
        results = transform(single)
        spots.append(results['img'][..., 0])
    order = FLIP_PERMUTATIONS[label] if name in ('flip horizontal', 'flip vertical') else np.arange(39)
    found = 0
    for number in range(count):
        if not results['gt_keypoints_visible'][0, number]:
            continue
        spot = spots[order[number]]
        rows, columns = np.mgrid[: spot.shape[0], : spot.shape[1]] + 0.5
        centre = np.array([(spot * columns).sum(), (spot * rows).sum()]) / spot.sum()
        x, y = results['gt_keypoints'][0, number]
        margin = 8
        if margin < x < spot.shape[1] - margin and margin < y < spot.shape[0] - margin:
            assert np.abs(centre - (x, y)).max() < 0.15
            found += 1
    assert found >= 5


@pytest.mark.parametrize('poly2mask', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_masks_and_boxes_follow_the_image(seed, poly2mask):
    np.random.seed(seed)  # noqa: NPY002
    results = loaded([instance(8, (30, 20, 90, 70), np.tile([60, 45, 2], (8, 1)))], poly2mask=poly2mask)
    mask = results['gt_masks'].to_ndarray()[0]
    results['img'] = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    results = RandomAffine(max_rotate_degree=60, border_val=(0, 0, 0), max_translate_ratio=0.05)(results)
    seen, mask = results['img'][..., 0] > 127, results['gt_masks'].to_ndarray()[0].astype(bool)
    assert (seen & mask).sum() / (seen | mask).sum() > 0.95
    rows, columns = np.nonzero(seen)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(results['gt_bboxes'].numpy()[0] - expected).max() < 2.5


def test_affine_without_a_turn_maps_boxes_exactly():
    np.random.seed(1)  # noqa: NPY002
    transform = RandomAffine(max_rotate_degree=0, scaling_ratio_range=(0.8, 0.8), max_translate_ratio=0)
    # The box is larger than its mask, as annotated boxes are.
    item = instance(8, (30, 20, 90, 70), np.tile([60, 45, 2], (8, 1)))
    item['mask'] = [[40, 30, 80, 30, 60, 60]]
    results = transform(loaded([item]))
    assert np.allclose(results['gt_bboxes'].numpy(), [[36, 25, 84, 65]], atol=1e-4)


def test_a_turn_keeps_the_box_tight():
    item = instance(8, (30, 20, 90, 70), np.zeros((8, 3)))
    results = loaded([item])
    transform = RandomAffine()
    angle = np.deg2rad(45)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, np.array([60, 45]) - turn @ (60, 45)
    transform._random_matrix = lambda height, width: matrix
    box = transform(results)['gt_bboxes'].numpy()[0]
    outline = (np.array([[30, 45], [60, 20], [90, 45], [60, 70]]) - (60, 45)) @ turn.T + (60, 45)
    assert np.allclose(box, [*outline.min(axis=0), *outline.max(axis=0)], atol=1e-3)
    corners = (np.array([[30, 20], [90, 20], [90, 70], [30, 70]]) - (60, 45)) @ turn.T + (60, 45)
    assert np.ptp(corners[:, 0]) > 1.3 * (box[2] - box[0])


@pytest.mark.parametrize('poly2mask', [False, True])
def test_crop_removes_what_is_gone_from_every_field(poly2mask):
    landmarks = np.tile([10, 10, 2], (8, 1))
    inside = instance(8, (50, 30, 90, 70), np.tile([60, 40, 1], (8, 1)), identity=1, item_id=1)
    outside = instance(8, (0, 0, 20, 20), landmarks, identity=2, item_id=2)
    sliver = instance(8, (0, 30, 42, 70), landmarks, identity=3, item_id=3)
    half = instance(8, (20, 30, 60, 70), [[30, 40, 2]] * 4 + [[50, 40, 2]] * 4, identity=4, item_id=4)
    empty_mask = instance(8, (30, 30, 60, 70), landmarks, identity=5, item_id=5)
    empty_mask['mask'] = [[31, 31, 36, 31, 36, 40]]
    results = loaded([outside, inside, sliver, half, empty_mask], poly2mask=poly2mask)
    crop = RandomCrop((60, 60))
    crop._rand_offset = lambda margins: (20, 40)
    fields = all_fields(crop(results))
    assert fields['gt_item_ids'].tolist() == [1, 4]
    assert fields['gt_identities'].tolist() == [1, 4]
    assert fields['gt_bboxes'].numpy().tolist() == [[10, 10, 50, 50], [0, 10, 20, 50]]
    assert fields['gt_keypoints_visible'][:, :8].tolist() == [[1] * 8, [0] * 4 + [2] * 4]
    assert fields['gt_keypoints'][1, :8].tolist() == [[0, 0]] * 4 + [[10, 20]] * 4
    assert fields['gt_masks'].to_ndarray().shape == (2, 60, 60)
    assert fields['gt_masks'].to_ndarray().any(axis=(1, 2)).all()
    assert isinstance(fields['gt_bboxes'], HorizontalBoxes)


def test_crop_of_nothing():
    results = loaded([instance(8, (0, 0, 20, 20), np.zeros((8, 3)))])
    crop = RandomCrop((40, 40))
    crop._rand_offset = lambda margins: (45, 70)
    assert crop(copy.deepcopy(results)) is None
    crop = RandomCrop((40, 40), allow_negative_crop=True)
    crop._rand_offset = lambda margins: (45, 70)
    fields = all_fields(crop(results))
    assert len(fields['gt_bboxes']) == 0


def test_affine_that_would_lose_everything_changes_nothing():
    results = loaded([instance(8, (0, 0, 5, 5), np.zeros((8, 3)))])
    results['img'][:] = 7
    transform = RandomAffine()
    transform._random_matrix = lambda height, width: np.array([[1, 0, -50], [0, 1, -50], [0, 0, 1.0]])
    after = transform(copy.deepcopy(results))
    assert (after['img'] == 7).all() and len(after['gt_bboxes']) == 1


@pytest.mark.parametrize('poly2mask', [False, True])
def test_image_without_items_passes_through(poly2mask):
    results = loaded([], poly2mask=poly2mask)
    for transform in (
        Resize(scale=(100, 100), keep_ratio=True),
        RandomFlip(prob=1.0),
        RandomAffine(),
        RandomCrop((50, 50), allow_negative_crop=True),
    ):
        results = transform(results)
        all_fields(results)
    instances = PackClothesInputs()(results)['data_samples'].gt_instances
    assert instances.keypoints.shape == (0, 39, 2) and instances.identities.shape == (0,)
    assert instances.labels.dtype == torch.int64


def test_padding_stays_empty():
    rng = np.random.default_rng(3)
    results = loaded([random_instance(rng, label) for label in range(13)])
    for transform in (Resize(scale=(200, 200)), RandomFlip(prob=1.0), RandomAffine(), RandomCrop((150, 150))):
        results = transform(results)
        for label, keypoints, visible in zip(
            results['gt_bboxes_labels'], results['gt_keypoints'], results['gt_keypoints_visible'], strict=True
        ):
            assert not keypoints[LANDMARK_COUNTS[label] :].any() and not visible[LANDMARK_COUNTS[label] :].any()
            assert not keypoints[visible == 0].any()
        assert results['gt_keypoints'].dtype == np.float32 and results['gt_keypoints_visible'].dtype == np.uint8


def test_item_without_mask_is_ignored_as_mmdet_does():
    item = instance(8, (10, 10, 50, 50), np.tile([20, 20, 2], (8, 1)))
    item['mask'] = []
    results = loaded([item, instance(8, (10, 10, 50, 50), np.zeros((8, 3)), item_id=2)])
    assert results['gt_ignore_flags'].tolist() == [True, False]
    sample = PackClothesInputs()(results)['data_samples']
    assert sample.gt_instances.item_ids.tolist() == [2]
    assert sample.ignored_instances.item_ids.tolist() == [1]
    item = instance(8, (10, 10, 50, 50), np.zeros((8, 3)))
    item['mask'] = []
    assert len(PackClothesInputs()(loaded([item], with_mask=False))['data_samples'].gt_instances) == 1


def test_test_pipeline_keeps_annotation_in_the_original_image(tiny_root):
    steps = [
        {'type': 'mmdf2.LoadImage'},
        {'type': 'mmdf2.Resize', 'scale': (200, 200), 'keep_ratio': True},
        {'type': 'mmdf2.LoadClothesAnnotations', 'with_mask': False},
        {'type': 'mmdf2.PackClothesInputs'},
    ]
    pipeline = [TRANSFORMS.build(step) for step in steps]
    dataset = DeepFashion2Dataset(tiny_root, 'validation', pipeline=pipeline, test_mode=True)
    packed = dataset[0]
    sample, info = packed['data_samples'], dataset.get_data_info(0)
    assert packed['inputs'].shape == (3, 133, 200) and packed['inputs'].dtype == torch.uint8
    assert (sample.source, sample.pair_id, sample.img_id, sample.ori_shape) == ('user', 1, 1, (64, 96))
    expected = [item['bbox'] for item in info['instances']]
    assert sample.gt_instances.bboxes.tensor.tolist() == expected
    for keypoints, visible, item in zip(
        sample.gt_instances.keypoints, sample.gt_instances.keypoints_visible, info['instances'], strict=True
    ):
        count = len(item['landmarks'])
        assert np.array_equal(keypoints[:count].numpy(), item['landmarks'][:, :2])
        assert np.array_equal(visible[:count].numpy(), item['landmarks'][:, 2])


def test_self_crossing_polygon_survives_a_crop():
    bow_tie = instance(8, (30, 20, 90, 70), np.zeros((8, 3)))
    bow_tie['mask'] = [[30, 20, 90, 70, 90, 20, 30, 70]]
    results = loaded([bow_tie])
    whole = results['gt_masks'].to_ndarray()[0]
    crop = RandomCrop((80, 60))
    crop._rand_offset = lambda margins: (15, 20)
    cropped = crop(results)['gt_masks']
    assert isinstance(cropped, PolygonMasks)
    assert np.array_equal(cropped.to_ndarray()[0], whole[15:75, 20:100])


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match='scaling_ratio_range'):
        RandomAffine(scaling_ratio_range=(1.2, 0.8))
    with pytest.raises(ValueError, match='prob'):
        RandomAffine(prob=2)


CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PHOTO = np.random.default_rng(8).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def made_files(folder):
    """Image files of all kinds, and what they show by the arrays that they were made of: (H, W, 3) RGB."""
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 8
    grey = PHOTO[..., 0].astype(np.uint16) * 257
    hidden = np.dstack([PHOTO, np.where(np.arange(80) < 40, 0, 255)[None].repeat(48, 0)]).astype(np.uint8)
    images = {
        'turned.png': (Image.fromarray(np.ascontiguousarray(np.rot90(PHOTO, -1))), {'exif': exif}, PHOTO),
        'deep.png': (Image.fromarray(grey), {}, PHOTO[..., :1].repeat(3, axis=2)),
        'hidden.png': (Image.fromarray(hidden), {}, np.where(hidden[..., 3:] > 0, PHOTO, 255)),
        'palette.png': (Image.fromarray(PHOTO).quantize(256), {}, None),
        'plain.jpg': (Image.fromarray(PHOTO), {'quality': 100, 'subsampling': 0}, PHOTO),
        'turned.jpg': (
            Image.fromarray(PHOTO).transpose(Image.Transpose.ROTATE_270),
            {'exif': exif, 'quality': 100},
            None,
        ),
        'ink.jpg': (Image.fromarray(PHOTO).convert('CMYK'), {'quality': 100}, PHOTO),
    }
    for name, (image, options, expected) in images.items():
        image.save(folder / name, **options)
        yield folder / name, expected


def test_pipelines_see_what_the_inferencer_sees(tmp_path):
    for path, expected in made_files(tmp_path / 'images'):
        results = LoadImage()({'img_path': str(path)})
        assert results['img'].dtype == np.uint8 and results['img'].flags.c_contiguous
        assert results['img_shape'] == results['ori_shape'] == (48, 80) == image_size(path)[::-1]
        np.testing.assert_array_equal(results['img'][..., ::-1], read_image(path))
        if expected is not None:
            np.testing.assert_allclose(results['img'][..., ::-1], expected, atol=0 if path.suffix == '.png' else 24)


def test_images_come_through_a_file_backend(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / 'a.png')
    read = LoadImage(backend_args={'backend': 'local'})({'img_path': str(tmp_path / 'a.png')})['img']
    np.testing.assert_array_equal(read[..., ::-1], PHOTO)


def test_an_image_that_is_cut_short_is_no_grey_image(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / 'cut.jpg')
    data = (tmp_path / 'cut.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r'cut\.jpg is not a readable image'):
        LoadImage()({'img_path': str(tmp_path / 'cut.jpg')})


@pytest.mark.parametrize(('height', 'width'), [(2, 3000), (3000, 2), (1, 9000)])
def test_resizing_leaves_at_least_one_pixel(height, width):
    item = instance(8, (0, 0, width, height), np.zeros((8, 3)))
    item['mask'] = [[0, 0, width, 0, width, height, 0, height]]
    results = LoadClothesAnnotations()(
        {'instances': [item], 'img_shape': (height, width), 'ori_shape': (height, width)}
    )
    results['img'] = np.zeros((height, width, 3), np.uint8)
    resized = Resize(scale=(224, 224), keep_ratio=True)(results)
    expected = (1, 224) if width > height else (224, 1)
    assert resized['img'].shape[:2] == resized['img_shape'] == expected
    assert (resized['gt_masks'].height, resized['gt_masks'].width) == expected
    # Boxes go back to the original image by the factors that are noted.
    box = resized['gt_bboxes'].tensor[0].numpy()
    np.testing.assert_allclose(box, [0, 0, expected[1], expected[0]], rtol=1e-5)
    np.testing.assert_allclose(box / np.tile(resized['scale_factor'], 2), [0, 0, width, height], rtol=1e-5)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('[!_]*/*.py')), ids=lambda path: path.stem)
def test_all_configs_read_images_in_the_one_way(path):
    config = Config.fromfile(str(path))
    for part in ('train', 'val', 'test'):
        steps = [step.type for step in config[f'{part}_dataloader'].dataset.pipeline]
        assert steps[0] == 'mmdf2.LoadImage' and steps.count('mmdf2.LoadImage') == 1
        assert not [step for step in steps if 'LoadImageFrom' in step]

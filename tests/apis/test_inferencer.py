"""A tiny, untrained Match R-CNN on images of all kinds."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from models.tiny import build_tiny, tiny_config
from PIL import Image
from pycocotools import mask as mask_utils

from mmdf2.apis import ClothesInferencer
from mmdf2.categories import CATEGORIES
from mmdf2.engine import CheckpointError
from mmdf2.images import read_image

PIPELINE = [
    {'type': 'mmdf2.LoadImage', 'backend_args': None},
    {'type': 'mmdf2.Resize', 'scale': (96, 64), 'keep_ratio': True},
    {'type': 'mmdf2.LoadClothesAnnotations', 'with_mask': False},
    {'type': 'mmdf2.PackClothesInputs'},
]


def make_config(**roi_head) -> Config:
    return Config({'model': tiny_config(**roi_head), 'test_dataloader': {'dataset': {'pipeline': PIPELINE}}})


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    torch.save({'meta': {'epoch': 1}, 'state_dict': build_tiny().state_dict()}, path)
    return path


@pytest.fixture(scope='module')
def inferencer(checkpoint):
    return ClothesInferencer(make_config(), checkpoint, device='cpu')


def photo(seed=0, size=(64, 96)):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BILINEAR))


@pytest.fixture
def folder(tmp_path):
    """A folder with two images, a folder with a third one, a broken image and a text file."""
    root = tmp_path / 'images'
    (root / 'more').mkdir(parents=True)
    for index, name in enumerate(['a.png', 'b.png', 'more/a.png']):
        Image.fromarray(photo(index)).save(root / name)
    (root / 'broken.jpg').write_bytes(b'no image')
    (root / 'notes.txt').write_text('nothing')
    return SimpleNamespace(root=root, out=tmp_path / 'out')


def test_array_gives_a_data_sample_and_a_picture(inferencer):
    report = inferencer(photo(), score_threshold=0.0, progress=False)
    sample, picture, prediction = report.data_samples[0], report.pictures[0], report.predictions[0]
    instances = sample.pred_instances
    assert len(instances) == len(prediction['garments']) > 0
    assert instances.masks.shape[1:] == picture.shape[:2] == (64, 96)
    assert (picture != photo()).any()
    assert prediction['path'] is None and (prediction['width'], prediction['height']) == (96, 64)
    assert 'gt_instances' not in sample


def test_predictions_say_what_the_data_sample_says(inferencer):
    report = inferencer(photo(), score_threshold=0.0, with_embeddings=True, progress=False)
    instances = report.data_samples[0].pred_instances
    garments = report.predictions[0]['garments']
    assert [garment['score'] for garment in garments] == sorted((g['score'] for g in garments), reverse=True)
    for row, garment in zip(instances.scores.argsort(descending=True, stable=True).tolist(), garments, strict=True):
        category = CATEGORIES[instances.labels[row]]
        assert (garment['category_id'], garment['category_name']) == (category.id, category.name)
        np.testing.assert_allclose(garment['bbox'], instances.bboxes[row], atol=0.006)
        assert [landmark['number'] for landmark in garment['landmarks']] == list(range(1, category.num_landmarks + 1))
        points = [(landmark['x'], landmark['y']) for landmark in garment['landmarks']]
        np.testing.assert_allclose(points, instances.keypoints[row, : category.num_landmarks], atol=0.006)
        np.testing.assert_array_equal(mask_utils.decode(garment['segmentation']), instances.masks[row])
        np.testing.assert_allclose(garment['embedding'], instances.embeddings[row], atol=1e-5)
    assert 'embedding' not in inferencer(photo(), score_threshold=0.0, progress=False).predictions[0]['garments'][0]


def test_folder_is_written_and_a_broken_image_is_named(inferencer, folder):
    report = inferencer(folder.root, out_dir=folder.out, score_threshold=0.0, progress=False)
    assert [prediction['name'] for prediction in report.predictions] == ['a', 'b', 'more_a']
    assert list(report.failures) == [str(folder.root / 'broken.jpg')]
    assert sorted(path.name for path in (folder.out / 'pictures').iterdir()) == ['a.jpg', 'b.jpg', 'more_a.jpg']
    assert read_image(folder.out / 'pictures' / 'b.jpg').shape == (64, 96, 3)
    lines = [json.loads(line) for line in (folder.out / 'predictions.jsonl').read_text().splitlines()]
    assert [line['name'] for line in lines] == ['a', 'b', 'broken', 'more_a']
    assert [line for line in lines if 'error' not in line] == report.predictions
    assert not report.pictures and not report.data_samples
    assert sorted(path.name for path in folder.out.iterdir()) == ['pictures', 'predictions.jsonl']


def test_images_of_one_name_and_a_missing_one_in_a_list(inferencer, folder):
    images = [folder.root / 'a.png', str(folder.root / 'more' / 'a.png'), folder.root / 'gone.png', photo(), photo(1)]
    report = inferencer(images, progress=False)
    assert [prediction['name'] for prediction in report.predictions] == ['a', 'a-2', 'image', 'image-2']
    assert list(report.failures) == [str(folder.root / 'gone.png')]


def test_batches_find_what_single_images_do(inferencer, folder):
    images = [photo(seed) for seed in range(5)]
    single = inferencer([*images[:3], folder.root / 'broken.jpg', *images[3:]], score_threshold=0.0, progress=False)
    batched = inferencer(
        [*images[:3], folder.root / 'broken.jpg', *images[3:]], score_threshold=0.0, batch_size=4, progress=False
    )
    assert len(single.data_samples) == len(batched.data_samples) == 5
    for one, other in zip(single.data_samples, batched.data_samples, strict=True):
        torch.testing.assert_close(other.pred_instances.scores, one.pred_instances.scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(other.pred_instances.bboxes, one.pred_instances.bboxes, rtol=1e-3, atol=1e-2)


def test_file_and_array_of_the_same_pixels_agree(inferencer, folder):
    from_file, from_array = inferencer(
        [folder.root / 'a.png', photo(0)], score_threshold=0.0, progress=False
    ).predictions
    assert from_file['garments'] == from_array['garments']


def test_orientation_tag_is_respected(inferencer, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo()).save(tmp_path / 'turned.png', exif=exif)
    report = inferencer([tmp_path / 'turned.png', np.rot90(photo(), -1)], score_threshold=0.0, progress=False)
    assert report.pictures[0].shape == (96, 64, 3)
    assert report.predictions[0]['garments'] == report.predictions[1]['garments']


def test_threshold_leaves_out_weaker_garments(inferencer):
    everything = inferencer(photo(), score_threshold=0.0, progress=False)
    scores = sorted(garment['score'] for garment in everything.predictions[0]['garments'])
    middle = (scores[0] + scores[-1]) / 2
    kept = inferencer(photo(), score_threshold=middle, progress=False).predictions[0]['garments']
    assert [garment['score'] for garment in kept] == [score for score in reversed(scores) if score >= middle]
    assert not inferencer(photo(), score_threshold=1.0, progress=False).predictions[0]['garments']


def test_streams_that_are_absent_are_absent_from_the_predictions(tmp_path):
    absent = {'mask_head': None, 'keypoint_head': None, 'match_head': None}
    torch.save(build_tiny(**absent).state_dict(), tmp_path / 'plain.pth')
    report = ClothesInferencer(make_config(**absent), tmp_path / 'plain.pth')(
        photo(), score_threshold=0.0, with_embeddings=True, progress=False
    )
    assert set(report.predictions[0]['garments'][0]) == {'category_id', 'category_name', 'score', 'bbox'}


def fails_on(inferencer, monkeypatch, error, *numbers):
    """Makes the model raise an error for batches in which an image has one of these heights."""
    forward = inferencer.model.test_step

    def test_step(data):
        if any(sample.ori_shape[0] in numbers for sample in data['data_samples']):
            raise error
        return forward(data)

    monkeypatch.setattr(inferencer.model, 'test_step', test_step)


def test_files_are_complete_or_named_partial(inferencer, folder, monkeypatch):
    Image.fromarray(photo(size=(62, 96))).save(folder.root / 'b.png')
    fails_on(inferencer, monkeypatch, KeyboardInterrupt(), 62)
    with pytest.raises(KeyboardInterrupt):
        inferencer(folder.root, out_dir=folder.out, progress=False)
    assert not (folder.out / 'predictions.jsonl').exists()
    lines = (folder.out / 'predictions.jsonl.partial').read_text().splitlines()
    assert [json.loads(line)['name'] for line in lines] == ['a']


@pytest.mark.parametrize('batch_size', [1, 3])
def test_an_image_on_which_the_model_fails_is_named_and_the_others_go_on(inferencer, folder, monkeypatch, batch_size):
    Image.fromarray(photo(size=(62, 96))).save(folder.root / 'b.png')
    fails_on(inferencer, monkeypatch, RuntimeError('no such kernel\nmore'), 62)
    report = inferencer(folder.root, out_dir=folder.out, batch_size=batch_size, progress=False)
    assert [prediction['name'] for prediction in report.predictions] == ['a', 'more_a']
    reason = 'the model failed on it: RuntimeError: no such kernel'
    assert report.failures[str(folder.root / 'b.png')] == reason
    lines = [json.loads(line) for line in (folder.out / 'predictions.jsonl').read_text().splitlines()]
    assert [line['name'] for line in lines] == ['a', 'b', 'broken', 'more_a']
    assert [line.get('error') for line in lines][1] == reason
    assert sorted(path.name for path in (folder.out / 'pictures').iterdir()) == ['a.jpg', 'more_a.jpg']


def test_a_model_that_fails_on_every_image_ends_the_run(inferencer, monkeypatch, tmp_path):
    fails_on(inferencer, monkeypatch, RuntimeError('broken'), 62)
    bad, good = photo(size=(62, 96)), photo()
    report = inferencer([*[bad] * 19, good, *[bad] * 19], out_dir=tmp_path, progress=False)
    assert len(report.failures) == 38 and len(report.predictions) == 1
    with pytest.raises(RuntimeError, match='broken'):
        inferencer([good, *[bad] * 20], out_dir=tmp_path / 'second', progress=False)
    assert len((tmp_path / 'second' / 'predictions.jsonl.partial').read_text().splitlines()) == 20


def test_pictures_of_any_shape_and_names_of_any_bytes(inferencer, tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for name, size in {'wide': (3000, 2), 'high': (1, 4000), 'dot': (1, 1), 'plain': (96, 64)}.items():
        Image.fromarray(photo(size=(8, 8))).resize(size).save(folder / f'{name}.png')
    (folder / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    odd = os.fsencode(folder) + b'/bl\xe9.png'
    shutil.copyfile(folder / 'plain.png', odd)
    Image.fromarray(photo()).save(folder / f'{"x" * 251}.png')  # its picture's name is as long as a name may be
    report = inferencer(folder, out_dir=tmp_path / 'out', score_threshold=0.0, progress=False)
    assert {prediction['name'] for prediction in report.predictions} == {'wide', 'high', 'dot', 'plain', 'x' * 251}
    assert len(report.failures) == 2
    assert 'not UTF-8; rename the file' in report.failures[f'{folder}/bl\\xe9.png']
    assert 'No such file' in report.failures[str(folder / 'gone.png')]
    text = (tmp_path / 'out' / 'predictions.jsonl').read_text()
    assert 'udce9' not in text and len(text.splitlines()) == 7
    assert read_image(tmp_path / 'out' / 'pictures' / 'wide.jpg').shape == (2, 3000, 3)


def test_a_picture_that_cannot_be_written_is_named(inferencer, folder):
    (folder.out / 'pictures' / 'b.jpg').mkdir(parents=True)
    report = inferencer(folder.root, out_dir=folder.out, progress=False)
    assert [prediction['name'] for prediction in report.predictions] == ['a', 'more_a']
    assert 'drawing or writing failed on it: IsADirectoryError' in report.failures[str(folder.root / 'b.png')]


@pytest.mark.parametrize(
    ('images', 'error', 'message'),
    [
        ('nowhere.jpg', FileNotFoundError, 'nowhere.jpg: there is no such image or folder'),
        (7, TypeError, 'got int'),
    ],
)
def test_bad_input_is_named(inferencer, images, error, message):
    with pytest.raises(error, match=message):
        inferencer(images, progress=False)


@pytest.mark.parametrize('array', [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)])
def test_arrays_that_are_no_images_are_failures(inferencer, array):
    report = inferencer([array, photo()], progress=False)
    assert len(report.predictions) == 1
    assert 'must be (H, W, 3) uint8 RGB' in report.failures['image']


def test_checkpoint_of_another_model_is_refused(checkpoint):
    with pytest.raises(CheckpointError, match=r'does not fit the config.s model'):
        ClothesInferencer(make_config(match_head=None), checkpoint)
    with pytest.raises(FileNotFoundError):
        ClothesInferencer(make_config(), 'nowhere.pth')


def test_draws_on_photos(inferencer, photo_root, tmp_path):
    report = inferencer(photo_root / 'validation' / 'image', out_dir=tmp_path, score_threshold=0.0, progress=False)
    assert [prediction['name'] for prediction in report.predictions] == ['000264', '000265']
    assert read_image(tmp_path / 'pictures' / '000264.jpg').shape == (750, 750, 3)
    assert read_image(tmp_path / 'pictures' / '000265.jpg').shape == (750, 560, 3)

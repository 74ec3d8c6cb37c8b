"""Reading official result files: what was written comes back, what is no such file is refused by entry and field."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from analysis.made_results import make_detections, make_lists, write_made_results
from mmdf2.analysis.result_files import read_detections, read_retrieval, run_lengths
from mmdf2.categories import CATEGORIES
from mmdf2.datasets.store import open_or_prepare
from mmdf2.evaluation.records import EvaluationError

SIZES = {1: (4, 6)}
ENTRY = {'image_id': 1, 'category_id': 2, 'score': 0.5, 'bbox': [0, 0, 3, 2]}
MASK = mask_utils.encode(np.eye(4, 6, dtype=np.uint8, order='F'))
TEXT = MASK['counts'].decode()


@pytest.fixture(scope='module')
def store(tiny_root):
    return open_or_prepare(tiny_root, 'validation')


def sizes_of(store):
    return {int(i): (int(h), int(w)) for i, h, w in zip(store.image_ids, store.heights, store.widths, strict=True)}


def test_what_is_written_is_read(store, tmp_path):
    paths = write_made_results(store, tmp_path, seed=1)
    made = make_detections(store, np.random.default_rng(1))
    for kind in ('bbox', 'segm', 'keypoints'):
        read = read_detections(paths[f'--{kind}'], kind, sizes_of(store))
        for name in ('image_ids', 'labels', 'scores'):
            assert (getattr(read, name) == getattr(made, name)).all()
        if kind == 'bbox':
            np.testing.assert_array_equal(read.boxes, made.boxes)
        elif kind == 'segm':
            assert [mask['counts'] for mask in read.masks] == [mask['counts'] for mask in made.masks]
        else:
            for row, label in enumerate(made.labels):
                own = CATEGORIES[label].num_landmarks
                np.testing.assert_array_equal(read.landmarks[row, :own], made.landmarks[row, :own])
                assert not read.landmarks[row, own:].any()


def test_lists_are_read_and_cut_to_twenty(store, tmp_path):
    lists = make_lists(store, np.random.default_rng(2))
    lists[0]['gallery_image_id'], lists[0]['gallery_bbox'] = [2] * 25, [[0, 0, 5, 5]] * 25
    lists[1]['gallery_image_id'], lists[1]['gallery_bbox'] = [], []
    path = tmp_path / 'r.json'
    path.write_text(json.dumps(lists))
    read = read_retrieval(path)
    assert [len(ids) for ids in read.hit_images[:2]] == [20, 0] and read.hit_boxes[1].shape == (0, 4)
    assert read.labels.tolist() == [entry['query_cls'] - 1 for entry in lists]
    np.testing.assert_array_equal(read.hit_boxes[2], lists[2]['gallery_bbox'])


def test_run_lengths_are_pycocotools():
    rng = np.random.default_rng(0)
    for size in ((1, 1), (3, 5), (40, 30), (700, 800)):
        for share in (0.0, 0.02, 0.5, 1.0):
            mask = (rng.random(size) < share).astype(np.uint8)
            flat = mask.ravel(order='F')
            runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]]))
            expected = runs if flat[0] == 0 else np.concatenate([[0], runs])
            encoded = mask_utils.encode(np.asfortranarray(mask))['counts']
            assert run_lengths(encoded).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image_id': 7}, 'image_id must be an image of the ground truth, got 7'),
        ({'image_id': 1.5}, 'image_id must be a whole number'),
        ({'image_id': 10**400}, 'image_id must be a finite number'),
        ({'category_id': 0}, 'category_id must be a category_id from 1 to 13, got 0'),
        ({'score': float('nan')}, 'score must be a finite number, got nan'),
        ({'score': None}, 'score must be a finite number'),
        ({'bbox': [0, 0, 3]}, r'bbox must be 4 finite numbers, got \[0, 0, 3\]'),
        ({'bbox': [0, 0, 3, -1]}, 'bbox must be x, y, width, height, neither negative'),
        ({'bbox': [[0], [0], [3], [1]]}, 'bbox must be 4 finite numbers'),
        ({'bbox': 'x'}, "bbox must be 4 finite numbers, got 'x'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    path = tmp_path / 'b.json'
    path.write_text(json.dumps([ENTRY, {**ENTRY, **change}]))
    with pytest.raises(EvaluationError, match=rf'b.json: entry 1 \(from 0\): {message}'):
        read_detections(path, 'bbox', SIZES)


@pytest.mark.parametrize(
    'mask',
    [
        None,
        {'size': [4, 6]},
        {'size': [6, 4], 'counts': TEXT},
        {'size': [4, 6], 'counts': TEXT[:-1]},
        {'size': [4, 6], 'counts': TEXT + 'o'},
        {'size': [4, 6], 'counts': 'ooooooooooooooooooo0'},
        {'size': [4, 6], 'counts': '\x00'},
        {'size': [4, 6], 'counts': 'é'},
        {'size': [4, 6], 'counts': [30, -6]},
        {'size': [4, 6], 'counts': [[24]]},
        {'size': [4, 6], 'counts': [10**30]},
        {'size': [4, 6], 'counts': [23]},
        [[0, 0, 3, 0, 3, 3]],
    ],
)
def test_masks_that_are_none_of_their_image_are_refused(tmp_path, mask):
    path = tmp_path / 's.json'
    path.write_text(json.dumps([{**ENTRY, 'segmentation': mask}]))
    with pytest.raises(EvaluationError, match=r'entry 0 \(from 0\): segmentation must be a run-length mask'):
        read_detections(path, 'segm', SIZES)


def test_both_spellings_of_a_mask_are_read(tmp_path):
    path = tmp_path / 's.json'
    runs = run_lengths(MASK['counts']).tolist()
    masks = [{'size': [4, 6], 'counts': counts} for counts in (TEXT, runs)]
    path.write_text(json.dumps([{**ENTRY, 'segmentation': mask} for mask in masks]))
    read = read_detections(path, 'segm', SIZES)
    assert [mask['counts'] for mask in read.masks] == [MASK['counts']] * 2
    assert read.boxes.tolist() == [[0, 0, 4, 4]] * 2


@pytest.mark.parametrize('text', ['', '{', '{"a": 1}', '[1]', '[' * 100_000, 'null'])
def test_what_is_no_list_of_objects_is_refused(tmp_path, text):
    path = tmp_path / 'x.json'
    path.write_text(text)
    with pytest.raises(EvaluationError, match=r'x\.json'):
        read_detections(path, 'bbox', SIZES)


def test_lists_of_other_lengths_are_refused(tmp_path):
    entry = {'query_image_id': 1, 'query_bbox': [0, 0, 1, 1], 'query_cls': 1, 'query_score': 1}
    path = tmp_path / 'r.json'
    path.write_text(json.dumps([{**entry, 'gallery_image_id': [1, 2], 'gallery_bbox': [[0, 0, 1, 1]]}]))
    with pytest.raises(EvaluationError, match='gallery_bbox must be 2 x 4 finite numbers'):
        read_retrieval(path)


def test_an_empty_file_has_no_detections(tmp_path):
    path = tmp_path / 'e.json'
    path.write_text('[]')
    for kind in ('bbox', 'segm', 'keypoints'):
        assert len(read_detections(path, kind, SIZES).scores) == 0
    assert read_retrieval(path).boxes.shape == (0, 4)

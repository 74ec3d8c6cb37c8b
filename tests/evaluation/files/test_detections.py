"""The official result files of detection: the fields of the official examples, the same arrays back, and refusals."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmdf2.categories import CATEGORIES
from mmdf2.evaluation.files.detections import detection_results, read_detections
from mmdf2.evaluation.files.json_list import write_results
from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.truth import open_truth

from ..coco_reference import (
    SIZE,
    random_world,
)

# The fields of the official examples of result files.
OFFICIAL_LANDMARKS = {'image_id': int, 'category_id': int, 'keypoints': list, 'score': float}
OFFICIAL_KEYPOINT_COUNT = 882  # 3 * 294 numbers
RESULT = {'image_id': 7, 'category_id': 2, 'score': 0.5}
RUNS = {'size': [4, 5], 'counts': [3, 4, 13]}


@pytest.fixture(scope='module')
def detections():
    return random_world(np.random.default_rng(2))[1]


def test_keypoints_have_the_fields_of_the_official_example(detections, tmp_path):
    written = write_results(tmp_path / 'k.json', detection_results(detections, 'keypoints'))
    result = json.loads(written.read_text())[0]
    assert set(result) == set(OFFICIAL_LANDMARKS)
    assert len(result['keypoints']) == OFFICIAL_KEYPOINT_COUNT == 3 * 294


def test_landmarks_stand_in_the_columns_of_their_category(detections):
    for row, result in enumerate(detection_results(detections, 'keypoints')):
        category = CATEGORIES[detections.labels[row]]
        dense = np.reshape(result['keypoints'], (294, 3))
        own = dense[category.offset : category.offset + category.num_landmarks]
        np.testing.assert_array_equal(own[:, :2], detections.landmarks[row, : category.num_landmarks])
        assert (own[:, 2] == 1).all()
        assert dense.any(axis=1).sum() == category.num_landmarks
        # Written as 0 and not as 0.0, the zeros of other categories make the file of a split gigabytes smaller.
        zeros = result['keypoints'][: 3 * category.offset] + result['keypoints'][3 * category.dense_slice.stop :]
        assert set(map(repr, zeros)) <= {'0'}
        assert result['category_id'] == detections.labels[row] + 1


def test_boxes_and_masks_read_back_to_the_last_bit(detections, tmp_path):
    boxes = json.loads(write_results(tmp_path / 'b.json', detection_results(detections, 'bbox')).read_text())
    np.testing.assert_array_equal([result['bbox'] for result in boxes], detections.boxes)
    np.testing.assert_array_equal([result['score'] for result in boxes], detections.scores)
    masks = json.loads(write_results(tmp_path / 'm.json', detection_results(detections, 'segm')).read_text())
    for result, mask in zip(masks, detections.masks, strict=True):
        np.testing.assert_array_equal(mask_utils.decode(result['segmentation']), mask_utils.decode(mask))


def test_an_absent_stream_is_refused(detections):
    with pytest.raises(ValueError, match="got 'boxes'"):
        list(detection_results(detections, 'boxes'))
    bare = type(detections)(detections.image_ids, detections.labels, detections.scores, detections.boxes)
    with pytest.raises(ValueError, match="got 'segm'"):
        list(detection_results(bare, 'segm'))


@pytest.mark.parametrize('kind', ['bbox', 'segm', 'keypoints'])
def test_what_is_written_is_read_back_to_the_bit(tmp_path, kind):
    truth, detections = random_world(np.random.default_rng(3))
    path = write_results(tmp_path / 'results.json', detection_results(detections, kind))
    found = read_detections(path, kind, dict.fromkeys(truth.image_ids.tolist(), (SIZE, SIZE)))
    for name in ('image_ids', 'labels', 'scores'):
        np.testing.assert_array_equal(getattr(found, name), getattr(detections, name))
    if kind == 'segm':
        assert [(list(mask['size']), mask['counts']) for mask in found.masks] == [
            (list(mask['size']), mask['counts']) for mask in detections.masks
        ]
    else:
        name = {'bbox': 'boxes', 'keypoints': 'landmarks'}[kind]
        np.testing.assert_array_equal(getattr(found, name), getattr(detections, name))


def test_empty_files(tmp_path):
    (tmp_path / 'none.json').write_text('[]')
    for kind in ('bbox', 'segm', 'keypoints'):
        assert len(read_detections(tmp_path / 'none.json', kind, {1: (4, 4)}).scores) == 0
    (tmp_path / 'gt.json').write_text('{"images": [], "annotations": []}')
    source = open_truth(tmp_path / 'gt.json')
    assert source.sizes == {} and len(source.ground_truth.labels) == 0 and source.bare() == frozenset()


@pytest.mark.parametrize(
    ('kind', 'changes', 'message'),
    [
        ('bbox', {'image_id': 8}, 'image_id should be the id of an image of the ground truth, got 8'),
        ('bbox', {'image_id': 7.0}, 'image_id should be'),
        ('bbox', {'category_id': 0}, 'category_id should be an integer from 1 to 13, got 0'),
        ('bbox', {'category_id': 14}, 'category_id should be'),
        ('bbox', {'score': float('nan')}, 'score should be a finite number, got nan'),
        ('bbox', {'score': '0.9'}, 'score should be'),
        ('bbox', {'bbox': [0, 0, 1]}, r'bbox should be x, y, width, height, .* got \[0, 0, 1\]'),
        ('bbox', {'bbox': [0, 0, -1, 2]}, 'bbox should be .* not negative'),
        ('bbox', {'bbox': None}, 'bbox should be'),
        ('segm', {'segmentation': {**RUNS, 'size': [5, 4]}}, r"a mask of the image's size \[4, 5\]"),
        ('segm', {'segmentation': {**RUNS, 'counts': [3, 4, 14]}}, 'whose runs add up to 4 x 5 pixels'),
        ('segm', {'segmentation': {**RUNS, 'counts': [3, -4, 21]}}, 'whose runs add up'),
        ('segm', {'segmentation': {**RUNS, 'counts': '34P'}}, 'whose runs add up to 4 x 5'),
        ('segm', {'segmentation': {**RUNS, 'counts': 'ooooooooooo'}}, 'whose runs add up to 4 x 5'),
        ('segm', {'segmentation': {**RUNS, 'counts': 'ü'}}, 'a run-length mask'),
        ('segm', {'segmentation': []}, 'a run-length mask'),
        ('segm', {'segmentation': [[1, 1, 2, 2]]}, 'a run-length mask'),
        ('segm', {'segmentation': [[1, 1, 2, 2, 1e9, 3]]}, 'a run-length mask'),
        ('segm', {}, 'segmentation is missing'),
        ('keypoints', {'keypoints': [0] * 881}, 'keypoints should be 882 finite numbers'),
        ('keypoints', {'keypoints': [0] * 881 + [float('inf')]}, 'keypoints should be 882 finite numbers'),
    ],
)
def test_malformed_results_name_line_entry_and_field(tmp_path, kind, changes, message):
    fitting = {'bbox': [0, 0, 1, 1], 'segmentation': RUNS, 'keypoints': [0] * 882}[
        {'bbox': 'bbox', 'segm': 'segmentation', 'keypoints': 'keypoints'}[kind]
    ]
    field = {'bbox': 'bbox', 'segm': 'segmentation', 'keypoints': 'keypoints'}[kind]
    good = {**RESULT, field: fitting}
    bad = {**good, **changes} if changes else RESULT
    path = tmp_path / 'results.json'
    path.write_text('[\n' + ',\n'.join(map(json.dumps, [good, good, bad, good])) + '\n]')
    with pytest.raises(EvaluationError, match=rf'results\.json, line 4, entry 2: .*{message}'):
        read_detections(path, kind, {7: (4, 5)})
    path.write_text('[\n' + json.dumps(good) + ']')
    assert len(read_detections(path, kind, {7: (4, 5)}).scores) == 1

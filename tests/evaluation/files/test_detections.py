"""The official result files: the fields of the official examples, complete or not there at all."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmdf2.categories import CATEGORIES
from mmdf2.evaluation.files.detections import detection_results
from mmdf2.evaluation.files.json_list import write_results
from mmdf2.evaluation.files.retrieval import retrieval_result

from ..coco_reference import random_world

# The fields of the official examples of result files.
OFFICIAL_LANDMARKS = {'image_id': int, 'category_id': int, 'keypoints': list, 'score': float}
OFFICIAL_RETRIEVAL = {
    'query_image_id': int,
    'query_bbox': list,
    'query_cls': int,
    'query_score': float,
    'gallery_image_id': list,
    'gallery_bbox': list,
}
OFFICIAL_KEYPOINT_COUNT = 882  # 3 * 294 numbers


@pytest.fixture(scope='module')
def detections():
    return random_world(np.random.default_rng(2))[1]


def test_keypoints_have_the_fields_of_the_official_example(detections, tmp_path):
    written = write_results(tmp_path / 'k.json', detection_results(detections, 'keypoints'))
    result = json.loads(written.read_text())[0]
    assert set(result) == set(OFFICIAL_LANDMARKS)
    assert len(result['keypoints']) == OFFICIAL_KEYPOINT_COUNT == 3 * 294


def test_retrieval_has_the_fields_of_the_official_example():
    result = retrieval_result(1, np.ones(4), 12, np.float32(0.5), np.arange(3), np.ones((3, 4), np.float32))
    assert {key: type(value) for key, value in result.items()} == OFFICIAL_RETRIEVAL
    assert result['query_cls'] == 13


def test_landmarks_stand_in_the_columns_of_their_category(detections):
    for row, result in enumerate(detection_results(detections, 'keypoints')):
        category = CATEGORIES[detections.labels[row]]
        dense = np.reshape(result['keypoints'], (294, 3))
        own = dense[category.offset : category.offset + category.num_landmarks]
        np.testing.assert_array_equal(own[:, :2], detections.landmarks[row, : category.num_landmarks])
        assert (own[:, 2] == 1).all()
        assert dense.any(axis=1).sum() == category.num_landmarks
        assert result['category_id'] == detections.labels[row] + 1


def test_boxes_and_masks_read_back_to_the_last_bit(detections, tmp_path):
    boxes = json.loads(write_results(tmp_path / 'b.json', detection_results(detections, 'bbox')).read_text())
    np.testing.assert_array_equal([result['bbox'] for result in boxes], detections.boxes)
    np.testing.assert_array_equal([result['score'] for result in boxes], detections.scores)
    masks = json.loads(write_results(tmp_path / 'm.json', detection_results(detections, 'segm')).read_text())
    for result, mask in zip(masks, detections.masks, strict=True):
        np.testing.assert_array_equal(mask_utils.decode(result['segmentation']), mask_utils.decode(mask))


def test_an_empty_list_is_a_list(tmp_path):
    assert json.loads(write_results(tmp_path / 'deep' / 'er' / 'e.json', []).read_text()) == []


@pytest.mark.parametrize('failure', [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_beside(tmp_path, failure):
    path = write_results(tmp_path / 'r.json', [{'score': 1}])

    def broken():
        yield {'score': 2}
        raise failure

    with pytest.raises(failure):
        write_results(path, broken())
    assert json.loads(path.read_text()) == [{'score': 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_values_that_json_cannot_say_are_refused(tmp_path):
    with pytest.raises(ValueError, match='JSON compliant'):
        write_results(tmp_path / 'r.json', [{'score': float('nan')}])
    assert not list(tmp_path.iterdir())


def test_an_absent_stream_is_refused(detections):
    with pytest.raises(ValueError, match="got 'boxes'"):
        list(detection_results(detections, 'boxes'))
    bare = type(detections)(detections.image_ids, detections.labels, detections.scores, detections.boxes)
    with pytest.raises(ValueError, match="got 'segm'"):
        list(detection_results(bare, 'segm'))

"""Ground truth and results through files: the same arrays back, pycocotools' figures, and refusals that say where."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mmdf2.categories import ATTRIBUTES
from mmdf2.evaluation.coco import MAX_DETECTIONS, TASKS, evaluate_task
from mmdf2.evaluation.files.detections import detection_results, read_detections
from mmdf2.evaluation.files.json_list import write_results
from mmdf2.evaluation.records import COLUMNS, EvaluationError, column_members
from mmdf2.evaluation.truth import open_truth

from ..coco_reference import (
    SIZE,
    random_world,
    reference_dataset,
    reference_result,
    reference_results,
    with_crowds_and_areas,
    with_stray_landmarks,
)


def through_files(folder, truth, detections, task):
    """Ground truth and detections as pycocotools would be given them, written and read."""
    kind = task.split('_')[0]
    dataset = reference_dataset(truth, task, np.ones(len(truth.labels), bool))
    for item, attributes in zip(dataset['annotations'], truth.attributes.tolist(), strict=True):
        item.update(zip(ATTRIBUTES, attributes, strict=True))
    for item in dataset['annotations']:
        if item['segmentation']:
            item['segmentation'] = {**item['segmentation'], 'counts': item['segmentation']['counts'].decode()}
    results = reference_results(detections, kind)
    for result in results if kind == 'segm' else ():
        result['segmentation'] = {**result['segmentation'], 'counts': result['segmentation']['counts'].decode()}
    gt, found = folder / 'gt.json', folder / f'{kind}.json'
    gt.write_text(json.dumps(dataset))
    found.write_text(json.dumps(results))
    source = open_truth(gt, masks=kind == 'segm', landmarks=kind == 'keypoints')
    bare = source.bare() if kind == 'keypoints' else frozenset()
    return source, read_detections(found, kind, source.sizes, bare)


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('seed', range(3))
def test_figures_of_files_are_pycocotools(tmp_path, task, seed):
    rng = np.random.default_rng(seed)
    truth, detections = random_world(rng, 12, 6, 10)
    truth, detections = with_crowds_and_areas(rng, truth), with_stray_landmarks(rng, detections)
    assert_equals_reference_through_files(tmp_path, truth, detections, task)


def assert_equals_reference_through_files(folder, truth, detections, task):
    """Every cell of every column."""
    source, found = through_files(folder, truth, detections, task)
    columns = COLUMNS if len(truth.labels) else (COLUMNS[-1],)
    result = evaluate_task(source.ground_truth, found, task, columns)
    members = column_members(columns, len(truth.labels), truth.attributes)
    for row, column in enumerate(columns):
        precision, recall = reference_result(truth, detections, task, members[row])
        np.testing.assert_allclose(result.precision[row], precision, atol=1e-9, rtol=0, err_msg=column)
        np.testing.assert_allclose(result.recall[row], recall, atol=1e-9, rtol=0, err_msg=column)


def without_size(truth):
    """The ground truth with boxes that have no area."""
    boxes = truth.boxes.copy()
    boxes[:, 2 + np.arange(len(boxes)) % 2] = 0
    return replace(truth, boxes=boxes)


# World -> arguments of ``random_world``, and what is done to its ground truth and detections.
HOSTILE = {
    'no detections': ({'max_found': 0}, None, None),
    'no ground truth': ({'max_items': 0}, None, None),
    'ties everywhere': ({'max_items': 6}, None, lambda found: replace(found, scores=np.zeros(len(found.scores)))),
    'more than count': ({'num_images': 2, 'max_items': 12, 'max_found': 150, 'labels': (5,)}, None, None),
    'boxes without area': ({'max_items': 6}, without_size, None),
    'only crowds': ({}, lambda truth: replace(truth, crowds=np.ones(len(truth.labels), bool)), None),
}


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('world', HOSTILE)
def test_hostile_worlds_through_files_are_pycocotools(tmp_path, task, world):
    arguments, change_truth, change_found = HOSTILE[world]
    truth, detections = random_world(np.random.default_rng(4), **arguments)
    truth = change_truth(truth) if change_truth else truth
    detections = change_found(detections) if change_found else detections
    if world == 'more than count':
        assert np.unique(detections.image_ids, return_counts=True)[1].max() > MAX_DETECTIONS[task]
    assert_equals_reference_through_files(tmp_path, truth, detections, task)


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


RESULT = {'image_id': 7, 'category_id': 2, 'score': 0.5}
RUNS = {'size': [4, 5], 'counts': [3, 4, 13]}


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


IMAGE = {'id': 7, 'height': 4, 'width': 5}
ITEM = {'image_id': 7, 'category_id': 2, 'bbox': [0, 0, 1, 1], 'segmentation': RUNS, 'keypoints': [0] * 882}


@pytest.mark.parametrize(
    ('images', 'items', 'message'),
    [
        ([IMAGE, IMAGE], [ITEM], 'entry 1: id should be an id that no image before it has, got 7'),
        ([{**IMAGE, 'height': 0}], [], 'entry 0: height should be an integer from 1 to'),
        (
            [IMAGE],
            [ITEM, {**ITEM, 'image_id': 8}],
            "entry 1: image_id should be the id of one of the file's images",
        ),
        ([IMAGE], [{**ITEM, 'iscrowd': 2}], 'iscrowd should be an integer from 0 to 1'),
        (
            [IMAGE],
            [{**ITEM, 'keypoints': [1, 1, 2] * 294}],
            'should be labelled .* in columns 25 to 57 alone',
        ),
        ([IMAGE], [{**ITEM, 'keypoints': [1, 1, 3] + [0] * 879}], 'x, y, v with v 0, 1 or 2'),
        ([IMAGE], [{**ITEM, 'num_keypoints': 1}], 'num_keypoints should be 0'),
        ([IMAGE], [{k: v for k, v in ITEM.items() if k != 'segmentation'}], 'segmentation is missing'),
        ([IMAGE], [ITEM, {**ITEM, 'scale': 1, 'occlusion': 1, 'zoom_in': 1, 'viewpoint': 1}], 'some annotations have'),
    ],
)
def test_malformed_ground_truth(tmp_path, images, items, message):
    path = tmp_path / 'gt.json'
    path.write_text(json.dumps({'images': images, 'annotations': items}))
    with pytest.raises(EvaluationError, match=message):
        open_truth(path)


def test_annotations_may_stand_before_images(tmp_path):
    path = tmp_path / 'gt.json'
    path.write_text(json.dumps({'annotations': [ITEM], 'categories': [], 'images': [IMAGE]}))
    assert open_truth(path).ground_truth.image_ids.tolist() == [7]


def test_a_folder_that_is_no_ground_truth(tmp_path):
    with pytest.raises(EvaluationError, match='is no ground truth: a JSON file in COCO format, the folder of a store'):
        open_truth(tmp_path)

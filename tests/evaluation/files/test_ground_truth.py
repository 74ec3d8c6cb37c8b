"""Ground truth in COCO's format: pycocotools' figures through files, and refusals that name the entry."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mmdf2.categories import ATTRIBUTES, CATEGORIES
from mmdf2.evaluation.coco import MAX_DETECTIONS, TASKS, evaluate_task
from mmdf2.evaluation.evaluate import ResultFiles, evaluate_files
from mmdf2.evaluation.files.detections import read_detections
from mmdf2.evaluation.records import COLUMNS, EvaluationError, column_members
from mmdf2.evaluation.report.figures import task_figures
from mmdf2.evaluation.truth import open_truth

from ..coco_reference import (
    random_world,
    reference_dataset,
    reference_result,
    reference_results,
    with_crowds_and_areas,
    with_stray_landmarks,
)

RUNS = {'size': [4, 5], 'counts': [3, 4, 13]}
IMAGE = {'id': 7, 'height': 4, 'width': 5}
ITEM = {'image_id': 7, 'category_id': 2, 'bbox': [0, 0, 1, 1], 'segmentation': RUNS, 'keypoints': [0] * 882}


def through_files(folder, truth, detections, task):
    """Writes ground truth and detections as pycocotools takes them, and reads them."""
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
    """Every cell of every column is that of pycocotools."""
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


# Name -> arguments of ``random_world``, and the changes made to its ground truth and to its detections.
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


def renamed(name, way):
    """The name of a category as other tools write it."""
    return {0: name, 1: name.title(), 2: name.replace(' ', '_'), 3: f' {name.upper()}'.replace(' ', '-')[1:]}[way % 4]


@pytest.mark.parametrize('place', ['first', 'last'])
@pytest.mark.parametrize('task', ['bbox', 'segm', 'keypoints_visible'])
@pytest.mark.parametrize('seed', range(2))
def test_categories_are_taken_by_name_from_the_file(tmp_path, task, place, seed):
    """Other ids, in the ground truth and in results, change no figure."""
    rng = np.random.default_rng(seed)
    truth, detections = random_world(rng, 8, 6, 10)
    kind = task.split('_')[0]
    source, found = through_files(tmp_path, truth, detections, task)
    wanted = evaluate_task(source.ground_truth, found, task, COLUMNS)
    # Rows of the table change places in one turn; in the other, the ids are large and one of them is unused.
    ids = dict(enumerate(rng.permutation(13) + 1 if seed else rng.permutation(1000)[:13], start=1))
    dataset, results = (json.loads((tmp_path / name).read_text()) for name in ('gt.json', f'{kind}.json'))
    for entry in (*dataset['annotations'], *results):
        entry['category_id'] = int(ids[entry['category_id']])
    categories = [{'id': int(ids[c.id]), 'name': renamed(c.name, c.id)} for c in CATEGORIES]
    rng.shuffle(categories)
    others = {key: value for key, value in dataset.items() if key != 'categories'}
    dataset = {'categories': categories, **others} if place == 'first' else {**others, 'categories': categories}
    (tmp_path / 'gt.json').write_text(json.dumps(dataset))
    (tmp_path / f'{kind}.json').write_text(json.dumps(results))
    source = open_truth(tmp_path / 'gt.json', masks=kind == 'segm', landmarks=kind == 'keypoints')
    bare = source.bare() if kind == 'keypoints' else frozenset()
    found = read_detections(tmp_path / f'{kind}.json', kind, source.sizes, bare, source.labels)
    np.testing.assert_equal(
        task_figures(evaluate_task(source.ground_truth, found, task, COLUMNS)), task_figures(wanted)
    )
    report = evaluate_files(ResultFiles(**{kind: tmp_path / f'{kind}.json'}), tmp_path / 'gt.json')
    assert any('are taken by name' in note for note in report['about']['notes'])
    assert report[task]['overall'] == task_figures(wanted)['overall']


def write_truth(path, categories, items):
    path.write_text(json.dumps({'images': [IMAGE], 'annotations': items, 'categories': categories}))
    return path


@pytest.mark.parametrize('place', [1, -1])
@pytest.mark.parametrize(
    ('categories', 'message'),
    [
        (
            [{'id': 2, 'name': 'hat'}],
            r'category_id should be the id of a category of DeepFashion2 in .* \(none\); correct .* got 2',
        ),
        (
            [{'id': 3, 'name': 'skirt'}],
            r'category_id should be .* \(3 skirt\); correct the names there, or leave .* got 2',
        ),
        (
            [{'id': 2, 'name': 'skirt'}, {'id': 2, 'name': 'vest'}],
            'entry 1: id should be an id that no category before',
        ),
        (
            [{'id': 2, 'name': 'skirt'}, {'id': 3, 'name': 'Skirt'}],
            'entry 1: name should be the name of a category that no',
        ),
        ([{'id': 2, 'name': 7}], 'entry 0: name should be the name of a category, got 7'),
        ([{'name': 'skirt'}], 'entry 0: id is missing'),
    ],
)
def test_categories_that_say_nothing_are_refused(tmp_path, categories, message, place):
    path = write_truth(tmp_path / 'gt.json', categories, [ITEM])
    if place == 1:
        path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    with pytest.raises(EvaluationError, match=message):
        open_truth(path)


def test_categories_without_names_have_the_own_ids(tmp_path):
    path = write_truth(tmp_path / 'gt.json', [{'id': number} for number in range(1, 14)], [ITEM])
    assert open_truth(path).ground_truth.labels.tolist() == [1]


def test_boxes_that_look_like_corners_are_noted(tmp_path):
    items = [{**ITEM, 'bbox': [3, 2, 5, 4]}, {**ITEM, 'bbox': [2, 2, 5, 4]}, {**ITEM, 'bbox': [0, 0, 1, 1]}]
    gt, results = write_truth(tmp_path / 'gt.json', [], items), tmp_path / 'results.json'
    results.write_text(json.dumps([{'image_id': 7, 'category_id': 2, 'score': 0.5, 'bbox': [1, 1, 4, 3]}]))
    notes = evaluate_files(ResultFiles(bbox=results), gt)['about']['notes']
    assert not any('corners' in note for note in notes if 'results.json' in note)
    assert any('gt.json: 2 of 3 boxes reach beyond their images' in note for note in notes)
    results.write_text(json.dumps([{'image_id': 7, 'category_id': 2, 'score': 0.5, 'bbox': [3, 2, 5, 4]}]))
    notes = evaluate_files(ResultFiles(bbox=results), gt)['about']['notes']
    assert any('results.json: 1 of 1 boxes reach beyond' in note and 'not corners' in note for note in notes)


def test_boxes_that_look_like_shares_are_noted(tmp_path):
    gt, results = write_truth(tmp_path / 'gt.json', [], [ITEM]), tmp_path / 'results.json'
    for box, noted in (([0.1, 0.2, 0.5, 0.4], True), ([0.1, 0.2, 1.5, 0.4], False)):
        results.write_text(json.dumps([{'image_id': 7, 'category_id': 2, 'score': 0.5, 'bbox': box}]))
        notes = evaluate_files(ResultFiles(bbox=results), gt)['about']['notes']
        assert any('results.json: no coordinate of its 1 boxes is beyond 1' in note for note in notes) == noted

"""COCO's evaluation against pycocotools, cell by cell, on random worlds and on hostile ones."""

import numpy as np
import pytest
from pycocotools.mask import area

from mmdf2.evaluation.coco import TASKS, evaluate_task
from mmdf2.evaluation.records import COLUMNS, OVERALL, Detections, EvaluationError, GroundTruth, column_members

from .coco_reference import SIZE, random_world, reference_result, with_crowds_and_areas, with_stray_landmarks


def assert_equals_reference(truth, detections, task, columns=(OVERALL,)):
    result = evaluate_task(truth, detections, task, columns)
    members = column_members(columns, len(truth.labels), truth.attributes)
    for row, column in enumerate(columns):
        precision, recall = reference_result(truth, detections, task, members[row])
        np.testing.assert_allclose(result.precision[row], precision, atol=1e-9, rtol=0, err_msg=column)
        np.testing.assert_allclose(result.recall[row], recall, atol=1e-9, rtol=0, err_msg=column)
        for iou, place in ((None, slice(None)), (0.5, 0), (0.75, 5)):
            np.testing.assert_allclose(
                result.average_precision(column, iou), mean_or_nan(precision[place]), atol=1e-9, equal_nan=True
            )
        np.testing.assert_allclose(result.average_recall(column), mean_or_nan(recall), atol=1e-9, equal_nan=True)
    return result


def mean_or_nan(values):
    values = values[~np.isnan(values)]
    return values.mean() if values.size else np.nan


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('seed', range(6))
def test_random_worlds_in_all_columns(task, seed):
    truth, detections = random_world(np.random.default_rng(seed))
    result = assert_equals_reference(truth, detections, task, COLUMNS)
    assert 0.01 < result.average_precision() < 0.99, 'the world decides nothing'


@pytest.mark.parametrize('task', TASKS)
def test_crowded_images_with_more_detections_than_count(task):
    truth, detections = random_world(np.random.default_rng(7), 2, 12, 160 if 'keypoints' not in task else 60, (5,))
    assert np.unique(detections.image_ids, return_counts=True)[1].max() > (20 if 'keypoints' in task else 100)
    assert_equals_reference(truth, detections, task, COLUMNS)


@pytest.mark.parametrize('task', TASKS)
def test_ties_everywhere(task):
    truth, detections = random_world(np.random.default_rng(8), 6, 6, 10, (2,))
    same = np.zeros(len(detections.scores))
    detections = Detections(
        image_ids=detections.image_ids,
        labels=detections.labels,
        scores=same,
        boxes=detections.boxes,
        masks=detections.masks,
        landmarks=detections.landmarks,
    )
    assert_equals_reference(truth, detections, task, COLUMNS)


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('seed', range(4))
def test_crowds_and_areas_of_their_own(task, seed):
    rng = np.random.default_rng(seed)
    truth, detections = random_world(rng, 12, 6, 10)
    changed = with_crowds_and_areas(rng, truth)
    result = assert_equals_reference(changed, detections, task, COLUMNS)
    plain = evaluate_task(truth, detections, task)
    assert result.num_truths[-1].sum() < plain.num_truths[0].sum()
    assert result.average_precision() != plain.average_precision()


@pytest.mark.parametrize('task', ['keypoints_visible', 'keypoints_all'])
def test_landmarks_in_columns_of_other_categories(task):
    differences = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        truth, detections = random_world(rng, 12, 6, 10)
        stray = with_stray_landmarks(rng, detections)
        result = assert_equals_reference(truth, stray, task, COLUMNS)
        differences += not np.array_equal(
            result.precision[-1], evaluate_task(truth, detections, task).precision[0], equal_nan=True
        )
    assert differences, 'the other columns decide nothing'


@pytest.mark.parametrize('task', TASKS)
def test_copies_of_one_item_and_one_detection(task):
    truth, _ = random_world(np.random.default_rng(9), 4, 3, 0, (1,))
    rows = np.tile(np.arange(len(truth.labels)), 2)
    double = GroundTruth(
        image_ids=truth.image_ids,
        item_image_ids=truth.item_image_ids[rows],
        labels=truth.labels[rows],
        boxes=truth.boxes[rows],
        masks=[truth.masks[row] for row in rows],
        landmarks=truth.landmarks[rows],
        attributes=np.random.default_rng(1).integers(1, 4, (len(rows), 4)),
    )
    rows = np.tile(rows, 2)
    detections = Detections(
        image_ids=truth.item_image_ids[rows],
        labels=truth.labels[rows],
        scores=np.full(len(rows), 0.5),
        boxes=truth.boxes[rows],
        masks=[truth.masks[row] for row in rows],
        landmarks=truth.landmarks[rows, :, :2],
    )
    assert_equals_reference(double, detections, task, COLUMNS)


@pytest.mark.parametrize('task', TASKS)
def test_no_detections(task):
    truth, detections = random_world(np.random.default_rng(10), max_found=0)
    result = assert_equals_reference(truth, detections, task)
    assert result.average_precision() == 0
    assert result.average_recall() == 0


@pytest.mark.parametrize('task', TASKS)
def test_no_ground_truth(task):
    truth, detections = random_world(np.random.default_rng(11), max_items=0)
    assert len(detections.scores)
    assert np.isnan(assert_equals_reference(truth, detections, task).average_precision())


@pytest.mark.parametrize('task', TASKS)
def test_perfect_detections_of_whole_items(task):
    world, _ = random_world(np.random.default_rng(12), max_found=0)
    rows = [row for row in range(len(world.labels)) if world.boxes[row, 2:].min() > 0 and area(world.masks[row]) > 0]
    landmarks = world.landmarks[rows]
    landmarks[..., 2] = np.where((landmarks[..., :2] != 0).any(axis=-1), 2, 0)
    truth = GroundTruth(
        image_ids=world.image_ids,
        item_image_ids=world.item_image_ids[rows],
        labels=world.labels[rows],
        boxes=world.boxes[rows],
        masks=[world.masks[row] for row in rows],
        landmarks=landmarks,
    )
    detections = Detections(
        image_ids=truth.item_image_ids,
        labels=truth.labels,
        scores=np.linspace(0, 1, len(rows)),
        boxes=truth.boxes,
        masks=truth.masks,
        landmarks=truth.landmarks[..., :2],
    )
    result = assert_equals_reference(truth, detections, task)
    assert len(rows) > 10
    assert result.figures() == pytest.approx({'AP': 1, 'AP50': 1, 'AP75': 1, 'AR': 1}, abs=1e-9)


def test_the_order_of_images_does_not_matter_but_ties_across_images_follow_their_ids():
    truth, detections = random_world(np.random.default_rng(13), 10, 4, 8, (4,))
    by_image = np.argsort(-detections.image_ids, kind='stable')
    shuffled = Detections(
        image_ids=detections.image_ids[by_image],
        labels=detections.labels[by_image],
        scores=detections.scores[by_image],
        boxes=detections.boxes[by_image],
    )
    expected, found = (evaluate_task(truth, rows, 'bbox') for rows in (detections, shuffled))
    np.testing.assert_array_equal(expected.precision, found.precision)


def test_per_category_figures_are_those_of_the_category_alone():
    truth, detections = random_world(np.random.default_rng(14), 20)
    both = evaluate_task(truth, detections, 'bbox')
    rows, found = truth.labels == 3, detections.labels == 3
    alone = evaluate_task(
        GroundTruth(
            image_ids=truth.image_ids,
            item_image_ids=truth.item_image_ids[rows],
            labels=truth.labels[rows],
            boxes=truth.boxes[rows],
        ),
        Detections(
            image_ids=detections.image_ids[found],
            labels=detections.labels[found],
            scores=detections.scores[found],
            boxes=detections.boxes[found],
        ),
        'bbox',
    )
    assert both.figures(label=3) == alone.figures()
    assert np.isnan(alone.average_precision(label=0))


class TestRefusals:
    @staticmethod
    def detections(**changes):
        columns = {
            'image_ids': np.array([4, 9]),
            'labels': np.array([0, 12]),
            'scores': np.array([0.5, 0.5]),
            'boxes': np.array([[1.0, 1, 5, 5], [0, 0, 3, 3]]),
        }
        return Detections(**{**columns, **changes})

    def test_missing_stream_or_attributes(self):
        truth = GroundTruth(
            image_ids=np.array([4, 9]),
            item_image_ids=np.array([4]),
            labels=np.array([0]),
            boxes=np.array([[0.0, 0, 2, 2]]),
        )
        with pytest.raises(EvaluationError, match="'segm' needs masks, which the ground truth does not carry"):
            evaluate_task(truth, self.detections(), 'segm')
        with pytest.raises(ValueError, match='needs the attributes'):
            evaluate_task(truth, self.detections(), 'bbox', ['scale/small'])
        with pytest.raises(ValueError, match="got 'box'"):
            evaluate_task(truth, self.detections(), 'box')

    def test_masks_of_another_size(self):
        truth, detections = random_world(np.random.default_rng(0))
        masks = [{**mask, 'size': [SIZE, SIZE + 1]} for mask in detections.masks]
        other = Detections(
            image_ids=detections.image_ids,
            labels=detections.labels,
            scores=detections.scores,
            boxes=detections.boxes,
            masks=masks,
        )
        with pytest.raises(EvaluationError, match='pasted into the original image'):
            evaluate_task(truth, other, 'segm')

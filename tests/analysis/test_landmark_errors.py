"""Terms of OKS against the OKS of the evaluation, and the landmark that is named as the worst."""

import numpy as np
import pytest

from mmdf2.analysis.landmark_errors import landmark_errors, landmark_likeness, landmark_table
from mmdf2.categories import CATEGORIES, MAX_LANDMARKS
from mmdf2.evaluation.coco import landmark_oks
from mmdf2.evaluation.records import Detections, GroundTruth


def make_truth(rng, count=26):
    labels = np.arange(count) % 13
    landmarks = np.zeros((count, MAX_LANDMARKS, 3))
    for row, label in enumerate(labels):
        own = CATEGORIES[label].num_landmarks
        landmarks[row, :own, :2] = rng.uniform(10, 110, (own, 2))
        landmarks[row, :own, 2] = rng.integers(0, 3, own)
        landmarks[row, 0, 2] = 2
    landmarks[landmarks[..., 2] == 0] = 0
    boxes = np.tile([10.0, 10, 100, 100], (count, 1))
    return GroundTruth(
        image_ids=np.arange(count), item_image_ids=np.arange(count), labels=labels, boxes=boxes, landmarks=landmarks
    )


def detect(truth, points):
    count = len(truth.labels)
    return Detections(
        image_ids=truth.item_image_ids,
        labels=truth.labels,
        scores=np.linspace(0.9, 0.5, count),
        boxes=truth.boxes,
        landmarks=points,
    )


def test_mean_of_the_terms_is_oks():
    rng = np.random.default_rng(0)
    truth = make_truth(rng)
    points = truth.landmarks[..., :2] + rng.normal(0, 3, (len(truth.labels), MAX_LANDMARKS, 2))
    likeness, distances = landmark_likeness(points, truth.landmarks, truth.boxes, truth.labels)
    for row, label in enumerate(truth.labels.tolist()):
        one = slice(row, row + 1)
        oks = landmark_oks(points[one], truth.landmarks[one], truth.boxes[one], label, False)[0]
        assert np.nanmean(likeness[row]) == pytest.approx(oks, abs=1e-12)
        assert (np.isnan(likeness[row]) == (truth.landmarks[row, :, 2] == 0)).all()
        assert distances[row, 0] == pytest.approx(np.hypot(*(points[row, 0] - truth.landmarks[row, 0, :2])))


def test_the_landmark_that_is_moved_is_named():
    truth = make_truth(np.random.default_rng(1))
    for row, label in enumerate(truth.labels.tolist()):
        kept = np.flatnonzero(truth.landmarks[row, :, 2] > 0)
        place = int(kept[row % len(kept)])
        points = truth.landmarks[..., :2].copy()
        points[row, place] += 60
        errors = landmark_errors(truth, detect(truth, points))
        assert errors.worst[row] == place and errors.distances[row, place] == pytest.approx(60 * np.sqrt(2))
        (line,) = (
            line
            for line in landmark_table(truth, errors)
            if (line['category'], line['landmark']) == (CATEGORIES[label].name, place + 1)
        )
        assert line['below_half'] > 0 and line['oks'] < 1


def test_items_fall_into_good_poor_and_without():
    truth = make_truth(np.random.default_rng(2))
    points = truth.landmarks[..., :2].copy()
    own = np.flatnonzero(truth.landmarks[3, :, 2] > 0)
    points[3, own[: len(own) * 3 // 4]] += 500  # a quarter of the terms remain 1
    points[5] += 500
    errors = landmark_errors(truth, detect(truth, points))
    assert errors.counted.all()
    assert np.flatnonzero(errors.poor).tolist() == [3] and 0.1 < errors.oks[3] < 0.5
    assert np.flatnonzero(errors.found_by < 0).tolist() == [5] and errors.worst[5] == -1 and errors.oks[5] == 0
    table = landmark_table(truth, errors)
    assert len(table) == 294 and sum(line['worst'] for line in table) == 1
    assert sum(line['compared'] for line in table) == (truth.landmarks[np.arange(26) != 5, :, 2] > 0).sum()


def test_an_item_without_landmarks_does_not_count():
    truth = make_truth(np.random.default_rng(3))
    truth.landmarks[4] = 0
    errors = landmark_errors(truth, detect(truth, truth.landmarks[..., :2].copy()))
    assert np.flatnonzero(~errors.counted).tolist() == [4]
    assert errors.found_by[4] == -1 and np.isnan(errors.likeness[4]).all()
    assert (errors.oks[errors.counted] == 1).all()

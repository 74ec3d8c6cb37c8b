"""Kinds of failure against a literal implementation of their definitions, one detection at a time."""

import numpy as np
import pytest

from mmdf2.analysis.detection_errors import (
    BACKGROUND,
    BOTH,
    CATEGORY,
    DUPLICATE,
    MISSED,
    POSITION,
    RIGHT,
    best_threshold,
    confusion_matrix,
    explain,
    pair_up,
    take_detections,
)
from mmdf2.evaluation.records import Detections, GroundTruth


def iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def random_case(seed, images=12, items=30, count=70):
    """A random case with few categories and coarse boxes and scores, so that every kind of tie and overlap occurs."""
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 12, (items, 2)), rng.integers(4, 14, (items, 2))
    truth = GroundTruth(
        image_ids=np.arange(images),
        item_image_ids=np.sort(rng.integers(0, images, items)),
        labels=rng.integers(0, 3, items),
        boxes=np.concatenate(boxes, axis=1).astype(float),
    )
    meant = rng.integers(0, items, count)
    shifted = truth.boxes[meant] + rng.integers(-3, 4, (count, 4)) * (rng.random((count, 1)) < 0.8)
    shifted[:, 2:] = np.maximum(shifted[:, 2:], 1)
    labels = np.where(rng.random(count) < 0.7, truth.labels[meant], rng.integers(0, 3, count))
    images_of = np.where(rng.random(count) < 0.9, truth.item_image_ids[meant], rng.integers(0, images, count))
    return truth, Detections(
        image_ids=images_of, labels=labels, scores=rng.integers(1, 9, count) / 8, boxes=shifted.astype(float)
    )


def greedy(truth, detections, same_category):
    """COCO's matching by loops: detection -> item. Of equally similar items that are free the last one is taken."""
    matches = {}
    for image in truth.image_ids:
        rows = [row for row in range(len(detections.scores)) if detections.image_ids[row] == image]
        taken = set()
        for row in sorted(rows, key=lambda row: (-detections.scores[row], row)):
            best, chosen = 0.5, None
            for item in np.flatnonzero(truth.item_image_ids == image).tolist():
                if item in taken or (same_category and truth.labels[item] != detections.labels[row]):
                    continue
                value = iou(detections.boxes[row], truth.boxes[item])
                if value >= best:
                    best, chosen = value, item
            if chosen is not None:
                taken.add(chosen)
                matches[row] = chosen
    return matches


def plain_kind(truth, detections, row, matches):
    overlaps = [
        (iou(detections.boxes[row], truth.boxes[item]), truth.labels[item] == detections.labels[row], item)
        for item in range(len(truth.labels))
        if truth.item_image_ids[item] == detections.image_ids[row]
    ]
    own = max(((value, -item) for value, same, item in overlaps if same), default=(0.0, 1))
    other = max(((value, -item) for value, same, item in overlaps if not same), default=(0.0, 1))
    if row in matches:
        return RIGHT, matches[row], iou(detections.boxes[row], truth.boxes[matches[row]])
    for kind, (value, item), least in (
        (DUPLICATE, own, 0.5),
        (CATEGORY, other, 0.5),
        (POSITION, own, 0.1),
        (BOTH, other, 0.1),
    ):
        if value >= least:
            return kind, -item, value
    return BACKGROUND, -1, 0.0


@pytest.mark.parametrize('seed', range(6))
def test_every_detection_and_item_is_explained_as_defined(seed):
    truth, detections = random_case(seed)
    candidates, overlap = pair_up(truth, detections, 'bbox')
    errors = explain(truth, detections, candidates, overlap)
    matches = greedy(truth, detections, True)
    for row in range(len(detections.scores)):
        kind, item, value = plain_kind(truth, detections, row, matches)
        assert (errors.kinds[row], errors.items[row]) == (kind, item)
        assert errors.overlaps[row] == pytest.approx(value)
    for item in range(len(truth.labels)):
        told = [
            (errors.kinds[row], -detections.scores[row], row)
            for row in range(len(detections.scores))
            if errors.items[row] == item and errors.kinds[row] != DUPLICATE
        ]
        kind, _, row = min(told, default=(MISSED, 0, -1))
        assert (errors.outcomes[item], errors.found_by[item]) == (kind, row)


def test_the_random_cases_hold_every_kind():
    kinds = set()
    for seed in range(6):
        truth, detections = random_case(seed)
        errors = explain(truth, detections, *pair_up(truth, detections, 'bbox'))
        kinds |= set(errors.kinds.tolist())
        assert MISSED in errors.outcomes
    assert kinds == {RIGHT, DUPLICATE, CATEGORY, POSITION, BOTH, BACKGROUND}


@pytest.mark.parametrize('seed', range(4))
def test_confusion_is_that_of_matching_without_categories(seed):
    truth, detections = random_case(seed)
    counts = confusion_matrix(truth, detections, *pair_up(truth, detections, 'bbox'))
    expected = np.zeros((14, 14), dtype=int)
    matches = greedy(truth, detections, False)
    for row in range(len(detections.scores)):
        expected[truth.labels[matches[row]] if row in matches else 13, detections.labels[row]] += 1
    for item in set(range(len(truth.labels))) - set(matches.values()):
        expected[truth.labels[item], 13] += 1
    assert (counts == expected).all() and counts.sum() > len(truth.labels)


def test_nothing_detected_and_nothing_to_detect():
    truth, detections = random_case(0)
    none = take_detections(detections, [])
    errors = explain(truth, none, *pair_up(truth, none, 'bbox'))
    assert (errors.outcomes == MISSED).all() and (errors.found_by == -1).all() and len(errors.kinds) == 0
    empty = np.zeros(0, int)
    bare = GroundTruth(image_ids=truth.image_ids, item_image_ids=empty, labels=empty, boxes=np.zeros((0, 4)))
    errors = explain(bare, detections, *pair_up(bare, detections, 'bbox'))
    assert (errors.kinds == BACKGROUND).all() and len(errors.outcomes) == 0
    assert confusion_matrix(bare, detections, *pair_up(bare, detections, 'bbox'))[13].sum() == len(detections.scores)


def test_best_threshold_is_found_by_trying_all():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores, right = rng.integers(0, 6, 25) / 5, rng.random(25) < 0.5
        tried = {s: 2 * right[scores >= s].sum() / ((scores >= s).sum() + 18) for s in np.unique(scores)}
        best = max(tried.values())
        assert best_threshold(scores, right, 18) == max(s for s, value in tried.items() if value == best)
    assert best_threshold([], [], 4) == 0.0

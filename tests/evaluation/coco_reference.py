"""pycocotools as the reference: random worlds in its own format, and its precision and recall arrays."""

import contextlib
import io
from dataclasses import replace

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, TOTAL_LANDMARKS
from mmdf2.evaluation.records import Detections, GroundTruth

SIZE = 40


def random_world(rng, num_images=12, max_items=4, max_found=8, labels=(0, 3, 8), masks=True):
    """Ground truth and detections that often nearly agree, with ties in score, duplicates and boxes without area."""
    image_ids = np.sort(rng.choice(1000, num_images, replace=False)) + 1
    item_images = np.repeat(image_ids, rng.integers(0, max_items + 1, num_images))
    count = len(item_images)
    item_labels = rng.choice(labels, count)
    boxes = np.concatenate([rng.integers(0, SIZE // 2, (count, 2)), rng.integers(0, SIZE // 2, (count, 2))], 1) * 1.0
    landmarks = np.zeros((count, MAX_LANDMARKS, 3))
    for row, label in enumerate(item_labels):
        landmarks[row, : CATEGORIES[label].num_landmarks] = _random_landmarks(rng, boxes[row], label)
    truth = GroundTruth(
        image_ids=image_ids,
        item_image_ids=item_images,
        labels=item_labels,
        boxes=boxes,
        masks=[_encode(_box_mask(rng, box)) for box in boxes] if masks else None,
        landmarks=landmarks,
        attributes=rng.integers(0, 4, (count, 4)),
    )
    found_images = np.repeat(image_ids, rng.integers(0, max_found + 1, num_images))
    return truth, _detections(rng, truth, found_images, labels, masks)


def with_crowds_and_areas(rng, truth):
    """The ground truth with a third of its items as crowds, and with areas that differ from those of the boxes."""
    count = len(truth.labels)
    return replace(truth, crowds=rng.random(count) < 0.33, areas=rng.uniform(0, SIZE * SIZE / 4, count))


def with_stray_landmarks(rng, detections):
    """The detections with columns of other categories filled, as the official example of a result file has them."""
    dense = {}
    for row in np.flatnonzero(rng.random(len(detections.labels)) < 0.7).tolist():
        category = CATEGORIES[detections.labels[row]]
        middle = detections.landmarks[row, : category.num_landmarks].mean(axis=0)
        dense[row] = middle + rng.normal(0, 3, (TOTAL_LANDMARKS, 2))
        dense[row][category.dense_slice] = detections.landmarks[row, : category.num_landmarks]
    return replace(detections, dense_landmarks=dense)


def _detections(rng, truth, image_ids, labels, masks):
    count = len(image_ids)
    boxes = np.concatenate([rng.uniform(0, SIZE, (count, 2)), rng.uniform(0, SIZE / 2, (count, 2))], 1)
    found_labels = rng.choice(labels, count)
    points = np.zeros((count, MAX_LANDMARKS, 2))
    found_masks = []
    for row, image_id in enumerate(image_ids):
        rows = np.flatnonzero(truth.item_image_ids == image_id)
        noise = rng.choice([0, 0.3, 1, 3])
        if len(rows) and rng.random() < 0.8:
            near = rng.choice(rows)
            found_labels[row] = truth.labels[near]
            boxes[row] = np.maximum(truth.boxes[near] + rng.normal(0, noise, 4), 0)
            points[row] = truth.landmarks[near, :, :2]
        points[row] += rng.normal(0, noise, points[row].shape)
        points[row, CATEGORIES[found_labels[row]].num_landmarks :] = 0
        found_masks.append(_encode(_box_mask(rng, boxes[row])))
    scores = rng.integers(0, 6, count) / 5
    return Detections(
        image_ids=image_ids,
        labels=found_labels,
        scores=scores,
        boxes=boxes,
        masks=found_masks if masks else None,
        landmarks=points,
    )


def _random_landmarks(rng, box, label):
    count = CATEGORIES[label].num_landmarks
    visibility = rng.choice([0, 1, 2], count) * (rng.random() < 0.8)
    if rng.random() < 0.2:
        visibility = np.minimum(visibility, 1)
    points = box[:2] + rng.random((count, 2)) * np.maximum(box[2:], 1)
    return np.concatenate([points, visibility[:, None]], axis=1)


def _box_mask(rng, box):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    x, y, width, height = np.round(box).astype(int)
    if rng.random() > 0.1:
        mask[y : y + height, x : x + width] = 1
    return mask


def _encode(mask):
    return mask_utils.encode(np.asfortranarray(mask))


class _FlaggedCOCOeval(COCOeval):
    """A COCOeval that ignores what has a true ``flag``; pycocotools overwrites the field ``ignore``."""

    def _prepare(self):
        super()._prepare()
        for items in self._gts.values():
            for item in items:
                item['ignore'] = int(item['ignore'] or item['flag'])


def reference_result(truth, detections, task, counted):
    """pycocotools' (10, 101, 13) precision and (10, 13) recall, with NaN in the place of its -1.

    Args:
        counted: (m,) bool, items that are not ignored.
    """
    kind = task.split('_')[0]
    dataset = reference_dataset(truth, task, counted)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = dataset
        gt.createIndex()
        results = reference_results(detections, kind)
        found = gt.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {**dataset, 'annotations': []}
            found.createIndex()
    return flagged_result(gt, found, kind)


def flagged_result(gt: COCO, found: COCO, kind: str):
    """Precision and recall as in ``reference_result``, from COCO's own objects; ignored items have a true ``flag``."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _FlaggedCOCOeval(gt, found, kind)
        evaluation.params.areaRng = [[-1, 1e10]]
        evaluation.params.areaRngLbl = ['all']
        evaluation.params.maxDets = [20] if kind == 'keypoints' else [1, 10, 100]
        evaluation.params.kpt_oks_sigmas = np.concatenate([c.oks_sigmas for c in CATEGORIES])
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval['precision'][..., 0, -1], evaluation.eval['recall'][..., 0, -1]
    return np.where(precision < 0, np.nan, precision), np.where(recall < 0, np.nan, recall)


def reference_dataset(truth, task, counted):
    """The ground truth in COCO's format; ignored items have a true ``flag``."""
    return {
        'info': {},
        'images': [{'id': int(i), 'width': SIZE, 'height': SIZE} for i in truth.image_ids],
        'categories': [{'id': c.id, 'name': c.name} for c in CATEGORIES],
        'annotations': [_annotation(truth, row, task, counted[row]) for row in range(len(truth.labels))],
    }


def reference_results(detections, kind):
    """The detections in COCO's format."""
    return [_result(detections, row, kind) for row in range(len(detections.labels))]


def _annotation(truth, row, task, counted):
    label = int(truth.labels[row])
    landmarks = np.zeros((TOTAL_LANDMARKS, 3))
    own = truth.landmarks[row, : CATEGORIES[label].num_landmarks].copy()
    if task == 'keypoints_visible':
        own[own[:, 2] < 2] = 0
    landmarks[CATEGORIES[label].dense_slice] = own
    return {
        'id': row + 1,
        'image_id': int(truth.item_image_ids[row]),
        'category_id': label + 1,
        'bbox': truth.boxes[row].tolist(),
        'area': float(truth.boxes[row, 2] * truth.boxes[row, 3] if truth.areas is None else truth.areas[row]),
        'iscrowd': 0 if truth.crowds is None else int(truth.crowds[row]),
        'flag': not counted,
        'segmentation': truth.masks[row] if truth.masks else [],
        'keypoints': landmarks.ravel().tolist(),
        'num_keypoints': int((own[:, 2] > 0).sum()),
    }


def _result(detections, row, kind):
    label = int(detections.labels[row])
    result = {
        'image_id': int(detections.image_ids[row]),
        'category_id': label + 1,
        'score': float(detections.scores[row]),
    }
    if kind == 'bbox':
        result['bbox'] = detections.boxes[row].tolist()
    elif kind == 'segm':
        result['segmentation'] = detections.masks[row]
    else:
        dense = np.zeros((TOTAL_LANDMARKS, 3))
        own = detections.landmarks[row, : CATEGORIES[label].num_landmarks]
        dense[CATEGORIES[label].dense_slice] = np.concatenate([own, np.ones((len(own), 1))], axis=1)
        if row in (detections.dense_landmarks or ()):
            dense[:, :2] = detections.dense_landmarks[row]
        result['keypoints'] = dense.ravel().tolist()
    return result

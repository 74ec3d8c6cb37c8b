"""Evaluates one task: similarity once, matching for each column, precision for each category.

Equal to pycocotools run with the same ignore flags. Source: the official evaluation (COCO's protocol, boxes and masks
with 100 detections a category and image, landmarks with 20 and the official sigmas).
"""

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.evaluation.accumulate import RECALL_THRESHOLDS, TaskResult, precision_recall
from mmdf2.evaluation.candidates import Candidates, make_candidates
from mmdf2.evaluation.matching import IOU_THRESHOLDS, match
from mmdf2.evaluation.records import Detections, EvaluationError, GroundTruth
from mmdf2.evaluation.similarity import box_iou, kept_landmarks, landmark_oks, mask_iou
from mmdf2.evaluation.subsets import OVERALL, column_members

# Task -> detections of a category that count in an image (COCO's largest maxDets; for landmarks its keypoint setting).
MAX_DETECTIONS = {'bbox': 100, 'segm': 100, 'keypoints_visible': 20, 'keypoints_all': 20}
TASKS = tuple(MAX_DETECTIONS)


def evaluate_task(truth: GroundTruth, detections: Detections, task: str, columns=(OVERALL,)) -> TaskResult:
    """Evaluates detections against ground truth.

    Args:
        truth: The items of all images that are evaluated; an image without detections has missed all of its items.
        detections: The predictions, all on images of ``truth``.
        task: 'bbox', 'segm', 'keypoints_visible' (landmarks with v == 2 only) or 'keypoints_all' (v > 0). Items without
            a landmark to compare are ignored.
        columns: Of ``mmdf2.evaluation.subsets.COLUMNS``.

    Raises:
        EvaluationError: Detections on unknown images, or a task whose masks or landmarks are missing.
        ValueError: An unknown task or column.
    """
    _check_task(truth, detections, task)
    detections.check_images(truth.image_ids)
    columns = tuple(columns)
    members = column_members(columns, len(truth.labels), truth.attributes)
    if truth.crowds is not None:
        members &= ~truth.crowds
    if task.startswith('keypoints'):
        members &= kept_landmarks(truth.landmarks[..., 2], _visible_only(task)).any(axis=1)
    shape = (len(columns), len(IOU_THRESHOLDS))
    precision = np.full((*shape, len(RECALL_THRESHOLDS), NUM_CATEGORIES), np.nan)
    recall = np.full((*shape, NUM_CATEGORIES), np.nan)
    num_truths = np.zeros((len(columns), NUM_CATEGORIES), dtype=np.int64)
    for label in range(NUM_CATEGORIES):
        rows = np.flatnonzero(truth.labels == label)
        scores, matches, ignored = _match_category(truth, detections, task, label, rows, ~members)
        num_truths[:, label] = (~ignored).sum(axis=1)
        for column in range(len(columns)):
            matched = matches[column] >= 0
            unwanted = matched & np.append(ignored[column], False)[matches[column]]
            precision[column, ..., label], recall[column, :, label] = precision_recall(
                scores, matched, unwanted, int(num_truths[column, label])
            )
    return TaskResult(columns, precision, recall, num_truths)


def _match_category(truth, detections, task, label, rows, ignored):
    """Scores (d,), matches (c, t, d) and ignore flags (c, m) of one category, in the order of its candidates."""
    detected = np.flatnonzero(detections.labels == label)
    candidates = make_candidates(
        detections.image_ids[detected], detections.scores[detected], truth.item_image_ids[rows], MAX_DETECTIONS[task]
    )
    similarity = _similarity(truth, detections, task, label, rows, detected, candidates)
    ignored = ignored[:, rows[candidates.truths]]
    scores = detections.scores[detected[candidates.detections]]
    crowds = None if truth.crowds is None else truth.crowds[rows[candidates.truths]]
    return scores, match(candidates, similarity, ignored, crowds=crowds), ignored


def _similarity(truth, detections, task, label, rows, detected, candidates: Candidates) -> np.ndarray:
    found, wanted = detected[candidates.pair_detections], rows[candidates.pair_truths]
    if task == 'bbox':
        crowds = None if truth.crowds is None else truth.crowds[wanted]
        return box_iou(detections.boxes[found], truth.boxes[wanted], crowds)
    if task == 'segm':
        items = rows[candidates.truths]
        return mask_iou(
            [detections.masks[row] for row in detected[candidates.detections].tolist()],
            [truth.masks[row] for row in items.tolist()],
            candidates.first_truths,
            candidates.num_truths,
            None if truth.crowds is None else truth.crowds[items],
        )
    dense = detections.dense_landmarks
    return landmark_oks(
        detections.landmarks[found],
        truth.landmarks[wanted],
        truth.boxes[wanted],
        label,
        _visible_only(task),
        None if truth.areas is None else truth.areas[wanted],
        {pair: dense[row] for pair, row in enumerate(found.tolist()) if row in dense} if dense else None,
    )


def _visible_only(task: str) -> bool:
    return task == 'keypoints_visible'


def _check_task(truth, detections, task) -> None:
    if task not in TASKS:
        raise ValueError(f'task must be one of {", ".join(TASKS)}, got {task!r}')
    field = {'bbox': 'boxes', 'segm': 'masks'}.get(task, 'landmarks')
    for name, record in (('ground truth', truth), ('detections', detections)):
        if getattr(record, field) is None:
            raise EvaluationError(f'task {task!r} needs {field}, which the {name} does not carry')

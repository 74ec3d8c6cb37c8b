"""Everything that the error page shows, computed from a store and result files; no drawing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mmdf2.analysis.detection_errors import (
    BOTH,
    CATEGORY,
    DETECTION_KINDS,
    FOUND,
    MISSED,
    POSITION,
    RIGHT,
    DetectionErrors,
    best_threshold,
    confusion_matrix,
    explain,
    matched_items,
    pair_up,
    take_detections,
)
from mmdf2.analysis.landmark_errors import LandmarkErrors, landmark_errors, match_landmarks
from mmdf2.analysis.retrieval_errors import RetrievalErrors, retrieval_errors
from mmdf2.analysis.weak_spots import Failure
from mmdf2.categories import NUM_CATEGORIES
from mmdf2.datasets.store import Store
from mmdf2.evaluation.coco import TaskResult, evaluate_task, kept_landmarks
from mmdf2.evaluation.records import COLUMNS, Detections, GroundTruth
from mmdf2.evaluation.retrieval import RetrievedLists

# Kind of result file -> tasks of the evaluator.
TASKS = {'bbox': ('bbox',), 'segm': ('segm',), 'keypoints': ('keypoints_visible', 'keypoints_all')}
# Outcome of an item by boxes -> its failure's name.
BOX_FAILURES = {
    MISSED: 'missed',
    CATEGORY: 'wrong category',
    POSITION: 'poor box',
    BOTH: 'wrong category and poor box',
}


@dataclass
class ErrorReport:
    """The failures of one system.

    Attributes:
        truth: All items of the store, in its order.
        tasks: Task -> precision and recall in all columns.
        thresholds: Kind of result file -> score from which on its detections are looked at one by one.
        automatic: Whether these are those of the best F1.
        detections: Kind of result file -> the detections that are.
        boxes: What became of boxes, or None without them.
        masks: What became of masks, or None.
        confusion: (14, 14) by boxes, or by masks when there are none; None without either.
        landmarks: What became of landmarks, or None.
        retrieval: Name of the file -> what became of its queries.
        lists: Name of the file -> its lists.
    """

    truth: GroundTruth
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    automatic: bool = True
    detections: dict[str, Detections] = field(default_factory=dict)
    boxes: DetectionErrors | None = None
    masks: DetectionErrors | None = None
    confusion: np.ndarray | None = None
    landmarks: LandmarkErrors | None = None
    retrieval: dict[str, RetrievalErrors] = field(default_factory=dict)
    lists: dict[str, RetrievedLists] = field(default_factory=dict)


def report_errors(
    store: Store,
    truth: GroundTruth,
    results: Mapping[str, Detections],
    lists: Mapping[str, RetrievedLists],
    least_score: float | None = None,
) -> ErrorReport:
    """Analyses results.

    Args:
        store: The split's store.
        truth: Its ground truth, all of it, with masks when there are any among the results.
        results: Of 'bbox', 'segm' and 'keypoints' those that there are.
        lists: Name -> retrieved lists.
        least_score: Detections below are not looked at one by one; None takes, for each kind, the score of the best F1
            at IoU (OKS) 0.5. Precision and recall use all detections.

    Raises:
        EvaluationError: Masks of another size than their image.
    """
    report = ErrorReport(truth, automatic=least_score is None, lists=dict(lists))
    for kind, detections in results.items():
        for task in TASKS[kind]:
            report.tasks[task] = evaluate_task(truth, detections, task, COLUMNS)
        threshold = _best_score(truth, detections, kind) if least_score is None else least_score
        kept = take_detections(detections, np.flatnonzero(detections.scores >= threshold))
        report.thresholds[kind], report.detections[kind] = threshold, kept
        if kind == 'keypoints':
            report.landmarks = landmark_errors(truth, kept)
            continue
        candidates, overlap = pair_up(truth, kept, kind)
        errors = explain(truth, kept, candidates, overlap)
        if kind == 'bbox':
            report.boxes = errors
        else:
            report.masks = errors
        if kind == 'bbox' or report.confusion is None:
            report.confusion = confusion_matrix(truth, kept, candidates, overlap)
    for name, found in lists.items():
        report.retrieval[name] = retrieval_errors(store, found)
    return report


def failures_of(report: ErrorReport) -> list[Failure]:
    """Every kind of failure of items that the results tell of; the first of several retrieval files counts."""
    count = len(report.truth.labels)
    every, failures = np.ones(count, dtype=bool), []
    if report.boxes is not None:
        failures += [Failure(name, report.boxes.outcomes == kind, every) for kind, name in BOX_FAILURES.items()]
    if report.masks is not None:
        if report.boxes is None:
            failures.append(Failure('missed', report.masks.outcomes == MISSED, every))
        failures.append(Failure('poor mask', report.masks.outcomes == POSITION, every))
    if report.landmarks is not None:
        counted = report.landmarks.counted
        failures.append(Failure('poor landmarks', report.landmarks.poor, counted))
        if report.boxes is None:
            failures.append(Failure('no landmarks', report.landmarks.found_by < 0, counted))
    for errors in list(report.retrieval.values())[:1]:
        queries = _flags(count, errors.rows)
        failures.append(Failure('wrong identity', _flags(count, errors.rows[errors.wrong]), queries))
        failures.append(Failure('query missed', _flags(count, errors.rows[errors.outcome.missed]), queries))
    return failures


def kinds_by_category(report: ErrorReport, errors: DetectionErrors, kind: str) -> dict[str, np.ndarray]:
    """Kind of detection -> (13,) how many detections of each category are so."""
    labels = report.detections[kind].labels
    return {
        name: np.bincount(labels[errors.kinds == number], minlength=NUM_CATEGORIES)
        for number, name in enumerate(DETECTION_KINDS)
    }


def _best_score(truth, detections, kind) -> float:
    if kind == 'keypoints':
        counted = kept_landmarks(truth.landmarks[..., 2], False).any(axis=1)
        right = np.zeros(len(detections.scores), dtype=bool)
        for label in range(NUM_CATEGORIES):
            rows = np.flatnonzero((truth.labels == label) & counted)
            detected, matches, _ = match_landmarks(truth, detections, label, rows, FOUND)
            right[detected] = matches >= 0
        return best_threshold(detections.scores, right, int(counted.sum()))
    candidates, overlap = pair_up(truth, detections, kind)
    same = detections.labels[candidates.pair_detections] == truth.labels[candidates.pair_truths]
    right = matched_items(candidates, np.where(same, overlap, 0.0), FOUND) >= 0
    return best_threshold(detections.scores, right, len(truth.labels))


def _flags(count: int, rows) -> np.ndarray:
    flags = np.zeros(count, dtype=bool)
    flags[rows] = True
    return flags


def right_share(errors: DetectionErrors) -> float:
    """Share of the items that are found; NaN without items."""
    return float((errors.outcomes == RIGHT).mean()) if len(errors.outcomes) else float('nan')

"""The failures of a system, computed from a store and result files: everything that the error page shows.

The failures of items are also counted per subset and category, which shows where they concentrate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

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
from mmdf2.categories import CATEGORY_NAMES, NUM_CATEGORIES
from mmdf2.datasets.store import Store
from mmdf2.evaluation.coco import TaskResult, evaluate_task, kept_landmarks
from mmdf2.evaluation.records import COLUMNS, OVERALL, Detections, GroundTruth, column_members
from mmdf2.evaluation.retrieval import RetrievedLists

# Kind of result file -> tasks of the evaluator that read it.
TASKS = {'bbox': ('bbox',), 'segm': ('segm',), 'keypoints': ('keypoints_visible', 'keypoints_all')}
# Outcome of an item by boxes -> the name of that failure.
BOX_FAILURES = {
    MISSED: 'missed',
    CATEGORY: 'wrong category',
    POSITION: 'poor box',
    BOTH: 'wrong category and poor box',
}
# The category of a cell that counts the items of all categories.
ALL_CATEGORIES = 'all'


@dataclass
class ErrorReport:
    """The failures of one system.

    Attributes:
        truth: The ground truth: all items of the store, in its order.
        tasks: Task of the evaluator -> precision and recall in all columns.
        thresholds: Kind of result file -> the lowest score of the detections that are examined one by one.
        automatic: Whether ``thresholds`` were chosen for the best F1.
        detections: Kind of result file -> the detections with at least that score.
        boxes: What became of the detections and items by boxes; None without a result file of boxes.
        masks: What became of the detections and items by masks; None without a result file of masks.
        confusion: (14, 14) confusion matrix by boxes, or by masks when there are no boxes; None without either.
        landmarks: What became of the items' landmarks; None without a result file of landmarks.
        retrieval: Name of each retrieval file -> what became of its queries.
        lists: Name of each retrieval file -> its retrieved lists.
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
        store: The store of the split.
        truth: The complete ground truth of the store, with masks when ``results`` has 'segm'.
        results: Kind of result file, of 'bbox', 'segm' and 'keypoints' -> its detections.
        lists: Name of each retrieval file -> its retrieved lists.
        least_score: Detections with a lower score are not examined one by one; None chooses, for each kind, the score
            of the best F1 at an IoU (or OKS) of 0.5. Precision and recall use all detections.

    Raises:
        EvaluationError: A mask has another size than its image.
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


@dataclass(frozen=True)
class Failure:
    """One kind of failure of m items.

    Attributes:
        name: Name of the kind of failure.
        failed: (m,) bool, the items that failed.
        counted: (m,) bool, the items that could fail in this way: all, those with landmarks, or those that are queries.
    """

    name: str
    failed: np.ndarray
    counted: np.ndarray


def failures_of(report: ErrorReport) -> list[Failure]:
    """Every kind of failure of items that the results show; of several retrieval files only the first is used."""
    count = len(report.truth.labels)
    every, failures = np.ones(count, dtype=bool), []
    if report.boxes is not None:
        failures += [
            Failure(name=name, failed=report.boxes.outcomes == kind, counted=every)
            for kind, name in BOX_FAILURES.items()
        ]
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
    """Counts the detections of each kind and category.

    Args:
        report: The report that the errors are from.
        errors: What became of boxes or of masks.
        kind: 'bbox' or 'segm', of which the errors are.

    Returns:
        Kind of detection -> (13,) how many detections of each category are of that kind.
    """
    labels = report.detections[kind].labels
    return {
        name: np.bincount(labels[errors.kinds == number], minlength=NUM_CATEGORIES)
        for number, name in enumerate(DETECTION_KINDS)
    }


def right_share(errors: DetectionErrors) -> float:
    """The share of the items that are found; NaN without items."""
    return float((errors.outcomes == RIGHT).mean()) if len(errors.outcomes) else float('nan')


@dataclass(frozen=True)
class Cell:
    """How often a kind of failure occurs in one subset and one category (or all categories).

    Attributes:
        failure: Name of the kind of failure.
        column: Name of the subset, one of ``COLUMNS``.
        category: Name of the category, or 'all'.
        items: Number of items that could fail.
        failed: Number of items that failed.
        excess: How many more items failed than would have failed at the rate of all items together; negative when
            fewer did.
    """

    failure: str
    column: str
    category: str
    items: int
    failed: int
    excess: float

    @property
    def share(self) -> float:
        """The share of the items that failed; NaN without items."""
        return self.failed / self.items if self.items else float('nan')


def tally(failures: Sequence[Failure], labels: ArrayLike, attributes: np.ndarray) -> list[Cell]:
    """Counts failures per subset and category.

    Args:
        failures: The kinds of failure of m items.
        labels: (m,) category label of each item.
        attributes: (m, 4) attributes of each item, as in ``GroundTruth``.

    Returns:
        One cell per kind of failure, subset and category; the cell of all categories comes before those of each.
    """
    labels = np.asarray(labels, dtype=np.int64)
    members = column_members(COLUMNS, len(labels), attributes)
    cells = []
    for failure in failures:
        failed = failure.failed & failure.counted
        rate = failed.sum() / max(failure.counted.sum(), 1)
        for column, member in zip(COLUMNS, members, strict=True):
            items, bad = (_by_category(labels[member & chosen]) for chosen in (failure.counted, failed))
            for name, count, wrong in zip((ALL_CATEGORIES, *CATEGORY_NAMES), items, bad, strict=True):
                excess = float(wrong - count * rate)
                cells.append(
                    Cell(failure=failure.name, column=column, category=name, items=count, failed=wrong, excess=excess)
                )
    return cells


def rank(cells: Sequence[Cell], least_items: int = 10) -> list[Cell]:
    """Ranks the cells in which more items failed than elsewhere, those with the largest excess first.

    Of cells of equal excess that with the larger share comes first. Cells with fewer than ``least_items`` items are
    left out, and so is the cell of all subsets and categories, whose excess is 0 by definition.
    """
    telling = [
        cell
        for cell in cells
        if cell.excess > 0
        and cell.items >= least_items
        and not (cell.column == OVERALL and cell.category == ALL_CATEGORIES)
    ]
    return sorted(telling, key=lambda cell: (-cell.excess, -cell.share, cell.failure, cell.column, cell.category))


def _best_score(truth: GroundTruth, detections: Detections, kind: str) -> float:
    """The score of the best F1 at an IoU (or OKS) of 0.5."""
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


def _flags(count: int, rows: np.ndarray) -> np.ndarray:
    """(count,) bool, True in the given rows."""
    flags = np.zeros(count, dtype=bool)
    flags[rows] = True
    return flags


def _by_category(labels: np.ndarray) -> list[int]:
    """How many labels there are, followed by how many there are of each category."""
    counts = np.bincount(labels, minlength=NUM_CATEGORIES).tolist()
    return [sum(counts), *counts]

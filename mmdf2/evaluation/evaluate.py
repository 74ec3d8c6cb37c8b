"""Evaluates result files of any system against ground truth: files in, a report out."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmdf2 import __version__
from mmdf2.evaluation.coco import evaluate_task
from mmdf2.evaluation.files.detections import read_detections
from mmdf2.evaluation.files.retrieval import read_pairs, read_retrieved_lists
from mmdf2.evaluation.records import COLUMNS, OVERALL, EvaluationError
from mmdf2.evaluation.report.figures import (
    ABOUT,
    CATEGORIES,
    plain,
    retrieval_categories,
    retrieval_figures,
    task_categories,
    task_figures,
)
from mmdf2.evaluation.retrieval import evaluate_lists
from mmdf2.evaluation.truth import TruthSource, open_retrieval_truth, open_truth
from mmdf2.evaluation.verification import verification_figures
from mmdf2.files import AnyPath

# Kind of result file -> tasks of ``mmdf2.evaluation.coco``.
DETECTION_TASKS = {'bbox': ('bbox',), 'segm': ('segm',), 'keypoints': ('keypoints_visible', 'keypoints_all')}
RETRIEVAL_TASKS = ('retrieval', 'retrieval_gt')


@dataclass(frozen=True)
class ResultFiles:
    """Paths of result files, None for a kind that is not evaluated.

    Attributes:
        bbox: COCO results with boxes.
        segm: COCO results with masks.
        keypoints: COCO results with all 294 landmarks.
        retrieval: Official retrieval results of detected boxes.
        retrieval_gt: Official retrieval results of ground-truth boxes.
        verification: Pairs with score and same; see ``mmdf2.evaluation.files.retrieval.read_pairs``.
    """

    bbox: Path | None = None
    segm: Path | None = None
    keypoints: Path | None = None
    retrieval: Path | None = None
    retrieval_gt: Path | None = None
    verification: Path | None = None

    def given(self) -> dict[str, Path]:
        """Kind -> path of the files that are given."""
        return {name: path for name in (field.name for field in fields(self)) if (path := getattr(self, name))}


def evaluate_files(
    files: ResultFiles,
    gt: AnyPath | None = None,
    split: str = 'validation',
    query_gt: AnyPath | None = None,
    gallery_gt: AnyPath | None = None,
    subsets: bool = False,
) -> dict:
    """Evaluates result files.

    Args:
        files: Paths of result files, at least one.
        gt: Ground truth, see ``mmdf2.evaluation.truth.open_truth``; not needed for retrieval with lists of its own, nor
            for verification.
        split: The split to open, when ``gt`` is a dataset's folder.
        query_gt: The official list of query items, such as val_query.json; by default they come from the dataset's
            store.
        gallery_gt: The official list of gallery items, such as val_gallery.json; by default they come from the
            dataset's store.
        subsets: Whether to evaluate all thirteen columns of the paper instead of 'overall' only.

    Returns:
        The report, see ``mmdf2.evaluation.report.figures``.

    Raises:
        EvaluationError: There is nothing to evaluate, the ground truth does not fit, or a file is malformed; the
            message names the line and the field, and what was expected.
        StoreError: The store is damaged or stale.
    """
    given = files.given()
    if not given:
        raise EvaluationError(f'nothing to evaluate: give one of {", ".join(field.name for field in fields(files))}')
    columns = COLUMNS if subsets else (OVERALL,)
    source = None
    if gt is not None:
        source = open_truth(gt, split, masks='segm' in given, landmarks='keypoints' in given)
    report: dict = {ABOUT: _about(given, gt, split, source), CATEGORIES: {}}
    detections = [kind for kind in DETECTION_TASKS if kind in given]
    if source is not None and source.store is None:
        truth = source.ground_truth
        report[ABOUT]['notes'] += _boxes_like_corners(truth.boxes, truth.item_image_ids, source.sizes, Path(str(gt)))
    if detections:
        checked = _source_of_detections(source, gt, detections, subsets)
        for kind in detections:
            _add_detections(report, checked, kind, given[kind], columns)
    retrievals = [kind for kind in RETRIEVAL_TASKS if kind in given]
    if retrievals:
        items, gallery = open_retrieval_truth(source, query_gt, gallery_gt, subsets)
        known = source.sizes if source else None
        for kind in retrievals:
            lists = read_retrieved_lists(given[kind], known)
            report[ABOUT]['notes'] += _boxes_like_shares(np.concatenate([lists.boxes, lists.hit_boxes]), given[kind])
            outcome = evaluate_lists(lists, items, gallery)
            report[kind] = retrieval_figures(outcome, items, columns)
            report[CATEGORIES][kind] = retrieval_categories(outcome, items, columns)
    if 'verification' in given:
        report['verification'] = {OVERALL: plain(verification_figures(*read_pairs(given['verification'])))}
    return report


def _source_of_detections(
    source: TruthSource | None, gt: AnyPath | None, kinds: Sequence[str], subsets: bool
) -> TruthSource:
    """The source, if it has what results of detection need; else EvaluationError."""
    if source is None:
        raise EvaluationError(f'results of {", ".join(kinds)} need ground truth: a folder, a store or a JSON file')
    if subsets and source.ground_truth.attributes is None:
        raise EvaluationError(
            f'{gt} has no scale, occlusion, zoom_in and viewpoint of items, which the columns of subsets need; '
            'give the folder or the store of the dataset as ground truth, or leave the subsets out'
        )
    return source


def _about(given: dict[str, Path], gt: AnyPath | None, split: str, source: TruthSource | None) -> dict:
    about: dict = {'mmdf2': __version__, 'results': {kind: str(path) for kind, path in given.items()}, 'notes': []}
    if source:
        truth = source.ground_truth
        about['ground_truth'] = str(gt)
        about['split'] = split if source.store else None
        about['images'], about['items'] = len(truth.image_ids), len(truth.labels)
        about['notes'] += source.notes()
    return about


def _add_detections(report: dict, source: TruthSource, kind: str, path: Path, columns: Sequence[str]) -> None:
    bare = source.bare() if kind == 'keypoints' else frozenset()
    detections = read_detections(path, kind, source.sizes, bare, source.labels)
    missing = len(source.sizes) - len(set(detections.image_ids.tolist()))
    if missing:
        report[ABOUT]['notes'].append(f'{kind}: {missing} of {len(source.sizes)} images have no result')
    if kind == 'bbox':
        report[ABOUT]['notes'] += _boxes_like_corners(detections.boxes, detections.image_ids, source.sizes, path)
        report[ABOUT]['notes'] += _boxes_like_shares(detections.boxes, path)
    for task in tqdm(DETECTION_TASKS[kind], desc=f'evaluating {kind}', disable=None):
        if task == 'keypoints_all' and not source.has_occluded_landmarks:
            report[ABOUT]['notes'].append(
                'keypoints_all: left out, the ground truth holds no occluded landmarks (v = 1)'
            )
            continue
        result = evaluate_task(source.ground_truth, detections, task, columns)
        report[task] = task_figures(result)
        report[CATEGORIES][task] = task_categories(result)


def _boxes_like_corners(
    boxes: np.ndarray | None, image_ids: np.ndarray, sizes: dict[int, tuple[int, int]], path: Path
) -> list[str]:
    """A note, if more than half of the boxes x, y, width, height reach beyond their images, as corners would."""
    if boxes is None or not len(boxes):
        return []
    heights_widths = np.array([sizes[image_id] for image_id in image_ids.tolist()])
    beyond = (boxes[:, :2] + boxes[:, 2:] > heights_widths[:, ::-1] + 1).any(axis=1)
    if beyond.mean() <= 0.5:
        return []
    return [
        f'{path}: {beyond.sum()} of {len(boxes)} boxes reach beyond their images; bbox must be x, y, width, '
        'height, not corners x1, y1, x2, y2'
    ]


def _boxes_like_shares(boxes: np.ndarray | None, path: Path) -> list[str]:
    """A note, if no coordinate of any box is beyond 1, as of boxes that are shares of the image's size."""
    if boxes is None or not len(boxes) or boxes.max() > 1:
        return []
    return [
        f'{path}: no coordinate of its {len(boxes)} boxes is beyond 1; boxes must be in pixels, not shares of a size'
    ]

"""COCO's evaluation of boxes, masks and landmarks, over all images, IoU thresholds and columns at once.

Detections and ground-truth items of one category that lie on the same image form pairs. The similarity of each pair
(IoU or object keypoint similarity) is computed once, the matching is run for each column of the paper's tables, and
average precision is read from the matches. The ragged groups of all images lie in flat arrays, so that everything is
vectorised over images.

The figures equal those of pycocotools run with the same ignore flags. Sources: pycocotools' ``evaluateImg``,
``computeOks`` and ``accumulate``; the official evaluation of DeepFashion2 (boxes and masks with 100 detections per
category and image, landmarks with 20 and the official sigmas).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.categories import CATEGORIES, NUM_CATEGORIES, OKS_SIGMAS, TOTAL_LANDMARKS, Visibility
from mmdf2.codecs.dense_landmarks import to_dense
from mmdf2.evaluation.records import OVERALL, Detections, EvaluationError, GroundTruth, column_members, join

# Task -> detections per category that count in an image (COCO's largest maxDets; for landmarks its keypoint setting).
MAX_DETECTIONS = {'bbox': 100, 'segm': 100, 'keypoints_visible': 20, 'keypoints_all': 20}
TASKS = tuple(MAX_DETECTIONS)
# COCO's ten thresholds, of IoU or OKS.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# COCO's recalls at which precision is read.
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
# COCO accepts a similarity of 1 that rounding has made slightly smaller at a threshold of 1.
_THRESHOLD_CEILING = 1 - 1e-10
# OKS sigmas of the dense vector of the exchange format: (294,).
_DENSE_OKS_SIGMAS = np.concatenate([category.oks_sigmas for category in CATEGORIES])


@dataclass(frozen=True)
class TaskResult:
    """Precision and recall of one task in c columns, over 10 thresholds and 13 categories.

    Attributes:
        columns: Names of the columns, some of ``mmdf2.evaluation.records.COLUMNS``.
        precision: (c, 10, 101, 13), the precision at each recall; NaN for a category with nothing to find.
        recall: (c, 10, 13), the recall reached; NaN for a category with nothing to find.
        num_truths: (c, 13), the number of items that count.
    """

    columns: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    num_truths: np.ndarray

    def average_precision(self, column: str = OVERALL, iou: float | None = None, label: int | None = None) -> float:
        """Average precision (AP), from 0 to 1.

        Args:
            column: One of ``columns``.
            iou: One of COCO's ten thresholds; None for the mean over all of them.
            label: A category, 0 to 12; None for the mean over all categories.

        Returns:
            The mean over the thresholds, recalls and categories; NaN when nothing counts.

        Raises:
            ValueError: The column is not one of ``columns``, or the threshold is not one of COCO's ten.
        """
        return _mean(self._select(self.precision, column, iou, label))

    def average_recall(self, column: str = OVERALL, label: int | None = None) -> float:
        """Average recall (AR), from 0 to 1: the mean of the recall reached, over thresholds and categories.

        Args:
            column: One of ``columns``.
            label: A category, 0 to 12; None for the mean over all categories.
        """
        return _mean(self._select(self.recall, column, None, label))

    def figures(self, column: str = OVERALL, label: int | None = None) -> dict[str, float]:
        """AP, AP50, AP75 and AR of a column, over all categories or of one ``label``."""
        return {
            'AP': self.average_precision(column, label=label),
            'AP50': self.average_precision(column, 0.5, label),
            'AP75': self.average_precision(column, 0.75, label),
            'AR': self.average_recall(column, label),
        }

    def _select(self, values: np.ndarray, column: str, iou: float | None, label: int | None) -> np.ndarray:
        if column not in self.columns:
            raise ValueError(f'column must be one of {", ".join(self.columns)}, got {column!r}')
        values = values[self.columns.index(column)]
        if iou is not None:
            places = np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou))
            if not len(places):
                raise ValueError(f'iou must be one of {IOU_THRESHOLDS.round(2).tolist()}, got {iou!r}')
            values = values[places]
        return values if label is None else values[..., label]


def evaluate_task(
    truth: GroundTruth, detections: Detections, task: str, columns: Sequence[str] = (OVERALL,)
) -> TaskResult:
    """Evaluates detections against ground truth.

    Args:
        truth: The items of all images that are evaluated; an image without detections has missed all of its items.
        detections: The predictions, all of them on images of ``truth``.
        task: 'bbox', 'segm', 'keypoints_visible' (landmarks with v == 2 only) or 'keypoints_all' (v > 0). Items without
            a landmark to compare are ignored.
        columns: Some of ``mmdf2.evaluation.records.COLUMNS``.

    Raises:
        EvaluationError: A detection lies on an unknown image, or masks or landmarks that the task needs are missing.
        ValueError: The task or a column is unknown.
    """
    _check_task(truth, detections, task)
    detections.check_images(truth.image_ids)
    columns = tuple(columns)
    members = column_members(columns, len(truth.labels), truth.attributes)
    if truth.crowds is not None:
        members &= ~truth.crowds
    if task.startswith('keypoints'):
        assert truth.landmarks is not None
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
    return TaskResult(columns=columns, precision=precision, recall=recall, num_truths=num_truths)


def _check_task(truth: GroundTruth, detections: Detections, task: str) -> None:
    if task not in TASKS:
        raise ValueError(f'task must be one of {", ".join(TASKS)}, got {task!r}')
    field = {'bbox': 'boxes', 'segm': 'masks'}.get(task, 'landmarks')
    for name, record in (('ground truth', truth), ('detections', detections)):
        if getattr(record, field) is None:
            raise EvaluationError(f'task {task!r} needs {field}, which the {name} does not carry')


def _visible_only(task: str) -> bool:
    return task == 'keypoints_visible'


def _match_category(
    truth: GroundTruth, detections: Detections, task: str, label: int, rows: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


@dataclass(frozen=True)
class Candidates:
    """Pairs of one category: the d detections and m items of all images, as positions and not as ids.

    Attributes:
        detections: (d,) rows of the detections, by image and then by falling score; at most ``max_detections`` per
            image.
        ranks: (d,) place of each detection among those of its image, from 0.
        truths: (m,) rows of the ground truth, by image.
        first_truths: (d,) where the items of the detection's image begin in ``truths``.
        num_truths: (d,) the number of items of the detection's image.
        first_pairs: (d,) where the detection's pairs begin: one with each item of its image, in order.
        pair_detections: (p,) rows of the detections.
        pair_truths: (p,) rows of the ground truth.
    """

    detections: np.ndarray
    ranks: np.ndarray
    truths: np.ndarray
    first_truths: np.ndarray
    num_truths: np.ndarray
    first_pairs: np.ndarray
    pair_detections: np.ndarray
    pair_truths: np.ndarray


def make_candidates(
    detection_images: np.ndarray, scores: np.ndarray, truth_images: np.ndarray, max_detections: int
) -> Candidates:
    """Pairs the detections of each image with its items.

    Args:
        detection_images: (d,) image id of each detection.
        scores: (d,) score of each detection; equal scores rank in the order given.
        truth_images: (m,) image id of each item.
        max_detections: Detections that are kept per image.
    """
    detections = np.lexsort((-scores, detection_images))
    images = detection_images[detections]
    ranks = np.arange(len(images)) - np.searchsorted(images, images)
    kept = ranks < max_detections
    detections, images, ranks = detections[kept], images[kept], ranks[kept]
    truths = np.argsort(truth_images, kind='stable')
    first, count, members = join(images, truth_images[truths])
    return Candidates(
        detections=detections,
        ranks=ranks,
        truths=truths,
        first_truths=first,
        num_truths=count,
        first_pairs=np.cumsum(count) - count,
        pair_detections=np.repeat(detections, count),
        pair_truths=truths[members],
    )


def _similarity(
    truth: GroundTruth,
    detections: Detections,
    task: str,
    label: int,
    rows: np.ndarray,
    detected: np.ndarray,
    candidates: Candidates,
) -> np.ndarray:
    # The assertions tell a type checker what ``_check_task`` has made sure.
    found, wanted = detected[candidates.pair_detections], rows[candidates.pair_truths]
    if task == 'bbox':
        assert detections.boxes is not None
        crowds = None if truth.crowds is None else truth.crowds[wanted]
        return box_iou(detections.boxes[found], truth.boxes[wanted], crowds)
    if task == 'segm':
        assert detections.masks is not None and truth.masks is not None
        items = rows[candidates.truths]
        return mask_iou(
            [detections.masks[row] for row in detected[candidates.detections].tolist()],
            [truth.masks[row] for row in items.tolist()],
            candidates.first_truths,
            candidates.num_truths,
            None if truth.crowds is None else truth.crowds[items],
        )
    assert detections.landmarks is not None and truth.landmarks is not None
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


def box_iou(boxes: np.ndarray, others: np.ndarray, crowds: np.ndarray | None = None) -> np.ndarray:
    """IoU of pairs of boxes.

    Args:
        boxes: (p, 4) float64, x, y, width, height.
        others: (p, 4) float64, x, y, width, height.
        crowds: (p,) bool, whether the other box is a crowd: then the share of the box that lies in it takes the place
            of IoU.

    Returns:
        (p,) float64; 0 where boxes do not overlap or have no area.
    """
    upper = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    overlap = upper - np.maximum(boxes[:, :2], others[:, :2])
    intersection = overlap[:, 0] * overlap[:, 1]
    area = boxes[:, 2] * boxes[:, 3]
    union = area + others[:, 2] * others[:, 3] - intersection
    if crowds is not None:
        union = np.where(crowds, area, union)
    overlapping = (overlap > 0).all(axis=1)
    return np.divide(intersection, union, out=np.zeros(len(boxes)), where=overlapping)


def mask_iou(
    masks: Sequence[dict],
    others: Sequence[dict],
    first_others: np.ndarray,
    num_others: np.ndarray,
    crowds: np.ndarray | None = None,
) -> np.ndarray:
    """IoU of each mask with a run of other masks; masks of one image share a run and are compared together.

    Args:
        masks: d compressed RLEs, those of one image one after another.
        others: m compressed RLEs.
        first_others: (d,) where the run of each mask begins in ``others``.
        num_others: (d,) length of the run of each mask.
        crowds: (m,) bool, whether the other mask is a crowd: then the share of the mask that lies in it takes the place
            of IoU; None when there is no crowd.

    Returns:
        (p,) float64, the runs one after another; 0 where a mask is empty.

    Raises:
        EvaluationError: Two masks of a pair differ in size.
    """
    crowds = np.zeros(len(others), dtype=bool) if crowds is None else crowds
    rows = np.flatnonzero(num_others)
    if not len(rows):
        return np.zeros(0)
    values = []
    for image in np.split(rows, np.flatnonzero(np.diff(first_others[rows])) + 1):
        first = int(first_others[image[0]])
        run = slice(first, first + int(num_others[image[0]]))
        found, wanted = [masks[row] for row in image.tolist()], others[run]
        _check_mask_sizes(found, wanted)
        values.append(mask_utils.iou(found, wanted, crowds[run].tolist()).ravel())
    return np.concatenate(values)


def _check_mask_sizes(masks: Sequence[dict], others: Sequence[dict]) -> None:
    size = list(others[0]['size'])
    for mask in (*masks, *others):
        if list(mask['size']) != size:
            raise EvaluationError(
                f'a predicted mask is {mask["size"]} (height, width), its image is {size}; '
                'masks must be pasted into the original image'
            )


def landmark_oks(
    points: np.ndarray,
    landmarks: np.ndarray,
    truth_boxes: np.ndarray,
    label: int,
    visible_only: bool,
    areas: np.ndarray | None = None,
    dense_points: Mapping[int, np.ndarray] | None = None,
) -> np.ndarray:
    """Object keypoint similarity: the mean over an item's landmarks of ``exp(-d^2 / (2 area (2 sigma)^2))``.

    An item without a landmark to compare is matched by how near the detection stays to its box, so that a detection on
    it can be ignored: the distance is to the box extended threefold, over all 294 columns of the exchange format, in
    which those of other categories are at the origin unless ``dense_points`` has them.

    Args:
        points: (p, 39, 2) float64, detected x, y.
        landmarks: (p, 39, 3) float64, ground truth x, y, v.
        truth_boxes: (p, 4) x, y, width, height of the ground truth; its area is the object's (official converter).
        label: The category of all pairs, 0 to 12.
        visible_only: Whether to compare landmarks with v == 2 only; otherwise those with v > 0.
        areas: (p,) areas of the objects in square pixels; by default those of their boxes.
        dense_points: Pair -> (294, 2) x, y of the whole vector, for pairs in which columns of other categories are
            filled too.

    Returns:
        (p,) float64.

    Source: pycocotools' ``computeOks`` with the official sigmas.
    """
    count = CATEGORIES[label].num_landmarks
    points, landmarks = points[:, :count], landmarks[:, :count]
    kept = kept_landmarks(landmarks[..., 2], visible_only)
    variances = (OKS_SIGMAS[label, :count] * 2) ** 2
    areas = (truth_boxes[:, 2] * truth_boxes[:, 3] if areas is None else areas) + np.spacing(1)
    distances = ((points - landmarks[..., :2]) ** 2).sum(axis=-1)
    likeness = np.exp(-(distances / variances / areas[:, None] / 2))
    num_kept = kept.sum(axis=1)
    oks = (likeness * kept).sum(axis=1) / np.maximum(num_kept, 1)
    bare = np.flatnonzero(num_kept == 0)
    if len(bare):
        dense = to_dense(points[bare], label)
        for row, pair in enumerate(bare.tolist()):
            if dense_points and pair in dense_points:
                dense[row] = dense_points[pair]
        oks[bare] = _oks_to_box(dense, truth_boxes[bare], areas[bare])
    return oks


def kept_landmarks(visibility: np.ndarray, visible_only: bool) -> np.ndarray:
    """Which landmarks are compared: v == 2 when ``visible_only``, else v > 0; bool, the shape of ``visibility``."""
    return visibility == Visibility.VISIBLE if visible_only else visibility > Visibility.UNLABELLED


def _oks_to_box(dense: np.ndarray, boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
    low = (boxes[:, :2] - boxes[:, 2:])[:, None]
    high = (boxes[:, :2] + boxes[:, 2:] * 2)[:, None]
    outside = np.maximum(low - dense, 0) + np.maximum(dense - high, 0)
    distances = (outside**2).sum(axis=-1)
    likeness = np.exp(-(distances / ((_DENSE_OKS_SIGMAS * 2) ** 2) / areas[:, None] / 2))
    return likeness.sum(axis=1) / TOTAL_LANDMARKS


def match(
    candidates: Candidates,
    similarity: np.ndarray,
    ignored: np.ndarray,
    thresholds: np.ndarray = IOU_THRESHOLDS,
    crowds: np.ndarray | None = None,
) -> np.ndarray:
    """Matches the detections of one category greedily.

    A detection takes, in order of falling score, the most similar item that is free. An item that is not ignored goes
    before any that is; of equally similar items the last is taken. Source: pycocotools' ``evaluateImg``.

    Args:
        candidates: The pairs, of d detections and m items.
        similarity: (p,) similarity of each pair.
        ignored: (c, m) bool: items, in the order of ``candidates.truths``, that do not count in each of c columns.
        thresholds: (t,) least similarity of a match.
        crowds: (m,) bool, items that any number of detections may match; None when there are none.

    Returns:
        (c, t, d) int32: position in ``candidates.truths`` of each detection's match, -1 for none.
    """
    thresholds = np.minimum(thresholds, _THRESHOLD_CEILING)
    shape = (len(ignored), len(thresholds))
    matches = np.full((*shape, len(candidates.detections)), -1, dtype=np.int32)
    taken = np.zeros((*shape, len(candidates.truths)), dtype=bool)
    for rows, count in _steps(candidates):
        pairs = candidates.first_pairs[rows][:, None] + np.arange(count)
        values = similarity[pairs]
        near = values.max(axis=1) >= thresholds.min()
        rows, values = rows[near], values[near]
        truths = candidates.first_truths[rows][:, None] + np.arange(count)
        free = ~taken[:, :, truths] & (values >= thresholds[:, None, None])
        unwanted = ignored[:, None, truths]
        chosen = _most_similar(free & ~unwanted, values)
        chosen = np.where(chosen < 0, _most_similar(free & unwanted, values), chosen)
        found = np.where(chosen < 0, -1, truths[np.arange(len(rows)), chosen])
        matches[:, :, rows] = found
        column, threshold, row = np.nonzero(chosen >= 0)
        taken[column, threshold, found[column, threshold, row]] = True
        if crowds is not None:
            taken[..., crowds] = False
    return matches


def _steps(candidates: Candidates) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of detections that can be matched together, and the number of items of their images; best scores first.

    Rows of one step lie on different images, which have the same number of items.
    """
    order = np.lexsort((candidates.ranks, candidates.num_truths))
    order = order[candidates.num_truths[order] > 0]
    counts, ranks = candidates.num_truths[order], candidates.ranks[order]
    borders = np.flatnonzero((np.diff(counts) != 0) | (np.diff(ranks) != 0)) + 1
    for rows in np.split(order, borders):
        if len(rows):
            yield rows, int(candidates.num_truths[rows[0]])


def _most_similar(eligible: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(c, t, n) index of the most similar eligible item, the last of equally similar ones, -1 for none."""
    reversed_values = np.where(eligible, values, -1.0)[..., ::-1]
    place = reversed_values.argmax(axis=-1)
    return np.where(eligible.any(axis=-1), values.shape[1] - 1 - place, -1)


def precision_recall(
    scores: np.ndarray, matched: np.ndarray, ignored: np.ndarray, num_truths: int
) -> tuple[np.ndarray, np.ndarray]:
    """The precision curve of one category in one column. Source: pycocotools' ``accumulate``.

    Args:
        scores: (d,) scores of detections ordered by image and then by falling score; equal scores keep that order.
        matched: (t, d) bool, whether each detection is matched at each threshold.
        ignored: (t, d) bool, whether it is matched to an item that does not count.
        num_truths: Number of items that count.

    Returns:
        (t, 101) the best precision at each recall or a higher one, and (t,) the recall reached. NaN where no item
        counts (pycocotools writes -1).
    """
    if num_truths == 0:
        return np.full((len(matched), len(RECALL_THRESHOLDS)), np.nan), np.full(len(matched), np.nan)
    order = np.argsort(-scores, kind='stable')
    true = np.cumsum((matched & ~ignored)[:, order], axis=1, dtype=np.float64)
    false = np.cumsum(~matched[:, order], axis=1, dtype=np.float64)
    recall = true / num_truths
    precision = true / (false + true + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # The additional column says that precision is 0 at recalls that are never reached.
    envelope = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    places = [np.searchsorted(row, RECALL_THRESHOLDS, side='left') for row in recall]
    reached = recall[:, -1] if len(scores) else np.zeros(len(matched))
    return np.take_along_axis(envelope, np.array(places), axis=1), reached


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')

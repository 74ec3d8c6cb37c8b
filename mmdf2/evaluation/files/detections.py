"""The official result files of detection: COCO results of boxes, masks and dense landmarks, read and made.

Source of the formats: the dataset's ``evaluation.md``.
"""

from array import array
from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np

from mmdf2.categories import CATEGORIES, LANDMARK_COUNTS, MAX_LANDMARKS, NUM_CATEGORIES, TOTAL_LANDMARKS
from mmdf2.evaluation.files.json_list import JsonEntry, read_entries
from mmdf2.evaluation.files.masks import checked_masks, mask_of
from mmdf2.evaluation.records import Detections
from mmdf2.files import AnyPath

# Kinds of result files.
RESULT_KINDS = ('bbox', 'segm', 'keypoints')
# category_id -> label, where nothing says otherwise.
OWN_LABELS = {category.id: category.label for category in CATEGORIES}
# What the ``keypoints`` of an entry should be, for messages.
KEYPOINTS = f'{3 * TOTAL_LANDMARKS} finite numbers x, y, v of all {TOTAL_LANDMARKS} landmarks'


def read_detections(
    path: AnyPath,
    kind: str,
    sizes: dict[int, tuple[int, int]],
    bare: Container[tuple[int, int]] = frozenset(),
    labels: dict[int, int] = OWN_LABELS,
) -> Detections:
    """Reads a result file.

    Args:
        path: A JSON list of objects with image_id, category_id, score and what the kind needs.
        kind: 'bbox' (bbox: x, y, width, height), 'segm' (segmentation: run lengths or polygons) or 'keypoints'
            (keypoints: x, y, v of all 294 landmarks; v is not used).
        sizes: Image id -> (height, width) of every image of the ground truth.
        bare: (image id, label) of the ground truth's items without a visible landmark. Landmarks in columns of other
            categories matter for these items only, and are kept for the detections that can meet one.
        labels: category_id -> label: those of the ground truth, if that has ids of its own.

    Returns:
        Detections in the order of the file, with boxes, masks or landmarks.

    Raises:
        EvaluationError: The file or an entry is not of the format; the message names the line, the entry and the field.
        ValueError: The kind is unknown.
    """
    rows = _Rows(sizes, labels)
    if kind == 'bbox':
        return _read_boxes(path, rows)
    if kind == 'segm':
        return _read_masks(path, rows)
    if kind == 'keypoints':
        return _read_landmarks(path, rows, bare)
    raise ValueError(f'kind must be one of {", ".join(RESULT_KINDS)}, got {kind!r}')


class _Rows:
    """Columns of detections, to which entries are added one by one."""

    def __init__(self, sizes: dict[int, tuple[int, int]], category_labels: dict[int, int]) -> None:
        self.sizes, self.category_labels = sizes, category_labels
        self.image_ids, self.labels, self.scores = array('q'), array('b'), array('d')

    def add(self, entry: JsonEntry) -> tuple[int, int]:
        """Checks and keeps image_id, category_id and score; returns the image id and the label."""
        image_id = entry.value.get('image_id')
        if type(image_id) is not int or image_id not in self.sizes:
            raise entry.wrong('image_id', 'the id of an image of the ground truth')
        label = label_of(entry, self.category_labels)
        self.scores.append(entry.finite('score'))
        self.image_ids.append(image_id)
        self.labels.append(label)
        return image_id, label

    def detections(
        self,
        boxes: np.ndarray | None = None,
        masks: list[dict] | None = None,
        landmarks: np.ndarray | None = None,
        dense_landmarks: dict[int, np.ndarray] | None = None,
    ) -> Detections:
        """The record of all entries that were added."""
        return Detections(
            image_ids=np.array(self.image_ids),
            labels=np.array(self.labels, dtype=np.int64),
            scores=np.array(self.scores),
            boxes=boxes,
            masks=masks,
            landmarks=landmarks,
            dense_landmarks=dense_landmarks,
        )


def _read_boxes(path: AnyPath, rows: _Rows) -> Detections:
    boxes = array('d')
    for entry in read_entries(path):
        rows.add(entry)
        boxes.extend(box_of(entry))
    return rows.detections(boxes=np.array(boxes).reshape(-1, 4))


def label_of(entry: JsonEntry, labels: dict[int, int]) -> int:
    """The label of an entry's ``category_id``, which must be among the keys of ``labels``."""
    category_id: Any = entry.value.get('category_id')
    # True equals 1 and is no id; 1.0 is one.
    label = labels.get(category_id) if type(category_id) in (int, float) else None
    if label is None:
        raise entry.wrong('category_id', _known_ids(labels))
    return label


def _known_ids(labels: dict[int, int]) -> str:
    """What a category_id should be, for messages."""
    if labels == OWN_LABELS:
        return f'an integer from 1 to {NUM_CATEGORIES}'
    known = ', '.join(f'{category_id} {CATEGORIES[label].name}' for category_id, label in labels.items())
    return (
        f"the id of a category of DeepFashion2 in the ground truth's own categories ({known or 'none'}); correct the "
        'names there, or leave the list of categories out if the ids are those of DeepFashion2'
    )


def box_of(entry: JsonEntry) -> Sequence[float]:
    """The ``bbox`` of an entry: x, y, width and height, finite, width and height not negative."""
    expected = 'x, y, width, height, finite, width and height not negative'
    box = entry.numbers('bbox', 4, expected)
    if box[2] < 0 or box[3] < 0:
        raise entry.wrong('bbox', expected)
    return box


def _read_masks(path: AnyPath, rows: _Rows) -> Detections:
    def masks() -> Iterator[tuple[JsonEntry, dict]]:
        for entry in read_entries(path):
            image_id, _ = rows.add(entry)
            yield entry, mask_of(entry, rows.sizes[image_id])

    return rows.detections(masks=checked_masks(masks()))


def _read_landmarks(path: AnyPath, rows: _Rows, bare: Container[tuple[int, int]]) -> Detections:
    own, dense = array('d'), {}
    for number, entry in enumerate(read_entries(path)):
        image_id, label = rows.add(entry)
        values = entry.numbers('keypoints', 3 * TOTAL_LANDMARKS, KEYPOINTS)
        # The landmarks of the category are cut out of the list: an array of each dense vector takes several times as
        # long, and a split has hundreds of thousands of them.
        columns = CATEGORIES[label].dense_slice
        own.extend(values[3 * columns.start : 3 * columns.stop])
        if (image_id, label) in bare:
            points = np.array(values, dtype=np.float64).reshape(-1, 3)[:, :2]
            others = np.delete(points, np.r_[columns], axis=0)
            if others.any():
                dense[number] = points
    return rows.detections(landmarks=local_landmarks(own, rows.labels)[..., :2], dense_landmarks=dense or None)


def local_landmarks(own: array, labels: array) -> np.ndarray:
    """Separates the landmarks of n garments, which are given one after another.

    Args:
        own: x, y, v of the landmarks of each garment's own category.
        labels: n labels, 0 to 12.

    Returns:
        (n, 39, 3) x, y, v, padded with zeros.
    """
    landmarks = np.zeros((len(labels), MAX_LANDMARKS, 3))
    counts = LANDMARK_COUNTS[np.array(labels, dtype=np.int64)]
    landmarks[np.arange(MAX_LANDMARKS) < counts[:, None]] = np.array(own).reshape(-1, 3)
    return landmarks


def detection_results(detections: Detections, kind: str) -> Iterator[dict]:
    """Makes COCO results: one dict per detection with image_id, category_id, score and what the kind needs.

    Args:
        detections: The predictions.
        kind: 'bbox' (x, y, width, height), 'segm' (compressed RLE with text counts) or 'keypoints': the dense vector
            of 294 x, y, v, with v 1 in the columns of the detection's category and zeros in the others.

    Raises:
        ValueError: The kind is unknown, or the detections do not carry its masks or landmarks.
    """
    field = {'bbox': 'boxes', 'segm': 'masks', 'keypoints': 'landmarks'}.get(kind)
    column = None if field is None else getattr(detections, field)
    if column is None:
        raise ValueError(f'kind must be one of {", ".join(RESULT_KINDS)} that the detections carry, got {kind!r}')
    for row in range(len(detections.scores)):
        label = int(detections.labels[row])
        result: dict[str, Any] = {'image_id': int(detections.image_ids[row]), 'category_id': CATEGORIES[label].id}
        if kind == 'bbox':
            result['bbox'] = column[row].tolist()
        elif kind == 'segm':
            counts = column[row]['counts']
            text = counts.decode('ascii') if isinstance(counts, bytes) else counts
            result['segmentation'] = {'size': [int(side) for side in column[row]['size']], 'counts': text}
        else:
            result['keypoints'] = _dense_keypoints(column[row], label)
        yield {**result, 'score': float(detections.scores[row])}


def _dense_keypoints(landmarks: np.ndarray, label: int) -> list[float]:
    """The 294 x, y, v of a category's own (39, 2) landmarks."""
    category = CATEGORIES[label]
    own = np.ones((category.num_landmarks, 3))
    own[:, :2] = landmarks[: category.num_landmarks]
    # Nine in ten numbers are zeros of other categories. As integers they are written in two thirds of the time, and the
    # file of a split, which has gigabytes, becomes a third smaller.
    columns = category.dense_slice
    return [0] * (3 * columns.start) + own.ravel().tolist() + [0] * (3 * (TOTAL_LANDMARKS - columns.stop))

"""Reads the official result files of any system: COCO results of boxes, masks and dense landmarks.

Source of the formats: the dataset's ``evaluation.md``.
"""

from array import array
from collections.abc import Iterator

import numpy as np

from mmdf2.categories import CATEGORIES, LANDMARK_COUNTS, MAX_LANDMARKS, NUM_CATEGORIES, TOTAL_LANDMARKS
from mmdf2.evaluation.entries import Entry, read_entries
from mmdf2.evaluation.formats import RESULT_KINDS
from mmdf2.evaluation.records import Detections
from mmdf2.evaluation.run_lengths import EXPECTED, to_compressed, unfit

# Masks that are checked together.
_MASKS_AT_ONCE = 2048
KEYPOINTS = f'{3 * TOTAL_LANDMARKS} finite numbers x, y, v of all {TOTAL_LANDMARKS} landmarks'


class _Rows:
    """Columns of detections that grow by an entry."""

    def __init__(self, sizes: dict[int, tuple[int, int]]):
        self.sizes = sizes
        self.image_ids, self.labels, self.scores = array('q'), array('b'), array('d')

    def add(self, entry: Entry) -> tuple[int, int]:
        """Checks and keeps image_id, category_id and score; returns the image and the label."""
        image_id = entry.value.get('image_id')
        if type(image_id) is not int or image_id not in self.sizes:
            raise entry.wrong('image_id', 'the id of an image of the ground truth')
        label = entry.integer('category_id', 1, NUM_CATEGORIES) - 1
        self.scores.append(entry.finite('score'))
        self.image_ids.append(image_id)
        self.labels.append(label)
        return image_id, label

    def detections(self, boxes=None, masks=None, landmarks=None, dense=None) -> Detections:
        """The record of all that was added."""
        image_ids, scores = np.array(self.image_ids), np.array(self.scores)
        return Detections(image_ids, np.array(self.labels, dtype=np.int64), scores, boxes, masks, landmarks, dense)


def read_detections(path, kind: str, sizes: dict[int, tuple[int, int]], bare=frozenset()) -> Detections:
    """Reads a result file.

    Args:
        path: A JSON list of objects with image_id, category_id (1 to 13), score and what the kind needs.
        kind: 'bbox' (bbox: x, y, width, height), 'segm' (segmentation: run lengths or polygons) or 'keypoints'
            (keypoints: x, y, v of all 294 landmarks; v is not looked at).
        sizes: Image id -> (height, width) of every image of the ground truth.
        bare: (image id, label) of the ground truth's items without a visible landmark. Landmarks in columns of other
            categories matter for them alone, and are kept for detections that can meet one.

    Returns:
        Detections in the order of the file, with boxes, masks or landmarks.

    Raises:
        EvaluationError: A file or an entry that is not of the format, with line, entry and field.
        ValueError: Another kind.
    """
    readers = dict(zip(RESULT_KINDS, (_read_boxes, _read_masks, _read_landmarks), strict=True))
    if kind not in readers:
        raise ValueError(f'kind must be one of {", ".join(RESULT_KINDS)}, got {kind!r}')
    return readers[kind](path, _Rows(sizes), bare)


def _read_boxes(path, rows: _Rows, bare) -> Detections:
    boxes = array('d')
    for entry in read_entries(path):
        rows.add(entry)
        boxes.extend(box_of(entry))
    return rows.detections(boxes=np.array(boxes).reshape(-1, 4))


def box_of(entry: Entry) -> list:
    """The ``bbox`` of an entry: x, y, width and height, finite, the last two not negative."""
    expected = 'x, y, width, height, finite, width and height not negative'
    box = entry.numbers('bbox', 4, expected)
    if box[2] < 0 or box[3] < 0:
        raise entry.wrong('bbox', expected)
    return box


def _read_masks(path, rows: _Rows, bare) -> Detections:
    def masks() -> Iterator[tuple[Entry, dict]]:
        for entry in read_entries(path):
            image_id, _ = rows.add(entry)
            yield entry, mask_of(entry, rows.sizes[image_id])

    return rows.detections(masks=checked_masks(masks()))


def mask_of(entry: Entry, size: tuple[int, int]) -> dict:
    """The ``segmentation`` of an entry as a compressed mask of the image's size (height, width)."""
    try:
        return to_compressed(entry.value.get('segmentation'), size)
    except ValueError as error:
        raise entry.wrong('segmentation', f'{error}') from None


def checked_masks(masks: Iterator[tuple[Entry, dict]]) -> list[dict]:
    """All masks; EvaluationError that names the entry of the first whose runs do not fill its image."""
    checked, waiting = [], []

    def check() -> None:
        pixels = np.array([mask['size'][0] * mask['size'][1] for _, mask in waiting])
        bad = np.flatnonzero(unfit([mask['counts'] for _, mask in waiting], pixels))
        if len(bad):
            entry, mask = waiting[bad[0]]
            raise entry.wrong('segmentation', f'{EXPECTED}, whose runs add up to {" x ".join(map(str, mask["size"]))}')
        checked.extend(mask for _, mask in waiting)
        waiting.clear()

    for pair in masks:
        waiting.append(pair)
        if len(waiting) == _MASKS_AT_ONCE:
            check()
    check()
    return checked


def _read_landmarks(path, rows: _Rows, bare) -> Detections:
    own, dense = array('d'), {}
    for number, entry in enumerate(read_entries(path)):
        image_id, label = rows.add(entry)
        values = entry.numbers('keypoints', 3 * TOTAL_LANDMARKS, KEYPOINTS)
        columns = CATEGORIES[label].dense_slice
        own.extend(values[3 * columns.start : 3 * columns.stop])
        if (image_id, label) in bare:
            points = np.array(values, dtype=np.float64).reshape(-1, 3)[:, :2]
            others = np.delete(points, np.r_[columns], axis=0)
            if others.any():
                dense[number] = points
    return rows.detections(landmarks=local_landmarks(own, rows.labels)[..., :2], dense=dense or None)


def local_landmarks(own: array, labels) -> np.ndarray:
    """(n, 39, 3) x, y, v, padded with zeros, from the landmarks of n categories' own columns one after another."""
    landmarks = np.zeros((len(labels), MAX_LANDMARKS, 3))
    counts = LANDMARK_COUNTS[np.array(labels, dtype=np.int64)]
    landmarks[np.arange(MAX_LANDMARKS) < counts[:, None]] = np.array(own).reshape(-1, 3)
    return landmarks

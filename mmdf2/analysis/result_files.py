"""Official result files, of any system, as arrays: COCO results of boxes, masks and landmarks, and retrieved lists.

The layouts are those that ``mmdf2.evaluation.formats`` writes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, NUM_CATEGORIES, TOTAL_LANDMARKS
from mmdf2.datasets.item import short
from mmdf2.evaluation.records import Detections, EvaluationError
from mmdf2.evaluation.retrieval import MAX_HITS


@dataclass(frozen=True)
class RetrievedLists:
    """Retrieved lists, one for each of n detections on user images.

    Attributes:
        image_ids: (n,) int64.
        boxes: (n, 4) x1, y1, x2, y2.
        labels: (n,) 0 to 12.
        scores: (n,).
        hit_images: n arrays (k,) of shop images, best first, at most 20.
        hit_boxes: n arrays (k, 4) x1, y1, x2, y2.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    hit_images: list[np.ndarray]
    hit_boxes: list[np.ndarray]


def read_detections(path, kind: str, sizes: dict[int, tuple[int, int]]) -> Detections:
    """Reads a COCO result file.

    Args:
        path: The file.
        kind: 'bbox', 'segm' or 'keypoints'; the boxes of masks and landmarks are those around them.
        sizes: (height, width) of each known image by its id.

    Raises:
        OSError: The file cannot be read.
        EvaluationError: It is no such file; the message names the entry and the field.
    """
    entries = _entries(path)
    images = _integers(path, entries, 'image_id')
    labels = _labels(path, entries, 'category_id')
    for row in np.flatnonzero(~np.isin(images, list(sizes)))[:1]:
        raise _fault(path, row, 'image_id', 'an image of the ground truth', int(images[row]))
    scores = _numbers(path, entries, 'score', ())
    masks = landmarks = None
    if kind == 'bbox':
        boxes = _numbers(path, entries, 'bbox', (4,))
        for row in np.flatnonzero((boxes[:, 2:] < 0).any(axis=1))[:1]:
            raise _fault(path, row, 'bbox', 'x, y, width, height, neither negative', boxes[row].tolist())
    elif kind == 'segm':
        masks = [_mask(path, row, entry, sizes[int(images[row])]) for row, entry in enumerate(entries)]
        boxes = mask_utils.toBbox(masks).reshape(-1, 4) if masks else np.zeros((0, 4))
    else:
        dense = _numbers(path, entries, 'keypoints', (3 * TOTAL_LANDMARKS,)).reshape(-1, TOTAL_LANDMARKS, 3)
        landmarks, boxes = np.zeros((len(entries), MAX_LANDMARKS, 2)), np.zeros((len(entries), 4))
        for row, label in enumerate(labels):
            own = dense[row, CATEGORIES[label].dense_slice, :2]
            landmarks[row, : len(own)] = own
            boxes[row] = np.concatenate([own.min(axis=0), np.ptp(own, axis=0)])
    return Detections(images, labels, scores, boxes, masks, landmarks)


def read_retrieval(path) -> RetrievedLists:
    """Reads a file of retrieved lists; raises as ``read_detections`` does."""
    entries = _entries(path)
    hit_images, hit_boxes = [], []
    for row, entry in enumerate(entries):
        ids = _array(path, row, entry, 'gallery_image_id', (None,))
        boxes = _array(path, row, entry, 'gallery_bbox', (len(ids), 4) if len(ids) else (0,))
        hit_images.append(ids[:MAX_HITS].astype(np.int64))
        hit_boxes.append(boxes.reshape(-1, 4)[:MAX_HITS])
    return RetrievedLists(
        _integers(path, entries, 'query_image_id'),
        _numbers(path, entries, 'query_bbox', (4,)),
        _labels(path, entries, 'query_cls'),
        _numbers(path, entries, 'query_score', ()),
        hit_images,
        hit_boxes,
    )


def run_lengths(counts: bytes) -> np.ndarray:
    """The run lengths of a compressed RLE: groups of five bits, the lowest first, from the third on as differences.

    Raises:
        ValueError: The last number is cut short, or a byte is none of the format's.

    Source: pycocotools' ``rleFrString``, which reads beyond the end of what is cut short.
    """
    groups = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(groups):
        return np.zeros(0, dtype=np.int64)
    last = (groups & 32) == 0
    if groups.min() < 0 or groups.max() > 63 or not last[-1]:
        raise ValueError('not a compressed run-length string')
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    places = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    if places.max() > 8:
        raise ValueError('a run length has too many digits')
    values = np.add.reduceat((groups & 31) << (5 * places), starts)
    ends = np.append(starts[1:], len(groups)) - 1
    values -= np.where(groups[ends] & 16, np.int64(1) << (5 * (places[ends] + 1)), 0)
    for parity in (1, 2):
        values[parity::2] = np.cumsum(values[parity::2])
    return values


def _mask(path, row: int, entry: dict, size: tuple[int, int]) -> dict:
    expected = f'a run-length mask {{"size": [{size[0]}, {size[1]}], "counts": ...}} of its image'
    mask = entry.get('segmentation')
    if not isinstance(mask, dict) or mask.get('size') != list(size):
        raise _fault(path, row, 'segmentation', expected, mask)
    counts = mask.get('counts')
    try:
        if isinstance(counts, list):
            runs = np.array(counts, dtype=np.int64)
        else:
            runs = run_lengths(counts.encode('ascii'))
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise _fault(path, row, 'segmentation', expected, counts) from None
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise _fault(path, row, 'segmentation', f'{expected}, runs that add up to its pixels', counts)
    return mask_utils.frPyObjects({'size': list(size), 'counts': runs.tolist()}, *size)


def _entries(path) -> list[dict]:
    try:
        entries = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f'{path} is not JSON: {error}') from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise EvaluationError(f'{path} must be a list of objects, the official result format, got {short(entries)}')
    return entries


def _numbers(path, entries, name: str, shape) -> np.ndarray:
    rows = [_array(path, row, entry, name, shape) for row, entry in enumerate(entries)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), *shape)


def _integers(path, entries, name: str) -> np.ndarray:
    values = _numbers(path, entries, name, ())
    for row in np.flatnonzero((values != np.floor(values)) | (np.abs(values) > 2**53))[:1]:
        raise _fault(path, row, name, 'a whole number', float(values[row]))
    return values.astype(np.int64)


def _labels(path, entries, name: str) -> np.ndarray:
    values = _integers(path, entries, name)
    for row in np.flatnonzero((values < 1) | (values > NUM_CATEGORIES))[:1]:
        raise _fault(path, row, name, f'a category_id from 1 to {NUM_CATEGORIES}', int(values[row]))
    return values - 1


def _array(path, row: int, entry: dict, name: str, shape) -> np.ndarray:
    expected = {(): 'a finite number', (None,): 'a list of finite numbers', (0,): 'an empty list'}.get(
        shape, f'{" x ".join(map(str, shape))} finite numbers'
    )
    try:
        array = np.asarray(entry[name], dtype=np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _fault(path, row, name, expected, entry.get(name, 'nothing')) from None
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits or not np.isfinite(array).all():
        raise _fault(path, row, name, expected, entry[name])
    return array


def _fault(path, row: int, name: str, expected: str, found) -> EvaluationError:
    return EvaluationError(f'{path}: entry {row} (from 0): {name} must be {expected}, got {short(found)}')

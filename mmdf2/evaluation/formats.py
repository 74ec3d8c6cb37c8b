"""The official result files: COCO results for boxes, masks and landmarks, and retrieved lists. Pure writers."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mmdf2.categories import CATEGORIES, TOTAL_LANDMARKS
from mmdf2.evaluation.records import Detections

# Task of the result file -> ending of its name.
RESULT_KINDS = ('bbox', 'segm', 'keypoints')


def detection_results(detections: Detections, kind: str) -> Iterator[dict]:
    """COCO results, one dict a detection: image_id, category_id, score, and its bbox, segmentation or keypoints.

    Args:
        detections: The predictions.
        kind: 'bbox' (x, y, width, height), 'segm' (compressed RLE with text counts) or 'keypoints': the dense vector
            of 294 x, y, v, with v 1 in the columns of the detection's category and zeros in the others'.

    Raises:
        ValueError: Another kind, or one whose masks or landmarks the detections do not carry.
    """
    field = {'bbox': 'boxes', 'segm': 'masks', 'keypoints': 'landmarks'}.get(kind)
    if field is None or getattr(detections, field) is None:
        raise ValueError(f'kind must be one of {", ".join(RESULT_KINDS)} that the detections carry, got {kind!r}')
    for row in range(len(detections.scores)):
        label = int(detections.labels[row])
        result = {'image_id': int(detections.image_ids[row]), 'category_id': CATEGORIES[label].id}
        if kind == 'bbox':
            result['bbox'] = detections.boxes[row].tolist()
        elif kind == 'segm':
            mask = detections.masks[row]
            counts = mask['counts']
            text = counts.decode('ascii') if isinstance(counts, bytes) else counts
            result['segmentation'] = {'size': [int(side) for side in mask['size']], 'counts': text}
        else:
            result['keypoints'] = dense_landmarks(detections.landmarks[row], label).ravel().tolist()
        yield {**result, 'score': float(detections.scores[row])}


def dense_landmarks(points, label: int) -> np.ndarray:
    """(294, 3) rows x, y, v of the exchange format from category-local ``points`` (39, 2); v is 1 in own columns."""
    dense = np.zeros((TOTAL_LANDMARKS, 3))
    category = CATEGORIES[label]
    dense[category.dense_slice, :2] = points[: category.num_landmarks]
    dense[category.dense_slice, 2] = 1
    return dense


def retrieval_result(query_image_id, query_box, query_label, query_score, gallery_image_ids, gallery_boxes) -> dict:
    """One entry of the official retrieval results.

    Args:
        query_image_id: The user image.
        query_box: (4,) x1, y1, x2, y2 of the detection on it.
        query_label: 0 to 12; written as category_id 1 to 13.
        query_score: Of the detection.
        gallery_image_ids: (k,) shop images of the retrieved boxes, best first.
        gallery_boxes: (k, 4) x1, y1, x2, y2.
    """
    return {
        'query_image_id': int(query_image_id),
        'query_bbox': np.asarray(query_box, dtype=np.float64).tolist(),
        'query_cls': CATEGORIES[int(query_label)].id,
        'query_score': float(query_score),
        'gallery_image_id': np.asarray(gallery_image_ids).astype(int).tolist(),
        'gallery_bbox': np.asarray(gallery_boxes, dtype=np.float64).tolist(),
    }


def write_results(path, results: Iterable[dict]) -> Path:
    """Writes a JSON list, an entry a line; the file appears complete or not at all.

    Entries are written as they come, so that dense landmark vectors are never all in memory.

    Raises:
        ValueError: A value that JSON has no word for (NaN, infinity).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with open(beside, 'w', encoding='utf-8') as file:
            file.write('[')
            for number, entry in enumerate(results):
                file.write((',\n' if number else '\n') + json.dumps(entry, allow_nan=False))
            file.write('\n]\n')
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path

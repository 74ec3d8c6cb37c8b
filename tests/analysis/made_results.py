"""Official result files of a made-up system: the ground truth with every kind of failure that the analysis names."""

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, NUM_CATEGORIES, Source
from mmdf2.evaluation.files.detections import detection_results
from mmdf2.evaluation.files.json_list import write_results
from mmdf2.evaluation.files.retrieval import retrieval_result
from mmdf2.evaluation.records import Detections
from mmdf2.evaluation.truth import ground_truth, retrieval_items


def make_detections(store, rng) -> Detections:
    """Detections of most items, some of them twice, shifted or of another category, and detections of no item."""
    truth = ground_truth(store)
    sizes = {int(i): (int(h), int(w)) for i, h, w in zip(store.image_ids, store.heights, store.widths, strict=True)}
    rows = np.flatnonzero(rng.random(len(truth.labels)) < 0.9)
    rows = np.concatenate([rows, rows[rng.random(len(rows)) < 0.15]])
    boxes, labels = truth.boxes[rows].copy(), truth.labels[rows].copy()
    spoilt = rng.random(len(rows)) < 0.15
    scale = np.where(spoilt, 0.35, 0.04)[:, None]
    boxes[:, :2] += rng.normal(size=(len(rows), 2)) * scale * boxes[:, 2:]
    boxes[:, 2:] *= np.exp(rng.normal(size=(len(rows), 2)) * scale)
    landmarks = truth.landmarks[rows, :, :2].copy()
    landmarks += rng.normal(size=landmarks.shape) * (0.03 + 0.1 * spoilt[:, None, None]) * boxes[:, None, 2:]
    landmarks[:, 3] += 0.12 * boxes[:, 2:]
    other = rng.random(len(rows)) < 0.12
    labels[other] = rng.integers(0, NUM_CATEGORIES, other.sum())
    for row, label in enumerate(labels):
        landmarks[row, CATEGORIES[label].num_landmarks :] = 0
    images = truth.item_image_ids[rows]
    masks = [_rectangle(box, sizes[int(image)]) for box, image in zip(boxes, images, strict=True)]
    empty = rng.choice(truth.image_ids, 20)
    return Detections(
        image_ids=np.concatenate([images, empty]),
        labels=np.concatenate([labels, rng.integers(0, NUM_CATEGORIES, len(empty))]),
        scores=np.round(np.concatenate([rng.uniform(0.3, 1, len(rows)), rng.uniform(0.05, 0.7, len(empty))]), 2),
        boxes=np.concatenate([boxes, np.tile([2.0, 2, 9, 9], (len(empty), 1))]),
        masks=masks + [_rectangle([2, 2, 9, 9], sizes[int(image)]) for image in empty],
        landmarks=np.concatenate([landmarks, np.full((len(empty), MAX_LANDMARKS, 2), 5.0)]),
    )


def make_lists(store, rng, right: float = 0.5) -> list[dict]:
    """Retrieved lists for the ground-truth boxes of user images; the larger ``right``, the earlier right items come."""
    items, gallery = retrieval_items(store, Source.USER), retrieval_items(store, Source.SHOP)
    lists = []
    for row in np.flatnonzero(rng.random(len(items.labels)) < 0.95):
        likeness = rng.random(len(gallery.labels)) + right * (gallery.identities == items.identities[row])
        best = np.argsort(-likeness)[: rng.integers(1, 21)]
        score = round(float(rng.uniform(0.3, 1)), 3)
        query = items.image_ids[row], items.boxes[row], items.labels[row], score
        lists.append(retrieval_result(*query, gallery.image_ids[best], gallery.boxes[best]))
    return lists


def write_made_results(store, folder, seed: int = 0) -> dict[str, str]:
    """Writes all four result files; returns a dict of option of ``tools/analyze.py errors`` -> path of the file."""
    rng = np.random.default_rng(seed)
    detections = make_detections(store, rng)
    paths = {}
    for kind in ('bbox', 'segm', 'keypoints'):
        paths[f'--{kind}'] = write_results(folder / f'made.{kind}.json', detection_results(detections, kind))
    paths['--retrieval'] = write_results(folder / 'made.retrieval.json', make_lists(store, rng))
    return {option: str(path) for option, path in paths.items()}


def _rectangle(box, size) -> dict:
    mask = np.zeros(size, dtype=np.uint8, order='F')
    x, y, w, h = np.round(box).astype(int)
    mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = 1
    return mask_utils.encode(mask)

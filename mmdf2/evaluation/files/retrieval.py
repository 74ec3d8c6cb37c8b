"""The official files of retrieval: results, val_query.json and val_gallery.json; and pairs for verification."""

from collections.abc import Container, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmdf2.categories import ATTRIBUTES, CATEGORIES, MAX_PAIR_ID, MAX_STYLE, NUM_CATEGORIES, identity_code
from mmdf2.evaluation.files.json_list import CORNERS, LARGEST_ID, JsonEntry, all_finite, list_entries, read_entries
from mmdf2.evaluation.retrieval import MAX_HITS, Outcome, RetrievalItems, RetrievedLists, evaluate_lists
from mmdf2.files import AnyPath

_BOX = 'x1, y1, x2, y2, finite'


def evaluate_retrieval_results(results: list[dict], query_gt: list[dict], gallery_gt: list[dict]) -> Outcome:
    """Evaluates the content of the official files; see ``retrieved_lists``, ``query_items`` and ``gallery_items``.

    Raises:
        EvaluationError: A field is missing, of the wrong length or not finite; or the files have no image in common.
    """
    lists = retrieved_lists(list_entries('results', results))
    queries = query_items(list_entries('query ground truth', query_gt))
    gallery = gallery_items(list_entries('gallery ground truth', gallery_gt))
    return evaluate_lists(lists, queries, gallery)


def read_retrieved_lists(path: AnyPath, images: Container[int] | None = None) -> RetrievedLists:
    """Reads the official results from a file; see ``retrieved_lists``."""
    return retrieved_lists(read_entries(path), images)


def retrieved_lists(entries: Iterable[JsonEntry], images: Container[int] | None = None) -> RetrievedLists:
    """Collects the official results.

    Args:
        entries: One per detection on a user image: query_image_id, query_bbox, query_cls (1 to 13), query_score,
            gallery_image_id (up to 20, best first; further ones are left out) and gallery_bbox of as many. All boxes
            are corners x1, y1, x2, y2 with x1 <= x2 and y1 <= y2.
        images: Ids of all images, where they are known: the official lists of items lack images without any.

    Raises:
        EvaluationError: An entry is not of the format, or has an image that is not among ``images``.
    """
    image_ids, boxes, labels, scores, hits = [], [], [], [], []
    for entry in entries:
        hits.append(_hits(entry))
        image_ids.append(entry.integer('query_image_id', 0, LARGEST_ID))
        if images is not None:
            _check_images(entry, images, image_ids[-1], hits[-1][0])
        boxes.append(entry.corners('query_bbox'))
        expected = f'a category_id from 1 to {NUM_CATEGORIES}'
        labels.append(entry.integer('query_cls', 1, NUM_CATEGORIES, expected) - 1)
        scores.append(entry.finite('query_score'))
    return RetrievedLists(
        image_ids=np.array(image_ids, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        scores=np.array(scores, dtype=np.float64),
        hit_counts=np.array([len(hit_images) for hit_images, _ in hits], dtype=np.int64),
        hit_images=np.fromiter(chain.from_iterable(hit_images for hit_images, _ in hits), dtype=np.int64),
        hit_boxes=np.concatenate([*(hit_boxes for _, hit_boxes in hits), np.zeros((0, 4))]),
    )


def _hits(entry: JsonEntry) -> tuple[list[int], np.ndarray]:
    images: Any = entry.value.get('gallery_image_id')
    boxes: Any = entry.value.get('gallery_bbox')
    if not isinstance(images, list) or not all(type(image) is int and 0 <= image <= LARGEST_ID for image in images):
        raise entry.wrong('gallery_image_id', 'a list of image ids')
    fits = isinstance(boxes, list) and all(isinstance(box, list | tuple) and len(box) == 4 for box in boxes)
    if not fits or len(boxes) != len(images) or not all_finite(list(chain.from_iterable(boxes))):
        found = f', got {len(boxes)}' if isinstance(boxes, list) else ''
        raise entry.wrong('gallery_bbox', f'a list of {len(images)} boxes ({_BOX}), one per gallery_image_id{found}')
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    turned = np.flatnonzero((corners[:, 2:] < corners[:, :2]).any(axis=1))
    if len(turned):
        number = int(turned[0])
        raise entry.error(f'box {number} of gallery_bbox should be {CORNERS}, got {boxes[number]}')
    return images[:MAX_HITS], corners[:MAX_HITS]


def _check_images(entry: JsonEntry, images: Container[int], query_image_id: int, gallery_image_ids: list[int]) -> None:
    if query_image_id not in images:
        raise entry.wrong('query_image_id', 'the id of an image of the ground truth')
    unknown = next((image_id for image_id in gallery_image_ids if image_id not in images), None)
    if unknown is not None:
        raise entry.wrong('gallery_image_id', f'ids of images of the ground truth, which {unknown} is not')


def read_exchange_items(query_path: AnyPath, gallery_path: AnyPath) -> tuple[RetrievalItems, RetrievalItems]:
    """Reads the items of user images and of shop images from the official lists (val_query.json, val_gallery.json)."""
    return query_items(read_entries(query_path)), gallery_items(read_entries(gallery_path))


def query_items(entries: Iterable[JsonEntry]) -> RetrievalItems:
    """Collects the official list of items on user images.

    Args:
        entries: query_image_id, bbox, cls (1 to 13), style and pair_id of each item; scale, occlusion, zoom_in and
            viewpoint, which the official file lacks, are used if all entries have them.

    Raises:
        EvaluationError: An entry is not of the format.
    """
    return _items(entries, 'query_image_id', with_labels=True)


def gallery_items(entries: Iterable[JsonEntry]) -> RetrievalItems:
    """Collects the official list of items on shop images: gallery_image_id, bbox, style and pair_id of each item.

    Raises:
        EvaluationError: An entry is not of the format.
    """
    return _items(entries, 'gallery_image_id', with_labels=False)


def _items(entries: Iterable[JsonEntry], image_field: str, with_labels: bool) -> RetrievalItems:
    image_ids, boxes, labels, styles, pair_ids, attributes = [], [], [], [], [], []
    for entry in entries:
        image_ids.append(entry.integer(image_field, 0, LARGEST_ID))
        boxes.append(entry.corners('bbox'))
        if with_labels:
            labels.append(entry.integer('cls', 1, NUM_CATEGORIES) - 1)
        styles.append(entry.integer('style', 0, MAX_STYLE))
        pair_ids.append(entry.integer('pair_id', 0, MAX_PAIR_ID))
        if all(name in entry.value for name in ATTRIBUTES):
            attributes.append([entry.integer(name, 0, 3) for name in ATTRIBUTES])
    complete = image_ids and len(attributes) == len(image_ids)
    return RetrievalItems(
        image_ids=np.array(image_ids, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        identities=identity_code(np.array(pair_ids, dtype=np.int64), np.array(styles, dtype=np.int64)),
        labels=np.array(labels, dtype=np.int64) if with_labels else None,
        attributes=np.array(attributes, dtype=np.int64) if complete else None,
    )


def retrieval_result(
    query_image_id: int,
    query_box: Sequence[float] | np.ndarray,
    query_label: int,
    query_score: float,
    gallery_image_ids: Sequence[int] | np.ndarray,
    gallery_boxes: Sequence[Sequence[float]] | np.ndarray,
) -> dict:
    """Makes one entry of the official retrieval results.

    Args:
        query_image_id: The user image.
        query_box: (4,) x1, y1, x2, y2 of the detection on it.
        query_label: The predicted category, 0 to 12; written as category_id 1 to 13.
        query_score: The score of the detection.
        gallery_image_ids: (k,) shop images of the retrieved boxes, best first.
        gallery_boxes: (k, 4) x1, y1, x2, y2 of the retrieved boxes.
    """
    return {
        'query_image_id': int(query_image_id),
        'query_bbox': np.asarray(query_box, dtype=np.float64).tolist(),
        'query_cls': CATEGORIES[int(query_label)].id,
        'query_score': float(query_score),
        'gallery_image_id': np.asarray(gallery_image_ids).astype(int).tolist(),
        'gallery_bbox': np.asarray(gallery_boxes, dtype=np.float64).tolist(),
    }


def read_pairs(path: AnyPath) -> tuple[np.ndarray, np.ndarray]:
    """Reads pairs for verification from a JSON list of objects with ``score`` and ``same``.

    ``score`` is a finite number, ``same`` is true or false, or 1 or 0.

    Returns:
        (p,) float64 scores, and (p,) bool, whether the pair shows the same garment.

    Raises:
        EvaluationError: The file or an entry is not of the format; the message names the line, the entry and the field.
    """
    scores, same = [], []
    for entry in read_entries(path):
        scores.append(entry.finite('score'))
        same.append(_same(entry))
    return np.array(scores, dtype=np.float64), np.array(same, dtype=bool)


def _same(entry: JsonEntry) -> bool:
    value = entry.value.get('same')
    return value if isinstance(value, bool) else bool(entry.integer('same', 0, 1, 'true or false, or 1 or 0'))

"""Retrieval by the official files: results, val_query.json and val_gallery.json."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mmdf2.categories import ATTRIBUTES, NUM_CATEGORIES
from mmdf2.evaluation.entries import Entry, all_finite, list_entries, read_entries
from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.retrieval import MAX_HITS, Items, Outcome, judge, select_queries

_LARGEST_ID = 2**62
_BOX = 'x1, y1, x2, y2, finite'


@dataclass(frozen=True)
class RetrievedLists:
    """What was retrieved for each of d detections on user images.

    Attributes:
        image_ids: (d,) int64, user images.
        boxes: (d, 4) float64, x1, y1, x2, y2.
        labels: (d,) int64, 0 to 12.
        scores: (d,) float64.
        hit_counts: (d,) int64, boxes retrieved for each, at most ``MAX_HITS``.
        hit_images: (h,) int64, shop image of each retrieved box, best first, all lists one after another.
        hit_boxes: (h, 4) float64, x1, y1, x2, y2.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    hit_counts: np.ndarray
    hit_images: np.ndarray
    hit_boxes: np.ndarray

    def hits(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(k,) shop images and (k, 4) boxes that were retrieved for a detection, best first."""
        end = int(self.hit_counts[: row + 1].sum())
        rows = slice(end - int(self.hit_counts[row]), end)
        return self.hit_images[rows], self.hit_boxes[rows]


@dataclass(frozen=True)
class ListedItems:
    """Items as an official list has them: (m,) image_ids, pair_ids and styles, (m, 4) boxes x1, y1, x2, y2; of queries
    (m,) labels 0 to 12, and (m, 4) attributes where every entry has them."""

    image_ids: np.ndarray
    boxes: np.ndarray
    pair_ids: np.ndarray
    styles: np.ndarray
    labels: np.ndarray | None = None
    attributes: np.ndarray | None = None


def evaluate_retrieval_results(results: list[dict], query_gt: list[dict], gallery_gt: list[dict]) -> Outcome:
    """Evaluates the content of the official files; see ``retrieved_lists``, ``listed_queries`` and ``listed_gallery``.

    Raises:
        EvaluationError: A field that is missing, of the wrong length or not finite; or no image in common.
    """
    lists = retrieved_lists(list_entries('results', results))
    queries = listed_queries(list_entries('query ground truth', query_gt))
    gallery = listed_gallery(list_entries('gallery ground truth', gallery_gt))
    return evaluate_lists(lists, *join_listed(queries, gallery))


def read_retrieved_lists(path, images: Container[int] | None = None) -> RetrievedLists:
    """``retrieved_lists`` of a file."""
    return retrieved_lists(read_entries(path), images)


def read_listed_items(query_path, gallery_path) -> tuple[Items, Items]:
    """Items of user images and of shop images from the official lists, such as val_query.json and val_gallery.json."""
    return join_listed(listed_queries(read_entries(query_path)), listed_gallery(read_entries(gallery_path)))


def retrieved_lists(entries: Iterable[Entry], images: Container[int] | None = None) -> RetrievedLists:
    """The official results.

    Args:
        entries: One for each detection on a user image: query_image_id, query_bbox, query_cls (1 to 13), query_score,
            gallery_image_id (up to 20, best first; more are not looked at) and gallery_bbox of as many. All boxes are
            x1, y1, x2, y2.
        images: Ids of all images, where they are known: the official lists of items lack images without any.

    Raises:
        EvaluationError: An entry that is not of the format, or an image that is not among ``images``.
    """
    rows, hits = [], []
    for entry in entries:
        image_ids, boxes = _hits(entry)
        query_image_id = entry.integer('query_image_id', 0, _LARGEST_ID)
        if images is not None:
            _check_images(entry, images, query_image_id, image_ids)
        rows.append(
            (
                query_image_id,
                entry.numbers('query_bbox', 4, _BOX),
                entry.integer('query_cls', 1, NUM_CATEGORIES, f'a category_id from 1 to {NUM_CATEGORIES}') - 1,
                entry.finite('query_score'),
                len(image_ids),
            )
        )
        hits.append((image_ids, np.array(boxes, dtype=np.float64).reshape(-1, 4)))
    image_ids, boxes, labels, scores, counts = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return RetrievedLists(
        np.array(image_ids, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(labels, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        np.array(counts, dtype=np.int64),
        np.fromiter(chain.from_iterable(images for images, _ in hits), dtype=np.int64),
        np.concatenate([*(boxes for _, boxes in hits), np.zeros((0, 4))]),
    )


def listed_queries(entries: Iterable[Entry]) -> ListedItems:
    """The official list of items on user images.

    Args:
        entries: query_image_id, bbox, cls (1 to 13), style and pair_id; scale, occlusion, zoom_in and viewpoint, which
            the official file lacks, if all of them have these.
    """
    return _listed(entries, 'query_image_id', ('cls', 'style', 'pair_id'))


def listed_gallery(entries: Iterable[Entry]) -> ListedItems:
    """The official list of items on shop images: gallery_image_id, bbox, style and pair_id."""
    return _listed(entries, 'gallery_image_id', ('style', 'pair_id'))


def join_listed(queries: ListedItems, gallery: ListedItems) -> tuple[Items, Items]:
    """Items with identities that are equal where pair_id and style are, and -1 where style is 0."""
    styles = np.concatenate([queries.styles, gallery.styles])
    pairs = np.stack([np.concatenate([queries.pair_ids, gallery.pair_ids]), styles], axis=1)
    _, identities = np.unique(pairs, axis=0, return_inverse=True)
    identities = np.where(styles > 0, identities.reshape(-1), -1)
    count = len(queries.styles)
    return (
        Items(queries.image_ids, queries.boxes, identities[:count], queries.labels, queries.attributes),
        Items(gallery.image_ids, gallery.boxes, identities[count:]),
    )


def evaluate_lists(lists: RetrievedLists, items: Items, gallery: Items) -> Outcome:
    """Evaluates retrieved lists by the official protocol (see ``mmdf2.evaluation.retrieval``).

    An image that is in no ground truth has no items.

    Raises:
        EvaluationError: No user image, or no shop image, of the results is in the ground truth.
    """
    for what, ids, known in (
        ('query_image_id', lists.image_ids, items.image_ids),
        ('gallery_image_id', lists.hit_images, gallery.image_ids),
    ):
        if len(ids) and not np.isin(ids, known).any():
            raise EvaluationError(f'no {what} of the results is in the ground truth: they are of different splits')
    queries, chosen = select_queries(items, lists.image_ids, lists.boxes, lists.labels, lists.scores)
    represented = np.flatnonzero(chosen >= 0)
    counts = lists.hit_counts[chosen[represented]]
    first = np.cumsum(lists.hit_counts) - lists.hit_counts
    hits = np.arange(counts.sum()) + np.repeat(first[chosen[represented]] - np.cumsum(counts) + counts, counts)
    return judge(
        items,
        gallery,
        queries,
        chosen < 0,
        lists.hit_images[hits],
        lists.hit_boxes[hits],
        np.repeat(represented, counts),
    )


def _listed(entries: Iterable[Entry], image_field: str, fields) -> ListedItems:
    images, boxes, attributes = [], [], []
    columns = {name: [] for name in fields}
    for entry in entries:
        images.append(entry.integer(image_field, 0, _LARGEST_ID))
        boxes.append(entry.numbers('bbox', 4, _BOX))
        for name, column in columns.items():
            low, high = (1, NUM_CATEGORIES) if name == 'cls' else (0, _LARGEST_ID)
            column.append(entry.integer(name, low, high))
        if all(name in entry.value for name in ATTRIBUTES):
            attributes.append([entry.integer(name, 0, 3) for name in ATTRIBUTES])
    complete = images and len(attributes) == len(images)
    return ListedItems(
        np.array(images, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(columns['pair_id'], dtype=np.int64),
        np.array(columns['style'], dtype=np.int64),
        np.array(columns['cls'], dtype=np.int64) - 1 if 'cls' in columns else None,
        np.array(attributes, dtype=np.int64) if complete else None,
    )


def _check_images(entry: Entry, images: Container[int], query_image_id: int, gallery_image_ids: list[int]) -> None:
    if query_image_id not in images:
        raise entry.wrong('query_image_id', 'the id of an image of the ground truth')
    unknown = next((image_id for image_id in gallery_image_ids if image_id not in images), None)
    if unknown is not None:
        raise entry.wrong('gallery_image_id', f'ids of images of the ground truth, which {unknown} is not')


def _hits(entry: Entry) -> tuple[list[int], list[list[float]]]:
    images, boxes = entry.value.get('gallery_image_id'), entry.value.get('gallery_bbox')
    if not isinstance(images, list) or not all(type(image) is int and 0 <= image <= _LARGEST_ID for image in images):
        raise entry.wrong('gallery_image_id', 'a list of image ids')
    fits = isinstance(boxes, list) and all(isinstance(box, list | tuple) and len(box) == 4 for box in boxes)
    if not fits or len(boxes) != len(images) or not all_finite(list(chain.from_iterable(boxes))):
        found = f', got {len(boxes)}' if isinstance(boxes, list) else ''
        raise entry.wrong('gallery_bbox', f'a list of {len(images)} boxes ({_BOX}), one a gallery_image_id{found}')
    return images[:MAX_HITS], boxes[:MAX_HITS]

"""Evaluates retrieval from the content of the official files: results, val_query.json, val_gallery.json."""

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.retrieval import MAX_HITS, Items, Outcome, judge, select_queries

RESULT_FIELDS = {
    'query_image_id': (),
    'query_bbox': (4,),
    'query_cls': (),
    'query_score': (),
    'gallery_image_id': (None,),
    'gallery_bbox': (None, 4),
}
QUERY_FIELDS = {'query_image_id': (), 'bbox': (4,), 'cls': (), 'style': (), 'pair_id': ()}
GALLERY_FIELDS = {'gallery_image_id': (), 'bbox': (4,), 'style': (), 'pair_id': ()}


def evaluate_retrieval_results(results: list[dict], query_gt: list[dict], gallery_gt: list[dict]) -> Outcome:
    """Evaluates one or more retrieved lists an image by the official protocol (see ``mmdf2.evaluation.retrieval``).

    Args:
        results: A dict for each detection on a user image: query_image_id, query_bbox, query_cls (1 to 13),
            query_score, gallery_image_id (up to 20, best first; more are not looked at) and gallery_bbox of as many.
        query_gt: A dict for each item of the user images: query_image_id, bbox, cls (1 to 13), style, pair_id.
        gallery_gt: A dict for each item of the shop images: gallery_image_id, bbox, style, pair_id.

    All boxes are x1, y1, x2, y2. An image that is in no ground-truth list has no items.

    Raises:
        EvaluationError: A field that is missing, of the wrong length or not finite; or no image in common.
    """
    query_columns = _columns('query ground truth', query_gt, QUERY_FIELDS)
    gallery_columns = _columns('gallery ground truth', gallery_gt, GALLERY_FIELDS)
    found = _columns('results', results, {name: RESULT_FIELDS[name] for name in list(RESULT_FIELDS)[:4]})
    hit_images, hit_boxes = _hits(results)
    for what, ids, known in (
        ('query_image_id', found['query_image_id'], query_columns['query_image_id']),
        ('gallery_image_id', np.concatenate([*hit_images, []]), gallery_columns['gallery_image_id']),
    ):
        if len(ids) and not np.isin(ids, known).any():
            raise EvaluationError(f'no {what} of the results is in the ground truth: they are of different splits')
    items, gallery = _items(query_columns, gallery_columns)
    queries, chosen = select_queries(
        items,
        found['query_image_id'].astype(np.int64),
        found['query_bbox'],
        found['query_cls'].astype(np.int64) - 1,
        found['query_score'],
    )
    represented = np.flatnonzero(chosen >= 0)
    lists = chosen[represented].tolist()
    return judge(
        items,
        gallery,
        queries,
        chosen < 0,
        np.concatenate([*(hit_images[row] for row in lists), []]).astype(np.int64),
        np.concatenate([*(hit_boxes[row] for row in lists), np.zeros((0, 4))]),
        np.repeat(represented, [len(hit_images[row]) for row in lists]).astype(np.int64),
    )


def _items(query, gallery) -> tuple[Items, Items]:
    """Items with identities that are equal where pair_id and style are, and -1 where style is 0."""
    styles = np.concatenate([query['style'], gallery['style']])
    pairs = np.stack([np.concatenate([query['pair_id'], gallery['pair_id']]), styles], axis=1)
    _, identities = np.unique(pairs, axis=0, return_inverse=True)
    identities = np.where(styles > 0, identities.reshape(-1), -1)
    count = len(query['style'])
    return (
        Items(query['query_image_id'].astype(np.int64), query['bbox'], identities[:count], query['cls'] - 1),
        Items(gallery['gallery_image_id'].astype(np.int64), gallery['bbox'], identities[count:]),
    )


def _columns(what: str, entries: list[dict], fields: dict) -> dict[str, np.ndarray]:
    columns = {}
    for name, shape in fields.items():
        rows = [_array(what, row, entry, name, shape) for row, entry in enumerate(entries)]
        columns[name] = np.array(rows, dtype=np.float64).reshape(len(rows), *shape)
    for name in {'cls', 'query_cls'} & columns.keys():
        bad = np.flatnonzero(~np.isin(columns[name], np.arange(1, NUM_CATEGORIES + 1)))
        if len(bad):
            raise EvaluationError(
                f'entry {bad[0]} of the {what}: {name} must be a category_id from 1 to {NUM_CATEGORIES}, '
                f'got {columns[name][bad[0]]:g}'
            )
    return columns


def _hits(results) -> tuple[list[np.ndarray], list[np.ndarray]]:
    images, boxes = [], []
    for row, entry in enumerate(results):
        ids = _array('results', row, entry, 'gallery_image_id', (None,))
        # An empty list of boxes has no second axis to check.
        shape = (None, 4) if len(ids) else (0,)
        corners = _array('results', row, entry, 'gallery_bbox', shape).reshape(-1, 4)
        if len(corners) != len(ids):
            raise EvaluationError(
                f'entry {row} of the results: gallery_bbox must have a box for each of the {len(ids)} '
                f'gallery_image_id, got {len(corners)}'
            )
        images.append(ids[:MAX_HITS])
        boxes.append(corners[:MAX_HITS])
    return images, boxes


def _array(what, row, entry, name, shape) -> np.ndarray:
    if not isinstance(entry, dict) or name not in entry:
        raise EvaluationError(f'entry {row} of the {what}: {name} is missing')
    try:
        array = np.asarray(entry[name], dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits or not np.isfinite(array).all():
        kind = {(): 'a number', (4,): 'x1, y1, x2, y2', (None,): 'a list of numbers'}.get(shape, 'a list of boxes')
        text = repr(entry[name])
        text = text if len(text) <= 80 else text[:77] + '...'
        raise EvaluationError(f'entry {row} of the {what}: {name} must be {kind}, finite, got {text}')
    return array

"""The paper's statistics of a dataset (its Table 1 and Figure 3) and some more, counted from a store.

Source: DeepFashion2, section 3 (Table 1, Figure 3): an identity is (pair_id, style) with style > 0; a pair is one
consumer item and one shop item of the same identity.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, NUM_CATEGORIES, Source
from mmdf2.datasets.store import Store
from mmdf2.evaluation.records import ATTRIBUTE_VALUES

# Shares of items from Figure 3 of the paper. The figure shows side (.08) and back (.07) separately; the annotation has
# one value for both.
PUBLISHED_SHARES = {
    'scale': (0.26, 0.50, 0.24),
    'occlusion': (0.47, 0.47, 0.06),
    'zoom_in': (0.67, 0.21, 0.12),
    'viewpoint': (0.07, 0.78, 0.15),
}
# The row 'DeepFashion2' of the paper's Table 1. It describes the whole dataset, of which a part was released.
PUBLISHED_TABLE = {
    'images': 491_000,
    'categories': 13,
    'boxes': 801_000,
    'landmarks': 801_000,
    'masks': 801_000,
    'pairs': 873_000,
}
# Largest count of each class of counts: 0, 1, 2, 3, 4-5, 6-10, ...
_COUNT_BOUNDS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
# Where the classes of box sizes begin, in pixels.
_SIDE_EDGES = (0, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def dataset_statistics(store: Store) -> dict:
    """Counts what a split contains.

    Args:
        store: The store of the split.

    Returns:
        A dict of dicts:

        - 'table': numbers of images, categories that occur, boxes, items with landmarks, items with masks, identities
          and pairs;
        - 'images': numbers of user images, shop images and images without items;
        - 'attributes': attribute -> value -> number of items;
        - 'categories': name -> numbers of items on user and on shop images;
        - 'landmarks': name of the category -> for each landmark, how often it has the visibility 0, 1 and 2;
        - 'identities': numbers of identities with both sides or one, and class -> number of identities, for pairs,
          user items and shop items per identity;
        - 'items_per_image': class -> number of images;
        - 'box_side_pixels' (square root of the box's area), 'box_share_of_image' and 'landmarks_per_item' (labelled
          landmarks): class -> number of items.
    """
    labels = np.asarray(store.category_ids, dtype=np.int64) - 1
    sources = np.asarray(store.sources)[store.item_images]
    landmarks = landmark_counts(store)
    pairs = identity_counts(store.identities, sources)
    masks = np.diff(store.polygon_offsets) > 0
    labelled = _labelled_per_item(store)
    sides = np.maximum(np.asarray(store.bboxes[:, 2:], dtype=np.float64) - store.bboxes[:, :2], 0)
    area = sides.prod(axis=1)
    image_area = (np.asarray(store.widths, dtype=np.float64) * store.heights)[store.item_images]
    per_image = np.diff(store.item_offsets)
    return {
        'table': {
            'images': len(store),
            'categories': len(np.unique(labels)),
            'boxes': len(labels),
            'landmarks': int((labelled > 0).sum()),
            'masks': int(masks.sum()),
            'identities': len(pairs),
            'pairs': int((pairs[:, 0] * pairs[:, 1]).sum()),
        },
        'images': {
            'user': int((store.sources == Source.USER).sum()),
            'shop': int((store.sources == Source.SHOP).sum()),
            'without items': int((per_image == 0).sum()),
        },
        'attributes': _attributes(store),
        'categories': {
            category.name: {
                'user': int(((labels == category.label) & (sources == Source.USER)).sum()),
                'shop': int(((labels == category.label) & (sources == Source.SHOP)).sum()),
            }
            for category in CATEGORIES
        },
        'landmarks': {c.name: landmarks[c.label, : c.num_landmarks].tolist() for c in CATEGORIES},
        'identities': _identities(pairs),
        'items_per_image': count_classes(per_image),
        'box_side_pixels': classes(np.sqrt(area), _SIDE_EDGES),
        'box_share_of_image': _share_classes(area / image_area),
        'landmarks_per_item': classes(labelled, (0, 1, *range(5, MAX_LANDMARKS + 1, 5))),
    }


def landmark_counts(store: Store) -> np.ndarray:
    """(13, 39, 3) how often each landmark of each category has the visibility 0, 1 and 2; padding counts 0."""
    counts = np.zeros((NUM_CATEGORIES, MAX_LANDMARKS, 3), dtype=np.int64)
    lengths = np.diff(store.landmark_offsets)
    rows = np.repeat(np.asarray(store.category_ids, dtype=np.int64) - 1, lengths)
    places = np.arange(len(rows)) - np.repeat(store.landmark_offsets[:-1], lengths)
    np.add.at(counts, (rows, places, np.asarray(store.landmarks[:, 2], dtype=np.int64)), 1)
    return counts


def identity_counts(identities: ArrayLike, sources: ArrayLike) -> np.ndarray:
    """Counts the user and the shop items of each identity.

    Args:
        identities: (m,) identity of each item, -1 for none.
        sources: (m,) source of each item's image, see ``Source``.

    Returns:
        (i, 2) int64 numbers of user and shop items, identities in ascending order. Items without identity are not
        counted.
    """
    identities, sources = np.asarray(identities), np.asarray(sources)
    kept = identities >= 0
    found, places = np.unique(identities[kept], return_inverse=True)
    counts = np.zeros((len(found), 2), dtype=np.int64)
    np.add.at(counts, (places.reshape(-1), sources[kept].astype(np.int64)), 1)
    return counts


def classes(values: ArrayLike, edges: Sequence[int]) -> dict[str, int]:
    """Counts the values in each class.

    Args:
        values: (n,) numbers, none below the first edge.
        edges: Where the classes begin; each ends before the next begins, the last has no upper bound.

    Returns:
        Name of the class ('4-5', or '101+' for the last) -> number of values.

    Raises:
        ValueError: A value is below the first edge.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) and values.min() < edges[0]:
        raise ValueError(f'values must be {edges[0]} or more, got {values.min()}')
    counts, _ = np.histogram(values, [*edges, np.inf])
    names = [_span(low, high) for low, high in zip(edges, [*edges[1:], None], strict=True)]
    return dict(zip(names, counts.tolist(), strict=True))


def count_classes(values: ArrayLike) -> dict[str, int]:
    """Counts the integers in the classes 0, 1, 2, 3, 4-5, 6-10, 11-20, 21-50, 51-100 and more."""
    return classes(values, (0, *(bound + 1 for bound in _COUNT_BOUNDS)))


def _span(low: int, high: int | None) -> str:
    """The name of a class of integers from ``low`` to before ``high``."""
    if high is None:
        return f'{low:g}+'
    return f'{low:g}' if high == low + 1 else f'{low:g}-{high - 1:g}'


def _share_classes(shares: np.ndarray) -> dict[str, int]:
    """Class of ten percent -> number of shares; shares above 1 count as 1."""
    edges = np.arange(0, 100, 10)
    counts, _ = np.histogram(np.minimum(shares * 100, 100), [*edges, 100])
    return {f'{low}-{low + 10} %': count for low, count in zip(edges.tolist(), counts.tolist(), strict=True)}


def _attributes(store: Store) -> dict[str, dict[str, int]]:
    """Attribute -> value, or 'unknown' -> number of items."""
    columns = {'scale': 'scales', 'occlusion': 'occlusions', 'zoom_in': 'zoom_ins', 'viewpoint': 'viewpoints'}
    found = {}
    for attribute, names in ATTRIBUTE_VALUES.items():
        counts = np.bincount(np.asarray(getattr(store, columns[attribute]), dtype=np.int64), minlength=4)
        found[attribute] = dict(zip((*names, 'unknown'), [*counts[1:4].tolist(), int(counts[0])], strict=True))
    return found


def _identities(pairs: np.ndarray) -> dict:
    """Statistics of identities from their (i, 2) numbers of user and shop items."""
    return {
        'with both sides': int((pairs > 0).all(axis=1).sum()),
        'consumer only': int((pairs[:, 1] == 0).sum()),
        'shop only': int((pairs[:, 0] == 0).sum()),
        'pairs per identity': count_classes(pairs[:, 0] * pairs[:, 1]),
        'consumer items per identity': count_classes(pairs[:, 0]),
        'shop items per identity': count_classes(pairs[:, 1]),
    }


def _labelled_per_item(store: Store) -> np.ndarray:
    """(m,) number of labelled landmarks of each item."""
    labelled = np.concatenate([[0], np.cumsum(np.asarray(store.landmarks[:, 2]) > 0)])
    return labelled[store.landmark_offsets[1:]] - labelled[store.landmark_offsets[:-1]]

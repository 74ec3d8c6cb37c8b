"""Ground truth of a split as the core wants it, from the split's store."""

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.categories import MAX_LANDMARKS
from mmdf2.datasets.store import Store
from mmdf2.evaluation.records import EvaluationError, GroundTruth
from mmdf2.evaluation.retrieval import Items


def image_rows(store: Store, image_ids=None) -> np.ndarray:
    """Rows of images in a store.

    Args:
        store: The split's store.
        image_ids: Ids, each once; None for all images.

    Returns:
        (n,) rising rows.

    Raises:
        EvaluationError: An id that the store does not have.
    """
    if image_ids is None:
        return np.arange(len(store))
    unknown = np.setdiff1d(image_ids, store.image_ids)
    if len(unknown):
        raise EvaluationError(
            f'{len(unknown)} predicted images are not in {store!r}, the first has id {unknown[0]}; '
            "the metric's data_root and split must be those of the dataset that is tested"
        )
    return np.flatnonzero(np.isin(store.image_ids, image_ids))


def ground_truth(store: Store, image_ids=None, masks: bool = True) -> GroundTruth:
    """The items of some images of a store.

    Coordinates are those of the exported exchange files, so that both evaluate alike.

    Args:
        store: The split's store.
        image_ids: Ids of the images; None for all.
        masks: Whether to draw the polygons as masks; an item without polygons gets an empty mask.
    """
    images = image_rows(store, image_ids)
    rows = np.flatnonzero(np.isin(store.item_images, images))
    corners = _boxes(store, rows)
    return GroundTruth(
        store.image_ids[images].astype(np.int64),
        store.image_ids[store.item_images[rows]].astype(np.int64),
        store.category_ids[rows].astype(np.int64) - 1,
        np.concatenate([corners[:, :2], np.round(corners[:, 2:] - corners[:, :2], 3)], axis=1),
        [_mask(store, row) for row in rows.tolist()] if masks else None,
        _landmarks(store, rows),
        _attributes(store, rows),
    )


def retrieval_items(store: Store, source: int, image_ids=None) -> Items:
    """The items of a store's user images (``USER``: the queries) or shop images (``SHOP``: the gallery)."""
    images = image_rows(store, image_ids)
    images = images[store.sources[images] == source]
    rows = np.flatnonzero(np.isin(store.item_images, images))
    return Items(
        store.image_ids[store.item_images[rows]].astype(np.int64),
        _boxes(store, rows),
        store.identities[rows].astype(np.int64),
        store.category_ids[rows].astype(np.int64) - 1,
        _attributes(store, rows),
    )


def _attributes(store: Store, rows) -> np.ndarray:
    columns = (store.scales, store.occlusions, store.zoom_ins, store.viewpoints)
    return np.stack([column[rows] for column in columns], axis=1).astype(np.int64)


def _boxes(store: Store, rows) -> np.ndarray:
    # A store keeps thousandths of a pixel; rounding gives back the decimals that float32 could not hold.
    return np.round(store.bboxes[rows].astype(np.float64), 3).reshape(-1, 4)


def _landmarks(store: Store, rows) -> np.ndarray:
    first, count = store.landmark_offsets[rows], store.landmark_offsets[rows + 1] - store.landmark_offsets[rows]
    landmarks = np.zeros((len(rows), MAX_LANDMARKS, 3))
    own = np.arange(MAX_LANDMARKS) < count[:, None]
    landmarks[own] = store.landmarks[(first[:, None] + np.arange(MAX_LANDMARKS))[own]]
    return np.round(landmarks, 3)


def _mask(store: Store, row: int) -> dict:
    image = store.item_images[row]
    height, width = int(store.heights[image]), int(store.widths[image])
    polygons = [polygon.ravel().tolist() for polygon in store.polygons(row)]
    if not polygons:
        return mask_utils.frPyObjects({'size': [height, width], 'counts': [height * width]}, height, width)
    return mask_utils.merge(mask_utils.frPyObjects(polygons, height, width))

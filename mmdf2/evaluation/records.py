"""Ground truth and detections of many images as flat arrays, and the paper's subsets of items: what the core reads.

Boxes are x, y, width, height, as in COCO's exchange format: IoU computed from them is pycocotools' to the last bit.

The thirteen columns of the paper's tables are all items, and three subsets by each of four attributes. A subset keeps
its own items; the other items are ignored, so that a detection matched to one of them counts neither way. Unmatched
detections count in every column. Source: the paper's Tables 2 to 4, in the order of their columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mmdf2.categories import ATTRIBUTES, CATEGORY_NAMES, MAX_LANDMARKS, NUM_CATEGORIES

OVERALL = 'overall'
_VALUE_NAMES = (
    ('small', 'moderate', 'large'),
    ('slight', 'medium', 'heavy'),
    ('no', 'medium', 'large'),
    ('no_wear', 'frontal', 'side_or_back'),
)
# Attribute -> names of its values 1, 2, 3, in the order of ``GroundTruth.attributes``.
ATTRIBUTE_VALUES = dict(zip(ATTRIBUTES, _VALUE_NAMES, strict=True))
SUBSETS = tuple(f'{attribute}/{value}' for attribute, values in ATTRIBUTE_VALUES.items() for value in values)
COLUMNS = (*SUBSETS, OVERALL)


class EvaluationError(ValueError):
    """Predictions or ground truth that cannot be evaluated; the message names the row and the remedy."""


@dataclass(frozen=True)
class GroundTruth:
    """The annotated items of a set of images, m items of n images.

    Attributes:
        image_ids: (n,) int64, every image that is evaluated, also those without items.
        item_image_ids: (m,) int64, the image of each item.
        labels: (m,) int64, the category of each item, 0 to 12.
        boxes: (m, 4) float64, x, y, width, height in pixels; width times height is the object's area in OKS.
        masks: m compressed RLEs ``{'size': [height, width], 'counts': bytes}``, or None when masks are not evaluated.
        landmarks: (m, 39, 3) float64 rows x, y, v (2 visible, 1 occluded, 0 not labelled), category-local and padded
            with zeros, or None.
        attributes: (m, 4) int64 columns scale, occlusion, zoom_in, viewpoint, each 1 to 3 or 0 where unknown; None
            when only the overall column is evaluated.
        crowds: (m,) bool, regions that hold many items (COCO's ``iscrowd``): such a region is ignored, and any number
            of detections may match it; None when there are none. DeepFashion2 itself has none.
        areas: (m,) float64, the area of each object in OKS (COCO's ``area``); None when it is that of the box.
    """

    image_ids: np.ndarray
    item_image_ids: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: list[dict] | None = None
    landmarks: np.ndarray | None = None
    attributes: np.ndarray | None = None
    crowds: np.ndarray | None = None
    areas: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_rows('ground truth', self, len(self.item_image_ids))
        if len(np.unique(self.image_ids)) != len(self.image_ids):
            raise EvaluationError('image_ids of the ground truth must differ from one another')
        _check_known_images('ground truth', self.item_image_ids, self.image_ids)
        _check_labels('ground truth', self.labels)
        _check_boxes('ground truth', self.boxes, self.item_image_ids)

    def take_images(self, image_ids: Sequence[int] | np.ndarray) -> 'GroundTruth':
        """Selects the ground truth of some images; EvaluationError for an id that it does not have."""
        image_ids = np.unique(np.asarray(image_ids, dtype=np.int64))
        _check_known_images('the selection', image_ids, self.image_ids)
        rows = np.flatnonzero(np.isin(self.item_image_ids, image_ids))
        return GroundTruth(image_ids, **{name: _take(getattr(self, name), rows) for name in _ITEM_FIELDS})


_ITEM_FIELDS = [field.name for field in fields(GroundTruth) if field.name != 'image_ids']


@dataclass(frozen=True)
class Detections:
    """Predictions, d rows in any order; rows of equal score rank in the order given.

    Attributes:
        image_ids: (d,) int64, the image of each detection.
        labels: (d,) int64, the predicted categories, 0 to 12.
        scores: (d,) float64, finite.
        boxes: (d, 4) float64, x, y, width, height, finite, width and height not negative, or None when there are none.
        masks: d compressed RLEs of the image's own size, or None when there are none.
        landmarks: (d, 39, 2) float64 x, y, category-local, or None.
        dense_landmarks: Row -> (294, 2) float64 x, y, for the rows of another system that also fill columns of other
            categories; pycocotools looks at these columns when an item has no landmark to compare. None when no row
            does.
    """

    image_ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None
    masks: list[dict] | None = None
    landmarks: np.ndarray | None = None
    dense_landmarks: dict[int, np.ndarray] | None = None

    def __post_init__(self) -> None:
        _check_rows('detections', self, len(self.image_ids))
        _check_labels('detections', self.labels)
        _check_finite('detections', 'score', self.scores, self.image_ids)
        if self.boxes is not None:
            _check_boxes('detections', self.boxes, self.image_ids)
        if self.landmarks is not None:
            _check_finite('detections', 'landmarks', self.landmarks, self.image_ids)

    def check_images(self, image_ids: np.ndarray) -> None:
        """Raises EvaluationError when a detection lies on an image that is not among ``image_ids``."""
        _check_known_images('detections', self.image_ids, image_ids)


def column_members(columns: Sequence[str], count: int, attributes: np.ndarray | None = None) -> np.ndarray:
    """Which items count in each column.

    Args:
        columns: c names of ``COLUMNS``.
        count: m, the number of items.
        attributes: (m, 4) values 1 to 3, 0 where unknown (such an item is in no subset of that attribute); None when
            only 'overall' is asked for.

    Returns:
        (c, m) bool.

    Raises:
        ValueError: A column is unknown, or a subset is asked for without attributes.
    """
    members = np.ones((len(columns), count), dtype=bool)
    for row, column in enumerate(columns):
        if column == OVERALL:
            continue
        if column not in SUBSETS:
            raise ValueError(f'column must be one of {", ".join(COLUMNS)}, got {column!r}')
        if attributes is None:
            raise ValueError(f'column {column!r} needs the attributes of the ground truth, which it does not carry')
        place = SUBSETS.index(column)
        members[row] = attributes[:, place // 3] == place % 3 + 1
    return members


def join(keys: np.ndarray, sorted_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the run of equal values of each key in a sorted array.

    Args:
        keys: (a,) values.
        sorted_keys: (b,) rising values.

    Returns:
        (a,) start of each run, (a,) its length, and (sum of the lengths,) the positions of all runs one after another.
    """
    first = np.searchsorted(sorted_keys, keys, side='left')
    count = np.searchsorted(sorted_keys, keys, side='right') - first
    members = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return first, count, members


def pairs_of_images(image_ids: np.ndarray, item_image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs each of a boxes with every item of its image.

    Args:
        image_ids: (a,) image id of each box.
        item_image_ids: (m,) image id of each item, in any order.

    Returns:
        (p,) rows of the boxes, rising, and (p,) rows of the items, rising for each box.
    """
    order = np.argsort(item_image_ids, kind='stable')
    _, count, members = join(image_ids, item_image_ids[order])
    return np.repeat(np.arange(len(image_ids)), count), order[members]


def _take(column: Any, rows: np.ndarray) -> Any:
    if column is None:
        return None
    return [column[row] for row in rows] if isinstance(column, list) else column[rows]


def _check_rows(what: str, record: GroundTruth | Detections, count: int) -> None:
    shapes = {'boxes': (4,), 'attributes': (4,), 'landmarks': (MAX_LANDMARKS, 3 if what == 'ground truth' else 2)}
    for field in fields(record):
        column = getattr(record, field.name)
        if column is None or isinstance(column, dict) or (what == 'ground truth' and field.name == 'image_ids'):
            continue
        shape = (len(column),) if isinstance(column, list) else column.shape
        if shape != (count, *shapes.get(field.name, ())):
            expected = (count, *shapes.get(field.name, ()))
            raise EvaluationError(f'{field.name} of the {what} must have shape {expected}, got {shape}')


def _check_known_images(what: str, image_ids: np.ndarray, known: np.ndarray) -> None:
    unknown = np.setdiff1d(image_ids, known)
    if len(unknown):
        raise EvaluationError(
            f'{what}: {len(unknown)} image ids are not in the ground truth, the first is {unknown[0]}; '
            'predictions and ground truth must be of the same split'
        )


def _check_labels(what: str, labels: np.ndarray) -> None:
    bad = np.flatnonzero((labels < 0) | (labels >= NUM_CATEGORIES))
    if len(bad):
        raise EvaluationError(
            f'row {bad[0]} of the {what} has label {labels[bad[0]]}; labels are 0 to {NUM_CATEGORIES - 1} '
            f"('{CATEGORY_NAMES[0]}' to '{CATEGORY_NAMES[-1]}'), category_id - 1"
        )


def _check_boxes(what: str, boxes: np.ndarray, image_ids: np.ndarray) -> None:
    _check_finite(what, 'box', boxes, image_ids)
    bad = np.flatnonzero((boxes[:, 2:] < 0).any(axis=1))
    if len(bad):
        raise EvaluationError(
            f'row {bad[0]} of the {what} (image {image_ids[bad[0]]}) has box {boxes[bad[0]].tolist()}; '
            'x, y, width, height with no negative width or height is needed'
        )


def _check_finite(what: str, name: str, values: np.ndarray, image_ids: np.ndarray) -> None:
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1) if len(values) else np.ones(0, bool)
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise EvaluationError(
            f'row {bad[0]} of the {what} (image {image_ids[bad[0]]}) has a {name} that is not finite, as have '
            f'{len(bad)} rows in all; the model has probably diverged'
        )

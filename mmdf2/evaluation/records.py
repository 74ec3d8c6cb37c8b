"""Ground truth and detections of many images as flat arrays: what the core reads.

Boxes are x, y, width, height, as in COCO's exchange format: IoU computed from them is pycocotools' to the last bit.
"""

from dataclasses import dataclass, fields

import numpy as np

from mmdf2.categories import CATEGORY_NAMES, MAX_LANDMARKS, NUM_CATEGORIES


class EvaluationError(ValueError):
    """Predictions or ground truth that cannot be evaluated; the message names the row and the remedy."""


@dataclass(frozen=True)
class GroundTruth:
    """The annotated items of a set of images, m items of n images.

    Attributes:
        image_ids: (n,) int64, every image that is evaluated, also those without items.
        item_image_ids: (m,) int64.
        labels: (m,) int64, 0 to 12.
        boxes: (m, 4) float64, x, y, width, height in pixels; width times height is the object's area in OKS.
        masks: m compressed RLEs ``{'size': [height, width], 'counts': bytes}``, or None when masks are not evaluated.
        landmarks: (m, 39, 3) float64 rows x, y, v (2 visible, 1 occluded, 0 not labelled), category-local and padded
            with zeros, or None.
        attributes: (m, 4) int64 columns scale, occlusion, zoom_in, viewpoint, each 1 to 3 or 0 where unknown; None
            when only the overall column is evaluated.
        crowds: (m,) bool, regions that hold many items (COCO's ``iscrowd``): ignored, and any number of detections may
            match one; None for none. DeepFashion2 itself has none.
        areas: (m,) float64, the area of each object in OKS where it is not that of its box (COCO's ``area``).
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

    def __post_init__(self):
        _check_rows('ground truth', self, len(self.item_image_ids))
        if len(np.unique(self.image_ids)) != len(self.image_ids):
            raise EvaluationError('image_ids of the ground truth must differ from one another')
        _check_known_images('ground truth', self.item_image_ids, self.image_ids)
        _check_labels('ground truth', self.labels)
        _check_boxes('ground truth', self.boxes, self.item_image_ids)

    def take_images(self, image_ids) -> 'GroundTruth':
        """The ground truth of these images only; EvaluationError for an id that it does not have."""
        image_ids = np.unique(np.asarray(image_ids, dtype=np.int64))
        _check_known_images('the selection', image_ids, self.image_ids)
        rows = np.flatnonzero(np.isin(self.item_image_ids, image_ids))
        return GroundTruth(image_ids, **{name: _take(getattr(self, name), rows) for name in _ITEM_FIELDS})


_ITEM_FIELDS = [field.name for field in fields(GroundTruth) if field.name != 'image_ids']


@dataclass(frozen=True)
class Detections:
    """Predictions, d rows in any order; rows of equal score rank in the order given.

    Attributes:
        image_ids: (d,) int64.
        labels: (d,) int64, 0 to 12.
        scores: (d,) float64, finite.
        boxes: (d, 4) float64, x, y, width, height, finite, width and height not negative, or None when there are none.
        masks: d compressed RLEs of the image's own size, or None when there are none.
        landmarks: (d, 39, 2) float64 x, y, category-local, or None.
        dense_landmarks: Row -> (294, 2) float64 x, y, where another system fills columns of other categories too;
            pycocotools looks at them when an item has no landmark to compare. None for none.
    """

    image_ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None
    masks: list[dict] | None = None
    landmarks: np.ndarray | None = None
    dense_landmarks: dict[int, np.ndarray] | None = None

    def __post_init__(self):
        _check_rows('detections', self, len(self.image_ids))
        _check_labels('detections', self.labels)
        _check_finite('detections', 'score', self.scores, self.image_ids)
        if self.boxes is not None:
            _check_boxes('detections', self.boxes, self.image_ids)
        if self.landmarks is not None:
            _check_finite('detections', 'landmarks', self.landmarks, self.image_ids)

    def check_images(self, image_ids) -> None:
        """EvaluationError when a detection lies on an image that is not among ``image_ids``."""
        _check_known_images('detections', self.image_ids, image_ids)


def _take(column, rows):
    if column is None:
        return None
    return [column[row] for row in rows] if isinstance(column, list) else column[rows]


def _check_rows(what: str, record, count: int) -> None:
    shapes = {'boxes': (4,), 'attributes': (4,), 'landmarks': (MAX_LANDMARKS, 3 if what == 'ground truth' else 2)}
    for field in fields(record):
        column = getattr(record, field.name)
        if column is None or isinstance(column, dict) or (what == 'ground truth' and field.name == 'image_ids'):
            continue
        shape = (len(column),) if isinstance(column, list) else column.shape
        if shape != (count, *shapes.get(field.name, ())):
            expected = (count, *shapes.get(field.name, ()))
            raise EvaluationError(f'{field.name} of the {what} must have shape {expected}, got {shape}')


def _check_known_images(what: str, image_ids, known) -> None:
    unknown = np.setdiff1d(image_ids, known)
    if len(unknown):
        raise EvaluationError(
            f'{what}: {len(unknown)} image ids are not in the ground truth, the first is {unknown[0]}; '
            'predictions and ground truth must be of the same split'
        )


def _check_labels(what: str, labels) -> None:
    bad = np.flatnonzero((labels < 0) | (labels >= NUM_CATEGORIES))
    if len(bad):
        raise EvaluationError(
            f'row {bad[0]} of the {what} has label {labels[bad[0]]}; labels are 0 to {NUM_CATEGORIES - 1} '
            f"('{CATEGORY_NAMES[0]}' to '{CATEGORY_NAMES[-1]}'), category_id - 1"
        )


def _check_boxes(what: str, boxes, image_ids) -> None:
    _check_finite(what, 'box', boxes, image_ids)
    bad = np.flatnonzero((boxes[:, 2:] < 0).any(axis=1))
    if len(bad):
        raise EvaluationError(
            f'row {bad[0]} of the {what} (image {image_ids[bad[0]]}) has box {boxes[bad[0]].tolist()}; '
            'x, y, width, height with no negative width or height is needed'
        )


def _check_finite(what: str, name: str, values, image_ids) -> None:
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1) if len(values) else np.ones(0, bool)
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise EvaluationError(
            f'row {bad[0]} of the {what} (image {image_ids[bad[0]]}) has a {name} that is not finite, as have '
            f'{len(bad)} rows in all; the model has probably diverged'
        )

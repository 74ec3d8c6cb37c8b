"""Ground truth in COCO's format, as the official converter or ``tools/prepare_deepfashion2.py`` writes it."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdf2.categories import ATTRIBUTES, CATEGORIES, TOTAL_LANDMARKS, label_of_name
from mmdf2.evaluation.files.detections import (
    KEYPOINTS,
    OWN_LABELS,
    box_of,
    label_of,
    local_landmarks,
)
from mmdf2.evaluation.files.json_list import LARGEST_ID, JsonEntry, read_lists
from mmdf2.evaluation.files.masks import checked_masks, mask_of
from mmdf2.evaluation.records import EvaluationError, GroundTruth
from mmdf2.files import AnyPath

_LARGEST_SIDE = 2**16


@dataclass
class _AnnotationColumns:
    """Columns of annotation, to which the entries of items are added one by one.

    ``own`` holds x, y, v of the landmarks of each item's own category, all items one after another. ``entries`` holds
    what is needed of each entry when all images are known: its image_id and its segmentation.
    """

    image_ids: array = field(default_factory=lambda: array('q'))
    labels: array = field(default_factory=lambda: array('b'))
    boxes: array = field(default_factory=lambda: array('d'))
    areas: array = field(default_factory=lambda: array('d'))
    crowds: array = field(default_factory=lambda: array('b'))
    attributes: array = field(default_factory=lambda: array('b'))
    own: array = field(default_factory=lambda: array('d'))
    entries: list[JsonEntry] = field(default_factory=list)


@dataclass(frozen=True)
class CocoTruth:
    """The content of a ground-truth file.

    Attributes:
        ground_truth: The items.
        sizes: Image id -> (height, width).
        labels: category_id -> label, by the names of the file's own categories.
    """

    ground_truth: GroundTruth
    sizes: dict[int, tuple[int, int]]
    labels: dict[int, int]


class _CategoriesFollow(Exception):
    """The file's own categories, which come behind its annotations, have other ids than was assumed."""


def read_coco_truth(path: AnyPath, masks: bool, landmarks: bool) -> CocoTruth:
    """Reads a ground-truth file.

    Args:
        path: A JSON object with ``images`` (id, height, width) and ``annotations`` (image_id, category_id, bbox, area;
            iscrowd, segmentation, keypoints of all 294 landmarks; scale, occlusion, zoom_in and viewpoint, which the
            official files lack, when all annotations have them); ``categories`` (id, name), if it is there, says by
            name which category_id means what.
        masks: Whether to read the masks; the annotations must then have them.
        landmarks: Whether to read the landmarks; the annotations must then have them.

    Raises:
        EvaluationError: The file or an entry is not of the format; the message names the line, the entry and the field.
    """
    try:
        return _read(path, masks, landmarks, None)
    except _CategoriesFollow:
        return _read(path, masks, landmarks, category_labels(read_lists(path, (), ('categories',))))


def category_labels(categories: Iterable[tuple[str, JsonEntry]]) -> dict[int, int]:
    """Finds the label of each category_id by the names of a file's own categories.

    Args:
        categories: The entries (id, name) of the list ``categories``, each behind the list's name. Where there is no
            name, the id is DeepFashion2's.

    Returns:
        category_id -> label of the categories that DeepFashion2 has; its own ids, if there are no entries.

    Raises:
        EvaluationError: An entry is not of the format, or has the id or the category of one before it.
    """
    labels: dict[int, int] = {}
    ids: set[int] = set()
    for _, entry in categories:
        category_id, name = entry.integer('id', 0, LARGEST_ID), entry.value.get('name')
        if category_id in ids:
            raise entry.wrong('id', 'an id that no category before it has')
        if name is not None and not isinstance(name, str):
            raise entry.wrong('name', 'the name of a category')
        ids.add(category_id)
        label = OWN_LABELS.get(category_id) if name is None else label_of_name(name)
        if label in labels.values():
            raise entry.wrong('name', 'the name of a category that none before it has')
        if label is not None:
            labels[category_id] = label
    return labels if ids else OWN_LABELS


def _read(path: AnyPath, masks: bool, landmarks: bool, labels: dict[int, int] | None) -> CocoTruth:
    """Reads a file; without ``labels``, by those of the file, which should come before the annotations."""
    sizes: dict[int, tuple[int, int]] = {}
    items = _AnnotationColumns()
    categories: list[tuple[str, JsonEntry]] = []
    assumed = False
    try:
        for name, entry in read_lists(path, ('images', 'annotations'), ('categories',)):
            if name == 'categories':
                categories.append((name, entry))
            elif name == 'images':
                _add_image(sizes, entry)
            else:
                if labels is None:
                    labels, assumed = category_labels(categories), not categories
                _add_item(items, entry, masks, landmarks, labels)
    except EvaluationError as error:
        if assumed:
            raise _CategoriesFollow from error
        raise
    if labels is None or assumed:
        labels = category_labels(categories)
        if assumed and labels != OWN_LABELS:
            raise _CategoriesFollow
    for entry in items.entries:
        if entry.value['image_id'] not in sizes:
            raise entry.wrong('image_id', "the id of one of the file's images")
    truth = _ground_truth(path, sizes, items, masks, landmarks)
    return CocoTruth(ground_truth=truth, sizes=sizes, labels=labels)


def _add_image(sizes: dict[int, tuple[int, int]], entry: JsonEntry) -> None:
    image_id = entry.integer('id', 0, LARGEST_ID)
    if image_id in sizes:
        raise entry.wrong('id', 'an id that no image before it has')
    sizes[image_id] = (entry.integer('height', 1, _LARGEST_SIDE), entry.integer('width', 1, _LARGEST_SIDE))


def _add_item(
    items: _AnnotationColumns, entry: JsonEntry, masks: bool, landmarks: bool, labels: dict[int, int]
) -> None:
    value = entry.value
    items.image_ids.append(entry.integer('image_id', 0, LARGEST_ID))
    label = label_of(entry, labels)
    items.labels.append(label)
    box = box_of(entry)
    items.boxes.extend(box)
    items.areas.append(entry.finite('area') if 'area' in value else box[2] * box[3])
    items.crowds.append(entry.integer('iscrowd', 0, 1) if 'iscrowd' in value else 0)
    if all(name in value for name in ATTRIBUTES):
        items.attributes.extend(entry.integer(name, 0, 3) for name in ATTRIBUTES)
    if landmarks:
        items.own.extend(_own_landmarks(entry, label))
    # Masks are drawn when the sizes of all images are known. The dense vectors are not kept.
    kept: dict[str, Any] = {'image_id': int(value['image_id'])}
    if masks:
        kept['segmentation'] = value.get('segmentation')
        if 'segmentation' not in value:
            raise entry.wrong('segmentation', 'there, since masks are evaluated')
    items.entries.append(JsonEntry(source=entry.source, number=entry.number, line=entry.line, value=kept))


def _own_landmarks(entry: JsonEntry, label: int) -> Sequence[float]:
    values = entry.numbers('keypoints', 3 * TOTAL_LANDMARKS, KEYPOINTS)
    visibility = values[2::3]
    if not set(visibility) <= {0, 1, 2}:
        raise entry.wrong('keypoints', 'x, y, v with v 0, 1 or 2')
    columns = CATEGORIES[label].dense_slice
    own = visibility[columns]
    labelled = len(own) - own.count(0)
    if TOTAL_LANDMARKS - visibility.count(0) != labelled:
        raise entry.wrong('keypoints', f'labelled (v > 0) in columns {columns.start} to {columns.stop - 1} alone')
    # pycocotools ignores an item whose num_keypoints is 0; other numbers make no difference.
    counted = entry.integer('num_keypoints', 0, TOTAL_LANDMARKS) if 'num_keypoints' in entry.value else labelled
    if (counted == 0) != (labelled == 0):
        raise entry.wrong('num_keypoints', f'{labelled}, the number of keypoints with v > 0')
    return values[3 * columns.start : 3 * columns.stop]


def _ground_truth(
    path: AnyPath,
    sizes: dict[int, tuple[int, int]],
    items: _AnnotationColumns,
    masks: bool,
    landmarks: bool,
) -> GroundTruth:
    count = len(items.labels)
    if 0 < len(items.attributes) < count * len(ATTRIBUTES):
        raise EvaluationError(f'{path}: some annotations have {", ".join(ATTRIBUTES)} and others do not')
    boxes, areas = np.array(items.boxes).reshape(-1, 4), np.array(items.areas)
    crowds = np.array(items.crowds, dtype=bool)
    drawn = ((entry, mask_of(entry, sizes[entry.value['image_id']])) for entry in items.entries)
    return GroundTruth(
        image_ids=np.fromiter(sizes, dtype=np.int64, count=len(sizes)),
        item_image_ids=np.array(items.image_ids),
        labels=np.array(items.labels, dtype=np.int64),
        boxes=boxes,
        masks=checked_masks(drawn) if masks else None,
        landmarks=local_landmarks(items.own, items.labels) if landmarks else None,
        attributes=np.array(items.attributes, dtype=np.int64).reshape(-1, len(ATTRIBUTES))
        if items.attributes
        else None,
        crowds=crowds if crowds.any() else None,
        areas=areas if (areas != boxes[:, 2] * boxes[:, 3]).any() else None,
    )

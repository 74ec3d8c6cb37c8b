"""Where ground truth comes from: a DeepFashion2 folder, a store of mmdf2, or files in the official formats."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.categories import MAX_LANDMARKS, Source, Visibility
from mmdf2.codecs.polygons import polygons_to_rle
from mmdf2.datasets.prepare import open_annotation
from mmdf2.datasets.store import PROBLEMS, Store
from mmdf2.evaluation.coco import box_iou
from mmdf2.evaluation.files.detections import OWN_LABELS
from mmdf2.evaluation.files.ground_truth import read_coco_truth
from mmdf2.evaluation.files.retrieval import read_exchange_items
from mmdf2.evaluation.records import EvaluationError, GroundTruth, pairs_of_images
from mmdf2.evaluation.retrieval import RetrievalItems, with_size
from mmdf2.files import AnyPath

# Copies of the annotation round boxes differently; another item of the image hardly overlaps so much.
_SAME_BOX_IOU = 0.99


@dataclass(frozen=True)
class TruthSource:
    """Ground truth, and what result files are checked against.

    Attributes:
        ground_truth: The items.
        sizes: Image id -> (height, width).
        store: The store that the items come from; None when they come from a file.
        labels: category_id -> label in the ground truth and in results of detection.
    """

    ground_truth: GroundTruth
    sizes: dict[int, tuple[int, int]]
    store: Store | None = None
    labels: dict[int, int] = field(default_factory=OWN_LABELS.copy)

    @property
    def has_occluded_landmarks(self) -> bool:
        """Whether occluded landmarks (v == 1) are kept: the official files of visible landmarks hold none."""
        return self.store is not None or bool((self._landmarks()[..., 2] == Visibility.OCCLUDED).any())

    def bare(self) -> frozenset[tuple[int, int]]:
        """(image id, label) of the items without a visible landmark."""
        truth = self.ground_truth
        rows = np.flatnonzero(~(self._landmarks()[..., 2] == Visibility.VISIBLE).any(axis=1))
        return frozenset(zip(truth.item_image_ids[rows].tolist(), truth.labels[rows].tolist(), strict=True))

    def notes(self) -> list[str]:
        """Sentences for a report: what the figures do not cover, and categories with other ids."""
        notes = []
        if self.store is not None and (problems := self.store.manifest['problems']):
            counts = ', '.join(f'{count} x {kind}' for kind, count in problems.items())
            notes.append(f'the annotation has problems ({counts}), see {self.store.folder / PROBLEMS}')
        if self.labels != OWN_LABELS:
            notes.append(
                "the ground truth's own categories have other ids than DeepFashion2's: its category_id, and those of "
                'results of detection, are taken by name'
            )
        return notes

    def _landmarks(self) -> np.ndarray:
        if self.ground_truth.landmarks is None:
            raise EvaluationError('the ground truth was opened without landmarks')
        return self.ground_truth.landmarks


def open_truth(path: AnyPath, split: str = 'validation', masks: bool = True, landmarks: bool = True) -> TruthSource:
    """Opens ground truth of any kind.

    Args:
        path: A folder in DeepFashion2's layout (its store is made if it is missing) or the folder of one of its splits;
            the folder of a store; or a JSON file in COCO's format.
        split: The split to open, when the path is a dataset's folder.
        masks: Whether masks are needed.
        landmarks: Whether landmarks are needed.

    Raises:
        EvaluationError: The path is none of these, or the file is not of the format.
        StoreError: The store is damaged or stale.
    """
    path = Path(path)
    if path.is_file():
        read = read_coco_truth(path, masks, landmarks)
        return TruthSource(ground_truth=read.ground_truth, sizes=read.sizes, labels=read.labels)
    try:
        store, _ = open_annotation(path, split)
    except FileNotFoundError as error:
        raise EvaluationError(
            f'{path} is no ground truth: a JSON file in COCO format, the folder of a store, or a folder with '
            f'{split}/annos and {split}/image is needed ({error})'
        ) from error
    return source_of_store(store, masks)


def source_of_store(store: Store, masks: bool = True) -> TruthSource:
    """The ground truth of all images of a store, with masks where they are needed."""
    shapes = zip(store.heights.tolist(), store.widths.tolist(), strict=True)
    sizes = dict(zip(store.image_ids.tolist(), shapes, strict=True))
    return TruthSource(ground_truth=ground_truth(store, masks=masks), sizes=sizes, store=store)


def ground_truth(store: Store, image_ids: Sequence[int] | np.ndarray | None = None, masks: bool = True) -> GroundTruth:
    """The items of some images of a store.

    Coordinates are those of the exported exchange files, so that both give the same figures.

    Args:
        store: The store of the split.
        image_ids: Ids of the images; None for all.
        masks: Whether to draw the polygons as masks; an item without polygons gets an empty mask.

    Raises:
        EvaluationError: The store does not have one of the images.
    """
    images = image_rows(store, image_ids)
    rows = np.flatnonzero(np.isin(store.item_images, images))
    corners = _boxes(store, rows)
    return GroundTruth(
        image_ids=store.image_ids[images].astype(np.int64),
        item_image_ids=store.image_ids[store.item_images[rows]].astype(np.int64),
        labels=store.category_ids[rows].astype(np.int64) - 1,
        boxes=np.concatenate([corners[:, :2], np.round(corners[:, 2:] - corners[:, :2], 3)], axis=1),
        masks=[_mask(store, row) for row in rows.tolist()] if masks else None,
        landmarks=_landmarks(store, rows),
        attributes=_attributes(store, rows),
    )


def retrieval_items(
    store: Store, source: Source, image_ids: Sequence[int] | np.ndarray | None = None
) -> RetrievalItems:
    """The items of a store's user images (the queries) or shop images (the gallery).

    Args:
        store: The store of the split.
        source: ``Source.USER`` or ``Source.SHOP``.
        image_ids: Ids of images, of either source; None for all.

    Raises:
        EvaluationError: The store does not have one of the images.
    """
    images = image_rows(store, image_ids)
    images = images[store.sources[images] == source]
    rows = np.flatnonzero(np.isin(store.item_images, images))
    return RetrievalItems(
        image_ids=store.image_ids[store.item_images[rows]].astype(np.int64),
        boxes=_boxes(store, rows),
        identities=store.identities[rows].astype(np.int64),
        labels=store.category_ids[rows].astype(np.int64) - 1,
        attributes=_attributes(store, rows),
    )


def image_rows(store: Store, image_ids: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Finds the rows of images in a store.

    Args:
        store: The store of the split.
        image_ids: Ids, each once; None for all images.

    Returns:
        (n,) rising rows.

    Raises:
        EvaluationError: The store does not have one of the images.
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


def _attributes(store: Store, rows: np.ndarray) -> np.ndarray:
    columns = (store.scales, store.occlusions, store.zoom_ins, store.viewpoints)
    return np.stack([column[rows] for column in columns], axis=1).astype(np.int64)


def _boxes(store: Store, rows: np.ndarray) -> np.ndarray:
    # A store keeps thousandths of a pixel; rounding gives back the decimals that float32 could not hold.
    return np.round(store.bboxes[rows].astype(np.float64), 3).reshape(-1, 4)


def _landmarks(store: Store, rows: np.ndarray) -> np.ndarray:
    first, count = store.landmark_offsets[rows], store.landmark_offsets[rows + 1] - store.landmark_offsets[rows]
    landmarks = np.zeros((len(rows), MAX_LANDMARKS, 3))
    own = np.arange(MAX_LANDMARKS) < count[:, None]
    landmarks[own] = store.landmarks[(first[:, None] + np.arange(MAX_LANDMARKS))[own]]
    return np.round(landmarks, 3)


def _mask(store: Store, row: int) -> dict:
    image = store.item_images[row]
    height, width = int(store.heights[image]), int(store.widths[image])
    polygons = store.polygons(row)
    if not polygons:
        return mask_utils.frPyObjects({'size': [height, width], 'counts': [height * width]}, height, width)
    try:
        return polygons_to_rle(polygons, height, width)
    except ValueError as error:
        raise EvaluationError(f'item {row} of {store!r}: {error}; make the store anew of the annotation') from error


def open_retrieval_truth(
    source: TruthSource | None,
    query_path: AnyPath | None = None,
    gallery_path: AnyPath | None = None,
    subsets: bool = False,
) -> tuple[RetrievalItems, RetrievalItems]:
    """Opens the ground truth of retrieval: the official lists, or the store.

    Args:
        source: Ground truth of all images, or None.
        query_path: The official list of query items, such as val_query.json; None to take them from the source's store.
        gallery_path: The official list of gallery items, such as val_gallery.json; it is given exactly when the list of
            query items is.
        subsets: Whether the query items need attributes: from their list if it has them, else from the source.

    Returns:
        The items of the user images and those of the shop images.

    Raises:
        EvaluationError: One list is given without the other, there are neither lists nor a store, or nothing has the
            attributes.
    """
    if (query_path is None) != (gallery_path is None):
        raise EvaluationError('retrieval needs both the list of query items and that of gallery items, or none of them')
    if query_path is None or gallery_path is None:
        if source is None or source.store is None:
            raise EvaluationError(
                'retrieval needs its ground truth: the lists of query items and of gallery items (val_query.json and '
                'val_gallery.json), or the folder or store of the dataset'
            )
        return retrieval_items(source.store, Source.USER), retrieval_items(source.store, Source.SHOP)
    items, gallery = read_exchange_items(query_path, gallery_path)
    if subsets and items.attributes is None:
        items = with_attributes(items, None if source is None else source.ground_truth)
    return items, gallery


def with_attributes(items: RetrievalItems, truth: GroundTruth | None) -> RetrievalItems:
    """Takes the attributes of query items from the same items (image, category, box) of the ground truth.

    Raises:
        EvaluationError: The ground truth has no attributes, or lacks a query item.
    """
    if truth is None or truth.attributes is None:
        raise EvaluationError(
            'the columns of subsets need the attributes of query items, which neither their list nor the ground truth '
            'has; give the folder or the store of the dataset as ground truth'
        )
    item, row = pairs_of_images(items.image_ids, truth.item_image_ids)
    overlap = box_iou(with_size(items.boxes)[item], truth.boxes[row])
    same = (overlap >= _SAME_BOX_IOU) & (items.needed_labels()[item] == truth.labels[row])
    item, row, overlap = item[same], row[same], overlap[same]
    found = np.full(len(items.image_ids), -1)
    # Among several items, the one with the largest overlap is taken; among equal overlaps, the first.
    best = np.lexsort((row, -overlap, item))
    known, first = np.unique(item[best], return_index=True)
    found[known] = row[best[first]]
    missing = np.flatnonzero(found < 0)
    if len(missing):
        raise EvaluationError(
            f'{len(missing)} of {len(found)} items of the query list are not in the ground truth, the first on image '
            f'{items.image_ids[missing[0]]} with box {items.boxes[missing[0]].tolist()}; both must be of one split'
        )
    return replace(items, attributes=truth.attributes[found])

"""Where retrieval's ground truth comes from: the official lists, or the store; and the attributes of query items."""

from dataclasses import replace

import numpy as np

from mmdf2.categories import Source
from mmdf2.evaluation.candidates import join
from mmdf2.evaluation.from_store import retrieval_items
from mmdf2.evaluation.records import EvaluationError, GroundTruth
from mmdf2.evaluation.retrieval import Items
from mmdf2.evaluation.retrieval_files import read_listed_items
from mmdf2.evaluation.similarity import box_iou
from mmdf2.evaluation.truth_source import TruthSource

# Copies of the annotation round boxes differently; another item of the image hardly overlaps so much.
_SAME_BOX_IOU = 0.99


def open_retrieval_truth(source: TruthSource | None, query_path=None, gallery_path=None, subsets: bool = False):
    """Items of user images and of shop images.

    Args:
        source: Ground truth of all images, or None.
        query_path: The official list of query items, such as val_query.json; None to take them from the source's store.
        gallery_path: Likewise of the gallery, such as val_gallery.json; both or none.
        subsets: Whether the query items need attributes; from the list if it has them, else from the source.

    Returns:
        The user images' and the shop images' ``Items``.

    Raises:
        EvaluationError: One list without the other, neither lists nor a store, or attributes that are nowhere.
    """
    if (query_path is None) != (gallery_path is None):
        raise EvaluationError('retrieval needs both the list of query items and that of gallery items, or none of them')
    if query_path is None:
        if source is None or source.store is None:
            raise EvaluationError(
                'retrieval needs its ground truth: the lists of query items and of gallery items (val_query.json and '
                'val_gallery.json), or the folder or store of the dataset'
            )
        return tuple(retrieval_items(source.store, kind) for kind in (Source.USER, Source.SHOP))
    items, gallery = read_listed_items(query_path, gallery_path)
    if subsets and items.attributes is None:
        items = with_attributes(items, None if source is None else source.ground_truth)
    return items, gallery


def with_attributes(items: Items, truth: GroundTruth | None) -> Items:
    """Query items with the attributes of the same items (image, category, box) in the ground truth.

    Raises:
        EvaluationError: The ground truth has no attributes, or lacks a query item.
    """
    if truth is None or truth.attributes is None:
        raise EvaluationError(
            'the columns of subsets need the attributes of query items, which neither their list nor the ground truth '
            'has; give the folder or the store of the dataset as ground truth'
        )
    order = np.argsort(truth.item_image_ids, kind='stable')
    _, count, members = join(items.image_ids, truth.item_image_ids[order])
    item, row = np.repeat(np.arange(len(items.image_ids)), count), order[members]
    sizes = items.boxes[:, 2:] - items.boxes[:, :2]
    overlap = box_iou(np.concatenate([items.boxes[:, :2], sizes], axis=1)[item], truth.boxes[row])
    same = (overlap >= _SAME_BOX_IOU) & (items.labels[item] == truth.labels[row])
    item, row = item[same], row[same]
    found = np.full(len(items.image_ids), -1)
    # The best of several; of equal ones the first.
    best = np.lexsort((row, -overlap[same], item))
    known, first = np.unique(item[best], return_index=True)
    found[known] = row[best[first]]
    missing = np.flatnonzero(found < 0)
    if len(missing):
        raise EvaluationError(
            f'{len(missing)} of {len(found)} items of the query list are not in the ground truth, the first on image '
            f'{items.image_ids[missing[0]]} with box {items.boxes[missing[0]].tolist()}; both must be of one split'
        )
    return replace(items, attributes=truth.attributes[found])

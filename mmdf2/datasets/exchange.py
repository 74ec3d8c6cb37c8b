"""The official exchange files of a split: ground truth in COCO's format, and the lists of the retrieval benchmark.

The layout is that of the dataset's own ``deepfashion2_to_coco.py`` and ``evaluation.md``: dense vectors of 294
landmarks, ``area`` as the box's width times its height, and one running annotation id.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from mmdf2.categories import CATEGORIES, TOTAL_LANDMARKS, Category, Source, Visibility
from mmdf2.codecs.dense_landmarks import to_dense
from mmdf2.datasets.annotation import Item
from mmdf2.datasets.store import ImageRecord, Store
from mmdf2.files import AnyPath, open_for_replacement, write_json_list

# The official files call the validation split 'val'.
SHORT_SPLITS = {'validation': 'val'}

# What a task adds to the entry of an item; the tuple is the image's (width, height).
_TaskFields = Callable[[Item, tuple[int, int]], dict[str, Any]]


def export(store: Store, folder: AnyPath, split: str) -> list[Path]:
    """Writes all exchange files of a split.

    ``instances_<split>.json`` has boxes and masks, ``keypoints_<split>_vis.json`` the visible landmarks,
    ``keypoints_<split>_vis_and_occ.json`` the occluded ones too; ``<split>_query.json`` lists the items of user images
    and ``<split>_gallery.json`` those of shop images. The names say 'val' for 'validation', as the official ones do.

    Args:
        store: The split's store.
        folder: Where to write; created if it is missing.
        split: 'train' or 'validation'.

    Returns:
        The files' paths.
    """
    folder = Path(folder)
    short = SHORT_SPLITS.get(split, split)
    tasks: dict[str, _TaskFields] = {
        f'instances_{short}.json': _mask_fields,
        f'keypoints_{short}_vis.json': lambda item, size: _landmark_fields(item, Visibility.VISIBLE),
        f'keypoints_{short}_vis_and_occ.json': lambda item, size: _landmark_fields(item, Visibility.OCCLUDED),
    }
    lists = {f'{short}_query.json': _queries, f'{short}_gallery.json': _gallery}
    for name, task_fields in tasks.items():
        with open_for_replacement(folder / name) as file:
            _write_coco(file, store, task_fields)
    for name, entries in lists.items():
        with open_for_replacement(folder / name) as file:
            write_json_list(file, entries(store), end=']\n')
    return [folder / name for name in (*tasks, *lists)]


def _write_coco(file: IO[str], store: Store, task_fields: _TaskFields) -> None:
    head = {'info': {'description': 'DeepFashion2'}, 'licenses': [], 'categories': [_category(c) for c in CATEGORIES]}
    images = (
        {'id': image.image_id, 'file_name': image.file_name, 'width': image.width, 'height': image.height}
        for image in _images(store)
    )
    # A split has 300,000 dense vectors. They are written one by one, so that they are never in memory together.
    file.write(json.dumps(head)[:-1] + ', "images": ')
    write_json_list(file, images, end='], "annotations": ')
    write_json_list(file, _annotations(store, task_fields), end=']}\n')


def _annotations(store: Store, task_fields: _TaskFields) -> Iterator[dict[str, Any]]:
    running_id = 0
    for image in _images(store):
        for item in image.items:
            running_id += 1
            x1, y1, x2, y2 = item.bbox
            bbox = _numbers([x1, y1, x2 - x1, y2 - y1])
            yield {
                'id': running_id,
                'image_id': image.image_id,
                'category_id': item.category_id,
                'bbox': bbox,
                'area': bbox[2] * bbox[3],
                'iscrowd': 0,
                'pair_id': image.pair_id,
                'style': item.style,
                **task_fields(item, (image.width, image.height)),
            }


def _mask_fields(item: Item, size: tuple[int, int]) -> dict[str, Any]:
    # pycocotools cannot decode an empty list of polygons; an empty run-length mask says the same.
    empty = {'size': [size[1], size[0]], 'counts': [size[0] * size[1]]}
    return {'segmentation': [_numbers(polygon) for polygon in item.segmentation] or empty}


def _landmark_fields(item: Item, lowest_visibility: Visibility) -> dict[str, Any]:
    landmarks = np.round(item.landmarks.astype(np.float64), 3)
    landmarks[landmarks[:, 2] < lowest_visibility] = 0
    dense = to_dense(landmarks, item.label)
    return {'keypoints': _numbers(dense), 'num_keypoints': int((dense[:, 2] > 0).sum())}


def _category(category: Category) -> dict[str, Any]:
    return {
        'id': category.id,
        'name': category.name,
        'supercategory': 'clothes',
        'keypoints': [str(number + 1) for number in range(TOTAL_LANDMARKS)],
        'skeleton': [[category.offset + a + 1, category.offset + b + 1] for a, b in category.skeleton],
    }


def _queries(store: Store) -> Iterator[dict[str, Any]]:
    for image, item in _items(store, Source.USER):
        yield {
            'query_image_id': image.image_id,
            'style': item.style,
            'cls': item.category_id,
            'pair_id': image.pair_id,
            'bbox': _numbers(item.bbox),
        }


def _gallery(store: Store) -> Iterator[dict[str, Any]]:
    for image, item in _items(store, Source.SHOP):
        yield {
            'gallery_image_id': image.image_id,
            'style': item.style,
            'pair_id': image.pair_id,
            'bbox': _numbers(item.bbox),
        }


def _items(store: Store, source: Source) -> Iterator[tuple[ImageRecord, Item]]:
    for image in _images(store):
        if image.source == source.annotation_name:
            for item in image.items:
                yield image, item


def _images(store: Store) -> Iterator[ImageRecord]:
    return (store.image(index) for index in range(len(store)))


def _numbers(values: ArrayLike) -> list[float]:
    flat = np.round(np.asarray(values, dtype=np.float64).reshape(-1), 3).tolist()
    return [int(value) if value == int(value) else value for value in flat]

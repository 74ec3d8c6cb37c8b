"""The official exchange files of a split: COCO-style ground truth and the retrieval lists.

Layout as the dataset's own ``deepfashion2_to_coco.py`` and ``evaluation.md`` have it: dense vectors of 294 landmarks,
``area`` the box's width times height, one running annotation id.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mmdf2.categories import CATEGORIES, TOTAL_LANDMARKS, Category
from mmdf2.datasets.item import Item
from mmdf2.datasets.store import ImageRecord, Store

# The official files call the validation split 'val'.
SHORT_SPLITS = {'validation': 'val'}


def export(store: Store, folder, split: str) -> list[Path]:
    """Writes all exchange files of a split.

    ``instances_<split>.json`` has boxes and masks, ``keypoints_<split>_vis.json`` the visible landmarks,
    ``keypoints_<split>_vis_and_occ.json`` the occluded ones too; ``<split>_query.json`` lists the items of user images
    and ``<split>_gallery.json`` those of shop images. 'validation' is written 'val', as in the official names.

    Args:
        store: The split's store.
        folder: Where to write; made if missing.
        split: 'train' or 'validation'.

    Returns:
        The files' paths.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    short = SHORT_SPLITS.get(split, split)
    annotations = {
        f'instances_{short}.json': _instance,
        f'keypoints_{short}_vis.json': lambda item, size: _keypoints(item, lowest_visibility=2),
        f'keypoints_{short}_vis_and_occ.json': lambda item, size: _keypoints(item, lowest_visibility=1),
    }
    paths = [_write_coco(folder / name, store, task) for name, task in annotations.items()]
    paths.append(_write_list(folder / f'{short}_query.json', _queries(store)))
    paths.append(_write_list(folder / f'{short}_gallery.json', _gallery(store)))
    return paths


def dense_landmarks(item: Item, lowest_visibility: int = 1) -> np.ndarray:
    """An item's landmarks in the exchange format.

    Args:
        item: The item.
        lowest_visibility: 2 keeps the visible landmarks only, 1 the occluded ones too.

    Returns:
        (294, 3) float64 rows x, y, v; zeros for other categories' landmarks and for those not kept.
    """
    dense = np.zeros((TOTAL_LANDMARKS, 3))
    landmarks = np.round(item.landmarks.astype(np.float64), 3)
    landmarks[landmarks[:, 2] < lowest_visibility] = 0
    dense[CATEGORIES[item.label].dense_slice] = landmarks
    return dense


def _instance(item: Item, size: tuple[int, int]) -> dict:
    # No polygons at all cannot be decoded by pycocotools: an empty run-length mask says the same.
    empty = {'size': [size[1], size[0]], 'counts': [size[0] * size[1]]}
    return {'segmentation': [_numbers(polygon) for polygon in item.segmentation] or empty}


def _keypoints(item: Item, lowest_visibility: int) -> dict:
    dense = dense_landmarks(item, lowest_visibility)
    return {'keypoints': _numbers(dense), 'num_keypoints': int((dense[:, 2] > 0).sum())}


def _coco_annotations(store: Store, task) -> Iterator[dict]:
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
                **task(item, (image.width, image.height)),
            }


def _write_coco(path: Path, store: Store, task) -> Path:
    head = {'info': {'description': 'DeepFashion2'}, 'licenses': [], 'categories': [_category(c) for c in CATEGORIES]}
    images = (
        {'id': image.image_id, 'file_name': image.file_name, 'width': image.width, 'height': image.height}
        for image in _images(store)
    )
    return _write(
        path,
        [json.dumps(head)[:-1], ', "images": ', images, ', "annotations": ', _coco_annotations(store, task), '}\n'],
    )


def _category(category: Category) -> dict:
    return {
        'id': category.id,
        'name': category.name,
        'supercategory': 'clothes',
        'keypoints': [str(number + 1) for number in range(TOTAL_LANDMARKS)],
        'skeleton': [[category.offset + a + 1, category.offset + b + 1] for a, b in category.skeleton],
    }


def _write_list(path: Path, entries: Iterator[dict]) -> Path:
    return _write(path, [entries, '\n'])


def _write(path: Path, pieces: Iterable) -> Path:
    # A split has 300,000 dense vectors: written one by one, they never are in memory together.
    beside = path.with_name(path.name + '.tmp')
    with open(beside, 'w') as file:
        for piece in pieces:
            if isinstance(piece, str):
                file.write(piece)
                continue
            file.write('[')
            for number, entry in enumerate(piece):
                file.write((',\n' if number else '\n') + json.dumps(entry))
            file.write(']')
    os.replace(beside, path)
    return path


def _queries(store: Store) -> Iterator[dict]:
    for image in _images(store):
        for item in image.items if image.source == 'user' else ():
            yield {
                'query_image_id': image.image_id,
                'style': item.style,
                'cls': item.category_id,
                'pair_id': image.pair_id,
                'bbox': _numbers(item.bbox),
            }


def _gallery(store: Store) -> Iterator[dict]:
    for image in _images(store):
        for item in image.items if image.source == 'shop' else ():
            yield {
                'gallery_image_id': image.image_id,
                'style': item.style,
                'pair_id': image.pair_id,
                'bbox': _numbers(item.bbox),
            }


def _images(store: Store) -> Iterator[ImageRecord]:
    return (store.image(index) for index in range(len(store)))


def _numbers(values) -> list:
    flat = np.round(np.asarray(values, dtype=np.float64).reshape(-1), 3).tolist()
    return [int(value) if value == int(value) else value for value in flat]

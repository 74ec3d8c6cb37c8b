"""Fixtures that several folders of tests use: small datasets in DeepFashion2's layout, which are made when needed."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_photos import write_photos
from milvus_server import MilvusServer, reason_against
from PIL import Image

from mmdf2.categories import CATEGORIES
from mmdf2.datasets.annotation import ImageAnnotation, Item, to_json_dict


@pytest.fixture(scope='session')
def milvus_server(tmp_path_factory):
    """A Milvus server, which takes half a minute to start and is empty at first; galleries choose their own names."""
    if (reason := reason_against()) is not None:
        pytest.skip(reason)
    server = MilvusServer(tmp_path_factory.mktemp('milvus'))
    yield server
    server.kill()


@pytest.fixture(scope='session')
def photo_root(tmp_path_factory) -> Path:
    """A dataset of two made photos with the properties of real ones; see ``made_photos``."""
    return write_photos(tmp_path_factory.mktemp('photos'))


@pytest.fixture(scope='session')
def make_item():
    """make_item(rng, item_id, category_id, style, size): makes an item in an image of the given (width, height)."""
    return _make_item


@pytest.fixture(scope='session')
def write_split():
    """write_split(root, split, annotations, size): writes a split, whose images are numbered 1, 2, ..."""
    return _write_split


@pytest.fixture(scope='session')
def tiny_root(tmp_path_factory) -> Path:
    """A dataset of 24 training and 16 validation images of 96 x 64 pixels, with one or two items per image.

    User and shop images alternate. Each split has four identities: pair_ids 1 to 4, with 6 training and 4 validation
    images each, and style 1. The second items have style 0.
    """
    root = tmp_path_factory.mktemp('tiny')
    for seed, (split, count) in enumerate({'train': 24, 'validation': 16}.items()):
        rng = np.random.default_rng(seed)
        annotations = []
        for number in range(count):
            items = [_make_item(rng, 1, 1 + number % 13, 1, (96, 64))]
            if number % 3 == 0:
                items.append(_make_item(rng, 2, 1 + (number + 6) % 13, 0, (96, 64)))
            annotations.append(ImageAnnotation(('user', 'shop')[number % 2], 1 + number // 2 % 4, items))
        _write_split(root, split, annotations, (96, 64))
    return root


def _make_item(rng, item_id, category_id, style, size) -> Item:
    width, height = size
    x1, y1 = rng.integers(0, width // 3), rng.integers(0, height // 3)
    x2, y2 = rng.integers(2 * width // 3, width), rng.integers(2 * height // 3, height)
    count = CATEGORIES[category_id - 1].num_landmarks
    landmarks = np.stack(
        [rng.integers(x1, x2, count), rng.integers(y1, y2, count), rng.choice([0, 1, 2], count, p=[0.1, 0.3, 0.6])],
        axis=1,
    ).astype(np.float32)
    landmarks[landmarks[:, 2] == 0] = 0
    middle = (x1 + x2) / 2, (y1 + y2) / 2
    polygon = np.array([[middle[0], y1], [x2, middle[1]], [middle[0], y2], [x1, middle[1]]], dtype=np.float64)
    attributes = {name: int(rng.integers(1, 4)) for name in ('scale', 'occlusion', 'zoom_in', 'viewpoint')}
    return Item(
        item_id=item_id,
        category_id=category_id,
        style=style,
        bbox=(int(x1), int(y1), int(x2), int(y2)),
        landmarks=landmarks,
        segmentation=[polygon],
        **attributes,
    )


def _write_split(root, split, annotations, size) -> Path:
    folder = Path(root, split)
    (folder / 'image').mkdir(parents=True)
    (folder / 'annos').mkdir()
    rng = np.random.default_rng(len(annotations))
    for number, annotation in enumerate(annotations, start=1):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BILINEAR).save(folder / 'image' / f'{number:06d}.jpg')
        (folder / 'annos' / f'{number:06d}.json').write_text(json.dumps(to_json_dict(annotation)))
    return folder

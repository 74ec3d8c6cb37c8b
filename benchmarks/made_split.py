"""Made splits of any size for the other scripts, and results for them as a fair detector finds them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils
from tqdm import tqdm

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS
from mmdf2.datasets.annotation import ImageAnnotation, Item, to_json_dict
from mmdf2.evaluation.files.detections import detection_results
from mmdf2.evaluation.files.json_list import write_results
from mmdf2.evaluation.files.retrieval import retrieval_result
from mmdf2.evaluation.records import Detections

WIDTH, HEIGHT = 468, 702
# The numbers of images and items of the released validation split.
IMAGES, ITEMS = 32_153, 51_490
DETECTIONS_PER_IMAGE = 4
# Hard links to one file; ext4 allows 65,000.
LINKS_PER_FILE = 50_000
POLYGON_POINTS = 60


def make_split(root: Path, images: int, seed: int = 0) -> list[ImageAnnotation]:
    """Writes a validation split with the published number of items per image; every third image is a user's.

    Args:
        root: The folder that gets ``validation/image`` and ``validation/annos``.
        images: Number of images.
        seed: Seed of the random numbers.

    Returns:
        The annotation of each image, in the order of the image ids 1, 2, ...
    """
    rng = np.random.default_rng(seed)
    folder = root / 'validation'
    (folder / 'image').mkdir(parents=True, exist_ok=True)
    (folder / 'annos').mkdir(exist_ok=True)
    annotations = []
    for number in tqdm(range(images), desc='making annotation', disable=None):
        if number % LINKS_PER_FILE == 0:
            picture = root / f'picture{number // LINKS_PER_FILE}.jpg'
            Image.new('RGB', (WIDTH, HEIGHT), 'white').save(picture)
        link = folder / 'image' / f'{number + 1:06d}.jpg'
        link.unlink(missing_ok=True)
        os.link(picture, link)
        count = (number + 1) * ITEMS // IMAGES - number * ITEMS // IMAGES
        source = 'shop' if number % 3 else 'user'
        annotation = ImageAnnotation(source, number // 6 + 1, [_item(rng, row + 1) for row in range(count)])
        (folder / 'annos' / f'{number + 1:06d}.json').write_text(json.dumps(to_json_dict(annotation)))
        annotations.append(annotation)
    return annotations


def repeat_split(drawn: Path, folder: Path, images: int) -> None:
    """Writes a split of any size that repeats the images of a smaller one.

    The pictures are hard links to those of the smaller split. The annotation is the same except for ``pair_id``: each
    repetition has identities of its own.

    Args:
        drawn: The smaller split, with ``image`` and ``annos``.
        folder: The folder that gets ``image`` and ``annos``, on the same disk; it must be empty or missing.
        images: Number of images.
    """
    pictures = sorted((drawn / 'image').iterdir())
    annotations = [json.loads((drawn / 'annos' / f'{path.stem}.json').read_text()) for path in pictures]
    numbers = [annotation['pair_id'] for annotation in annotations]
    distance = max(numbers) - min(numbers) + 1
    for name in ('image', 'annos'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(images), desc=f'making {folder.name}', disable=None):
        repetition, place = divmod(number, len(pictures))
        os.link(pictures[place], folder / 'image' / f'{number + 1:06d}.jpg')
        annotation = {**annotations[place], 'pair_id': numbers[place] + repetition * distance}
        (folder / 'annos' / f'{number + 1:06d}.json').write_text(json.dumps(annotation))


def _item(rng, number: int) -> Item:
    category = CATEGORIES[rng.integers(13)]
    corner, size = rng.integers((0, 0), (150, 200)), rng.integers((120, 150), (310, 500))
    landmarks = corner + rng.random((category.num_landmarks, 2)) * size
    visibility = rng.choice([0, 1, 2], (category.num_landmarks, 1), p=[0.1, 0.3, 0.6])
    style = int(rng.integers(0, 3))
    outline = _outline(rng, corner, size)
    scale, occlusion, zoom_in, viewpoint = rng.integers(1, 4, 4).tolist()
    return Item(
        item_id=number,
        category_id=category.id,
        style=style,
        bbox=tuple(float(value) for value in (*corner, *(corner + size))),
        landmarks=np.concatenate([landmarks.round() * (visibility > 0), visibility], axis=1).astype(np.float32),
        segmentation=[outline],
        scale=scale,
        occlusion=occlusion,
        zoom_in=zoom_in,
        viewpoint=viewpoint,
    )


def _outline(rng, corner, size) -> np.ndarray:
    """Returns the (P, 2) points of a closed wavy line that fills most of a box."""
    angles = np.linspace(0, 2 * np.pi, POLYGON_POINTS, endpoint=False)
    radius = 0.45 + 0.05 * np.sin(angles * rng.integers(3, 9))
    return (corner + size * (0.5 + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1))).round(2)


def make_results(folder: Path, annotations: list[ImageAnnotation], seed: int = 1) -> dict[str, Path]:
    """Writes the official result files for a split.

    Each item has a detection near it, mostly of its category. The other detections of an image lie anywhere.

    Args:
        folder: Where the files go.
        annotations: The annotation of each image, as :func:`make_split` returns it.
        seed: Seed of the random numbers.

    Returns:
        Kind ('bbox', 'segm', 'keypoints', 'retrieval') -> path.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (number + 1, *found)
        for number, annotation in enumerate(annotations)
        for found in found_items(rng, annotation.items, (HEIGHT, WIDTH), DETECTIONS_PER_IMAGE)
    ]
    images, labels, scores, boxes, masks, landmarks = zip(*rows, strict=True)
    detections = Detections(
        image_ids=np.array(images),
        labels=np.array(labels),
        scores=np.array(scores),
        boxes=np.array(boxes),
        masks=list(masks),
        landmarks=np.array(landmarks),
    )
    paths = {}
    for kind in ('bbox', 'segm', 'keypoints'):
        results = tqdm(detection_results(detections, kind), f'writing {kind}', len(images), disable=None)
        paths[kind] = write_results(folder / f'results.{kind}.json', results)
    paths['retrieval'] = write_results(folder / 'results.retrieval.json', _retrieved(rng, annotations, detections))
    return paths


def found_items(
    rng: np.random.Generator, items: list[Item], size: tuple[int, int], count: int
) -> Iterator[tuple[int, float, np.ndarray, dict, np.ndarray]]:
    """Makes detections of one image: one near each item, mostly of its category; the others lie anywhere.

    Args:
        rng: Random generator.
        items: The items of the image.
        size: Height and width of the image in pixels.
        count: Number of detections.

    Yields:
        Label, score, box (x, y, width, height), run-length mask, and the (39, 2) landmarks of a detection.
    """
    for number in range(count):
        if number < len(items):
            item, noise = items[number], rng.choice([3, 10, 30])
            label = item.label if rng.random() < 0.9 else int(rng.integers(13))
        else:
            item, noise = _item(rng, 1), 3
            label = item.label
        x1, y1, x2, y2 = np.array(item.bbox) + rng.normal(0, noise, 4)
        box = _float32([x1, y1, max(x2 - x1, 1), max(y2 - y1, 1)])
        shift = rng.normal(0, noise, 2)
        mask = _mask([polygon + shift for polygon in item.segmentation], size)
        points = np.zeros((MAX_LANDMARKS, 2))
        own = min(CATEGORIES[label].num_landmarks, len(item.landmarks))
        points[:own] = _float32(item.landmarks[:own, :2] + rng.normal(0, noise / 3, (own, 2)))
        score = float(_float32(rng.random() * (1 if number < len(items) else 0.5)))
        yield label, score, box, mask, points


def _mask(polygons: list[np.ndarray], size: tuple[int, int]) -> dict:
    return mask_utils.merge(mask_utils.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size))


def _float32(values) -> np.ndarray:
    """Rounds values to float32, so that they have as many digits in a file as those of a model."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def _retrieved(rng, annotations, detections: Detections):
    on_user = np.array([annotation.source == 'user' for annotation in annotations])[detections.image_ids - 1]
    shop = np.flatnonzero(~on_user)
    corners = np.concatenate([detections.boxes[:, :2], detections.boxes[:, :2] + detections.boxes[:, 2:]], axis=1)
    for row in tqdm(np.flatnonzero(on_user), 'writing retrieval', disable=None):
        hits = rng.choice(shop, 20)
        # A fifth of the hits is from images near by, which show the same garment.
        near = rng.random(20) < 0.2
        hits[near] = shop[np.searchsorted(shop, row + rng.integers(-20, 20, near.sum())) % len(shop)]
        yield retrieval_result(
            detections.image_ids[row],
            corners[row],
            detections.labels[row],
            detections.scores[row],
            detections.image_ids[hits],
            corners[hits],
        )

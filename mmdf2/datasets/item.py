"""One garment of DeepFashion2's annotation: the record, and its checks."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mmdf2.categories import ATTRIBUTES, CATEGORIES, MAX_STYLE, NUM_CATEGORIES


@dataclass
class Item:
    """One garment of an image.

    Attributes:
        item_id: N of the key ``itemN``.
        category_id: 1 to 13.
        style: 0 for no identity, else 1 to 65535.
        bbox: (x1, y1, x2, y2) in pixels.
        landmarks: (K, 3) float32 rows x, y, v with v 2 visible, 1 occluded, 0 not labelled; K is the category's count.
        segmentation: Polygons (P, 2) of float64, P >= 3, in pixels; the mask is their union. May be empty.
        scale: 1 small, 2 modest, 3 large; 0 unknown, as for the other three attributes.
        occlusion: 1 slight, 2 medium, 3 heavy.
        zoom_in: 1 none, 2 medium, 3 large.
        viewpoint: 1 no wear, 2 frontal, 3 side or back.
    """

    item_id: int
    category_id: int
    style: int
    bbox: tuple[float, float, float, float]
    landmarks: np.ndarray
    segmentation: list[np.ndarray] = field(default_factory=list)
    scale: int = 0
    occlusion: int = 0
    zoom_in: int = 0
    viewpoint: int = 0

    @property
    def label(self) -> int:
        """0-based class label."""
        return self.category_id - 1


def parse_item(item_id: int, value, size: tuple[int, int] | None, note: Callable[[str, str], None]) -> Item | None:
    """Checks the decoded JSON object of one item.

    Args:
        item_id: N of its key.
        value: The object, a dict.
        size: (width, height) of the image, or None to compare nothing with its borders.
        note: Called with (kind, detail) of each problem; see ``mmdf2.datasets.problems.TREATMENTS``.

    Returns:
        The item, or None when it has to be left out (which has been noted).
    """
    if not isinstance(value, dict):
        return note('bad item', f'an object is needed, got {short(value)}')
    category_id = value.get('category_id')
    if not is_integer(category_id, 1, NUM_CATEGORIES):
        return note('unknown category', f'category_id must be 1 to {NUM_CATEGORIES}, got {short(category_id)}')
    bbox = _parse_box(value.get('bounding_box'), size, note)
    if bbox is None:
        return None
    style = value.get('style')
    if not is_integer(style, 0, MAX_STYLE):
        note('bad style', f'style must be 0 to {MAX_STYLE}, got {short(style)}')
        style = 0
    return Item(
        item_id,
        int(category_id),
        int(style),
        bbox,
        _parse_landmarks(value.get('landmarks'), CATEGORIES[int(category_id) - 1], size, note),
        _parse_segmentation(value.get('segmentation'), size, note),
        **{name: _parse_attribute(name, value.get(name), note) for name in ATTRIBUTES},
    )


def _parse_box(value, size, note) -> tuple[float, float, float, float] | None:
    box = _numbers(value)
    if box is None or len(box) != 4 or not np.isfinite(box).all():
        return note('bad box', f'bounding_box must be four finite numbers x1, y1, x2, y2, got {short(value)}')
    x1, y1, x2, y2 = box.tolist()
    if x2 <= x1 or y2 <= y1:
        return note('bad box', f'bounding_box must have x1 < x2 and y1 < y2, got {short(value)}')
    if size is None:
        return x1, y1, x2, y2
    width, height = size
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return note('bad box', f'bounding_box {short(value)} is wholly outside the {width} x {height} image')
    if clipped != (x1, y1, x2, y2):
        note('box outside image', f'bounding_box {short(value)} reaches beyond the {width} x {height} image')
    return clipped


def _parse_landmarks(value, category, size, note) -> np.ndarray:
    count = category.num_landmarks
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 3 * count:
        found = f'{len(value)} numbers' if isinstance(value, list) else short(value)
        note(
            'bad landmarks', f"'{category.name}' has {count} landmarks, so {3 * count} numbers are needed, got {found}"
        )
        return np.zeros((count, 3), dtype=np.float32)
    landmarks = numbers.reshape(count, 3)
    visibility = landmarks[:, 2]
    unlabelled = visibility == 0
    bad = ~unlabelled & (
        ~np.isin(visibility, (1, 2)) | ~np.isfinite(landmarks).all(axis=1) | (np.abs(landmarks) > 1e6).any(axis=1)
    )
    for index in np.flatnonzero(bad):
        note(
            'bad landmark',
            f'landmark {index + 1} must be finite x, y and v of 0, 1 or 2, got {landmarks[index].tolist()}',
        )
    if size is not None:
        x, y = landmarks[:, 0], landmarks[:, 1]
        outside = ~bad & ~unlabelled & ((x < 0) | (y < 0) | (x > size[0]) | (y > size[1]))
        for index in np.flatnonzero(outside):
            note(
                'landmark outside image',
                f'landmark {index + 1} at {landmarks[index, :2].tolist()}, image {size[0]} x {size[1]}',
            )
    landmarks[bad | unlabelled] = 0
    return landmarks.astype(np.float32)


def _parse_segmentation(value, size, note) -> list[np.ndarray]:
    if not isinstance(value, list) or not value:
        note('no mask', f'segmentation must be a list of polygons, got {short(value)}')
        return []
    polygons = []
    for index, coordinates in enumerate(value):
        fault = _polygon_fault(_numbers(coordinates), size)
        if fault:
            note('bad polygon', f'polygon {index + 1} of {len(value)} {fault}')
        else:
            polygons.append(_numbers(coordinates).reshape(-1, 2))
    if not polygons:
        note('no mask', f'none of the {len(value)} polygons is usable')
    return polygons


def _polygon_fault(numbers, size) -> str | None:
    if numbers is None:
        return 'must be a flat list of numbers x1, y1, x2, y2, ...'
    if len(numbers) % 2 or len(numbers) < 6:
        return f'must be an even count of at least 6 numbers, got {len(numbers)}'
    if not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e6:
        return 'has a coordinate that is not finite or beyond a million pixels'
    x, y = numbers[0::2], numbers[1::2]
    if abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) < 1e-3:
        centred = np.stack([x - x.mean(), y - y.mean()])
        if np.linalg.matrix_rank(centred, tol=1e-3) < 2:
            return 'has no area: all its points lie on one line'
    if size is not None and (x.max() <= 0 or y.max() <= 0 or x.min() >= size[0] or y.min() >= size[1]):
        return f'lies wholly outside the {size[0]} x {size[1]} image'
    return None


def _parse_attribute(name, value, note) -> int:
    if is_integer(value, 1, 3):
        return int(value)
    note('bad attribute', f'{name} must be 1, 2 or 3, got {short(value)}')
    return 0


def is_integer(value, low: int, high: int) -> bool:
    """Whether a JSON value is a whole number from low to high (true and false are not numbers)."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1 and low <= value <= high
    )


def _numbers(value) -> np.ndarray | None:
    if not isinstance(value, list):
        return None
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.ndim == 1 else None


def short(value) -> str:
    """``repr`` cut to 80 characters, for messages."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + '...'

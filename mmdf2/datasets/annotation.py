"""DeepFashion2's annotation of one image: its JSON is read, checked and written here.

Source of the format: the dataset's own description (one JSON file per image, with its items under ``item1``,
``item2``, ...). ``TREATMENTS`` lists everything that can be wrong with a dataset's files and what is done about it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from mmdf2.categories import (
    ATTRIBUTES,
    CATEGORIES,
    MAX_PAIR_ID,
    MAX_STYLE,
    NUM_CATEGORIES,
    SOURCE_NAMES,
    Category,
    Visibility,
    label_of_name,
)
from mmdf2.codecs.polygons import LONGEST_OUTLINE, is_outline_too_long
from mmdf2.files import AnyPath, parse_json

# Kind of problem -> what happens to the data when the problem is noted instead of refused.
TREATMENTS: dict[str, str] = {
    'bad file name': 'image left out',
    'duplicate image id': 'image left out, the first of its id is kept',
    'missing annotation': 'image left out',
    'unreadable annotation': 'image left out',
    'missing image': 'image left out',
    'unreadable image': 'image left out',
    'bad source': 'image left out',
    'bad pair_id': 'image left out',
    'no items': 'image kept without items',
    'bad item name': 'item left out',
    'duplicate item id': 'item left out, the first of its number is kept',
    'repeated key': 'the last value of the key counts',
    'bad item': 'item left out',
    'unknown category': 'item left out',
    'contradicting category': 'item left out',
    'unknown category name': 'item kept, its category_id counts',
    'bad box': 'item left out',
    'box outside image': 'box clipped to the image',
    'bad landmarks': 'item kept, all its landmarks unlabelled (v = 0)',
    'bad landmark': 'that landmark unlabelled (v = 0)',
    'landmark outside image': 'kept as it is',
    'bad polygon': 'polygon left out',
    'no mask': 'item kept without mask',
    'bad style': 'item kept without identity (style 0)',
    'bad attribute': 'item kept, the attribute unknown (0)',
}

# Coordinates beyond this many pixels are refused.
_MAX_COORDINATE = 1e6
# Visibilities of a labelled landmark, as plain numbers, which NumPy compares faster.
_LABELLED = (int(Visibility.OCCLUDED), int(Visibility.VISIBLE))


@dataclass(frozen=True)
class Problem:
    """One thing found wrong.

    Attributes:
        kind: A key of ``TREATMENTS``.
        file: Name of the file.
        item: Key of the item in the file, such as 'item1'; '' when the file as a whole is meant.
        detail: What was found and what should have been there.
    """

    kind: str
    file: str
    item: str = field(default='', kw_only=True)
    detail: str

    def __post_init__(self) -> None:
        if self.kind not in TREATMENTS:
            raise ValueError(f'unknown kind of problem {self.kind!r}')

    def __str__(self) -> str:
        place = f'{self.file}: {self.item}' if self.item else self.file
        return f'{place}: {self.kind}: {self.detail}'


class AnnotationError(ValueError):
    """An annotation that cannot be used, or that has a problem which the caller does not accept; see ``problem``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return AnnotationError, (self.problem,)


# What is done with a problem that has a treatment.
Note = Callable[[Problem], None]
# The same within one item, where the file and the item's key are known: called with the kind and the detail.
_ItemNote = Callable[[str, str], None]
# (width, height) of an image in pixels.
Size = tuple[int, int]


def refuse(problem: Problem) -> None:
    """Accepts no problem; the strict choice for ``note``.

    Raises:
        AnnotationError: Always.
    """
    raise AnnotationError(problem)


@dataclass
class Item:
    """One annotated garment of an image.

    Attributes:
        item_id: N of the key ``itemN``.
        category_id: 1 to 13.
        style: 0 for no identity, else 1 to 65535.
        bbox: (x1, y1, x2, y2) in pixels.
        landmarks: (K, 3) float32 rows x, y, v with v 2 visible, 1 occluded, 0 not labelled; K is the category's number
            of landmarks.
        segmentation: Polygons (P, 2) of float64, P >= 3, in pixels; the mask is their union. The list may be empty.
        scale: 1 small, 2 modest, 3 large; 0 when unknown.
        occlusion: 1 slight, 2 medium, 3 heavy; 0 when unknown.
        zoom_in: 1 none, 2 medium, 3 large; 0 when unknown.
        viewpoint: 1 not worn, 2 frontal, 3 from the side or from behind; 0 when unknown.
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
        """Class label, 0 to 12."""
        return self.category_id - 1


@dataclass
class ImageAnnotation:
    """The annotation of one image.

    Attributes:
        source: 'user' or 'shop'.
        pair_id: The number that all items of the image share; equal numbers on a user and on a shop image make a pair.
        items: The image's items, by rising ``item_id``.
    """

    source: str
    pair_id: int
    items: list[Item]


def read_annotation(path: AnyPath, size: Size | None = None, note: Note = refuse) -> ImageAnnotation:
    """Reads one annotation file and checks it with ``parse_annotation``.

    Args:
        path: The JSON file.
        size: (width, height) of its image, when known.
        note: What is done with each problem that has a treatment; by default it is refused.

    Raises:
        AnnotationError: The file is missing, not UTF-8, truncated or not a JSON object, or ``parse_annotation``
            refuses its content.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if not content.strip(b'\0 \t\r\n'):
            raise ValueError(f'the file of {len(content)} bytes is empty; unpack or copy it again')
        data = parse_json(content, object_pairs_hook=_Object)
    except FileNotFoundError:
        raise AnnotationError(Problem('missing annotation', path.name, f'no file {path}')) from None
    except (OSError, ValueError) as error:
        raise AnnotationError(Problem('unreadable annotation', path.name, f'{error}')) from error
    return parse_annotation(data, path.name, size, note)


def parse_annotation(data: Any, name: str, size: Size | None = None, note: Note = refuse) -> ImageAnnotation:
    """Checks the decoded JSON of one image and turns it into arrays.

    Args:
        data: The JSON object.
        name: File name for messages.
        size: (width, height) of the image; without it nothing is compared with the image's borders.
        note: Called with each problem that has a treatment other than leaving the image out (see ``TREATMENTS``);
            ``problems.append`` collects them.

    Raises:
        AnnotationError: The data are not an object, or their source or pair_id is not valid; with the default
            ``note``, also any other problem.
    """
    if not isinstance(data, dict):
        raise AnnotationError(Problem('unreadable annotation', name, f'an object is needed, got {_short(data)}'))
    source, pair_id = data.get('source'), data.get('pair_id')
    if source not in SOURCE_NAMES:
        detail = f"source must be 'user' or 'shop', got {_short(source)}"
        raise AnnotationError(Problem('bad source', name, detail))
    if not _is_integer(pair_id, 0, MAX_PAIR_ID):
        raise AnnotationError(Problem('bad pair_id', name, f'an integer >= 0 is needed, got {_short(pair_id)}'))
    items = _parse_items(data, name, size, note)
    if not items:
        note(Problem('no items', name, 'no usable item (item1, item2, ...)'))
    return ImageAnnotation(source=source, pair_id=int(pair_id), items=items)


def to_json_dict(annotation: ImageAnnotation) -> dict[str, Any]:
    """Turns an annotation into the dataset's own JSON object; coordinates are rounded to a hundredth of a pixel."""
    result: dict[str, Any] = {'source': annotation.source, 'pair_id': annotation.pair_id}
    for item in annotation.items:
        result[f'item{item.item_id}'] = {
            'segmentation': [_rounded(polygon) for polygon in item.segmentation],
            'scale': item.scale,
            'viewpoint': item.viewpoint,
            'zoom_in': item.zoom_in,
            'landmarks': _rounded(item.landmarks),
            'style': item.style,
            'bounding_box': _rounded(item.bbox),
            'category_id': item.category_id,
            'occlusion': item.occlusion,
            'category_name': CATEGORIES[item.label].name,
        }
    return result


class _Object(dict[str, Any]):
    """A JSON object that also keeps its repeated keys, of which a dict keeps only the last."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _parse_items(data: dict[str, Any], name: str, size: Size | None, note: Note) -> list[Item]:
    items: dict[int, Item | None] = {}
    for key, value in data.pairs if isinstance(data, _Object) else data.items():
        if not key.lower().startswith('item'):
            continue
        match = re.fullmatch(r'item(\d{1,9})', key, flags=re.ASCII)
        if not match:
            note(Problem('bad item name', name, 'items are named item1, item2, ...', item=_short(key)))
            continue
        item_id = int(match[1])
        if item_id in items:
            note(Problem('duplicate item id', name, f'item {item_id} is there more than once', item=key))
            continue
        if isinstance(value, _Object) and len(value) != len(value.pairs):
            note(Problem('repeated key', name, f'keys {[pair[0] for pair in value.pairs]}', item=key))

        def note_in_item(kind: str, detail: str, key: str = key) -> None:
            note(Problem(kind, name, detail, item=key))

        items[item_id] = _parse_item(item_id, value, size, note_in_item)
    return [item for _, item in sorted(items.items()) if item is not None]


def _parse_item(item_id: int, value: Any, size: Size | None, note: _ItemNote) -> Item | None:
    """Checks the decoded JSON of one item; None when it has to be left out, which has been noted then."""
    if not isinstance(value, dict):
        note('bad item', f'an object is needed, got {_short(value)}')
        return None
    category_id = value.get('category_id')
    if not _is_integer(category_id, 1, NUM_CATEGORIES):
        note('unknown category', f'category_id must be 1 to {NUM_CATEGORIES}, got {_short(category_id)}')
        return None
    if not _is_named_rightly(value.get('category_name'), CATEGORIES[int(category_id) - 1], note):
        return None
    bbox = _parse_box(value.get('bounding_box'), size, note)
    if bbox is None:
        return None
    style = value.get('style')
    if not _is_integer(style, 0, MAX_STYLE):
        note('bad style', f'style must be 0 to {MAX_STYLE}, got {_short(style)}')
        style = 0
    return Item(
        item_id=item_id,
        category_id=int(category_id),
        style=int(style),
        bbox=bbox,
        landmarks=_parse_landmarks(value.get('landmarks'), CATEGORIES[int(category_id) - 1], size, note),
        segmentation=_parse_segmentation(value.get('segmentation'), size, note),
        **{name: _parse_attribute(name, value.get(name), note) for name in ATTRIBUTES},
    )


def _is_named_rightly(name: Any, category: Category, note: _ItemNote) -> bool:
    """Whether the item's own name of its category, if there is one, is not that of another category."""
    if name is None:
        return True
    label = label_of_name(name) if isinstance(name, str) else None
    if label is None:
        note('unknown category name', f"category_id {category.id} is '{category.name}', got {_short(name)}")
    elif label != category.label:
        note(
            'contradicting category', f"category_id {category.id} is '{category.name}', category_name is {_short(name)}"
        )
        return False
    return True


def _parse_box(value: Any, size: Size | None, note: _ItemNote) -> tuple[float, float, float, float] | None:
    box = _numbers(value)
    if box is None or len(box) != 4 or not np.isfinite(box).all():
        note('bad box', f'bounding_box must be four finite numbers x1, y1, x2, y2, got {_short(value)}')
        return None
    x1, y1, x2, y2 = box.tolist()
    if x2 <= x1 or y2 <= y1:
        note('bad box', f'bounding_box must have x1 < x2 and y1 < y2, got {_short(value)}')
        return None
    if size is None:
        return x1, y1, x2, y2
    width, height = size
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        note('bad box', f'bounding_box {_short(value)} is wholly outside the {width} x {height} image')
        return None
    if clipped != (x1, y1, x2, y2):
        note('box outside image', f'bounding_box {_short(value)} reaches beyond the {width} x {height} image')
    return clipped


def _parse_landmarks(value: Any, category: Category, size: Size | None, note: _ItemNote) -> np.ndarray:
    count = category.num_landmarks
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 3 * count:
        found = f'{len(value)} numbers' if isinstance(value, list) else _short(value)
        note(
            'bad landmarks', f"'{category.name}' has {count} landmarks, so {3 * count} numbers are needed, got {found}"
        )
        return np.zeros((count, 3), dtype=np.float32)
    landmarks = numbers.reshape(count, 3)
    visibility = landmarks[:, 2]
    unlabelled = visibility == int(Visibility.UNLABELLED)
    bad = ~unlabelled & (
        ~np.isin(visibility, _LABELLED)
        | ~np.isfinite(landmarks).all(axis=1)
        | (np.abs(landmarks) > _MAX_COORDINATE).any(axis=1)
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


def _parse_segmentation(value: Any, size: Size | None, note: _ItemNote) -> list[np.ndarray]:
    if not isinstance(value, list) or not value:
        note('no mask', f'segmentation must be a list of polygons, got {_short(value)}')
        return []
    polygons = []
    for index, coordinates in enumerate(value):
        numbers = _numbers(coordinates)
        fault = _polygon_fault(numbers, size)
        if numbers is None or fault:
            note('bad polygon', f'polygon {index + 1} of {len(value)} {fault}')
        else:
            polygons.append(numbers.reshape(-1, 2))
    if not polygons:
        note('no mask', f'none of the {len(value)} polygons is usable')
    return polygons


def _polygon_fault(numbers: np.ndarray | None, size: Size | None) -> str | None:
    if numbers is None:
        return 'must be a flat list of numbers x1, y1, x2, y2, ...'
    if len(numbers) % 2 or len(numbers) < 6:
        return f'must be an even count of at least 6 numbers, got {len(numbers)}'
    if not np.isfinite(numbers).all() or np.abs(numbers).max() > _MAX_COORDINATE:
        return 'has a coordinate that is not finite or beyond a million pixels'
    if is_outline_too_long(numbers.reshape(-1, 2)):
        return f'has an outline longer than {LONGEST_OUTLINE} pixels'
    x, y = numbers[0::2], numbers[1::2]
    if abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) < 1e-3:
        # The two halves of a bow tie cancel in the signed area: only points on one line enclose nothing.
        centred = np.stack([x - x.mean(), y - y.mean()])
        if np.linalg.matrix_rank(centred, tol=1e-3) < 2:
            return 'has no area: all its points lie on one line'
    if size is not None and (x.max() <= 0 or y.max() <= 0 or x.min() >= size[0] or y.min() >= size[1]):
        return f'lies wholly outside the {size[0]} x {size[1]} image'
    return None


def _parse_attribute(name: str, value: Any, note: _ItemNote) -> int:
    if _is_integer(value, 1, 3):
        return int(value)
    note('bad attribute', f'{name} must be 1, 2 or 3, got {_short(value)}')
    return 0


def _is_integer(value: Any, low: int, high: int) -> TypeGuard[float]:
    # JSON's true and false are no numbers; 3.0 is the whole number 3.
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1 and low <= value <= high
    )


def _numbers(value: Any) -> np.ndarray | None:
    """A JSON list of numbers as (n,) float64, None for anything else."""
    if not isinstance(value, list):
        return None
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.ndim == 1 else None


def _rounded(values: ArrayLike) -> list[float]:
    flat = np.round(np.asarray(values, dtype=np.float64).reshape(-1), 2).tolist()
    return [int(value) if value == int(value) else value for value in flat]


def _short(value: Any) -> str:
    """``repr`` of a value, cut to 80 characters for messages."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + '...'

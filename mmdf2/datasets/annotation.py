"""DeepFashion2's annotation of one image: its JSON read, checked and written.

Source of the format: the dataset's own description (one JSON per image, items under ``item1``, ``item2``, ...).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdf2.categories import CATEGORIES, MAX_PAIR_ID, SOURCE_NAMES
from mmdf2.datasets.item import Item, is_integer, parse_item, short
from mmdf2.datasets.problems import AnnotationError, Problem, refuse

__all__ = ['ImageAnnotation', 'Item', 'parse_annotation', 'read_annotation', 'to_json_dict']

Note = Callable[[Problem], None]


@dataclass
class ImageAnnotation:
    """All of one image: its source ('user' or 'shop'), the pair_id that its items share, and the items."""

    source: str
    pair_id: int
    items: list[Item]


def read_annotation(path, size: tuple[int, int] | None = None, note: Note = refuse) -> ImageAnnotation:
    """Reads one annotation file; see ``parse_annotation``.

    Args:
        path: The JSON file.
        size: (width, height) of its image, when known.
        note: What to do with each problem that has a treatment; by default it is refused.

    Raises:
        AnnotationError: The file is missing, not UTF-8, truncated or not a JSON object, or see ``parse_annotation``.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_bytes(), object_pairs_hook=_Object)
    except FileNotFoundError:
        raise AnnotationError(Problem('missing annotation', path.name, '', f'no file {path}')) from None
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(Problem('unreadable annotation', path.name, '', f'{error}')) from error
    return parse_annotation(data, path.name, size, note)


def parse_annotation(data, name: str, size: tuple[int, int] | None = None, note: Note = refuse) -> ImageAnnotation:
    """Checks the decoded JSON of one image and turns it into arrays.

    Args:
        data: The JSON object.
        name: File name for messages.
        size: (width, height) of the image; without it nothing is compared with the image's borders.
        note: Called with each problem that has a treatment short of leaving the image out
            (``mmdf2.datasets.problems.TREATMENTS``); ``problems.append`` collects them.

    Raises:
        AnnotationError: Not an object, or no valid source or pair_id; or, by the default ``note``, any problem.
    """
    if not isinstance(data, dict):
        raise AnnotationError(Problem('unreadable annotation', name, '', f'an object is needed, got {short(data)}'))
    source, pair_id = data.get('source'), data.get('pair_id')
    if source not in SOURCE_NAMES:
        raise AnnotationError(Problem('bad source', name, '', f"source must be 'user' or 'shop', got {short(source)}"))
    if not is_integer(pair_id, 0, MAX_PAIR_ID):
        raise AnnotationError(Problem('bad pair_id', name, '', f'an integer >= 0 is needed, got {short(pair_id)}'))
    items = _parse_items(data, name, size, note)
    if not items:
        note(Problem('no items', name, '', 'no usable item (item1, item2, ...)'))
    return ImageAnnotation(source, int(pair_id), items)


def to_json_dict(annotation: ImageAnnotation) -> dict:
    """The dataset's own JSON object of an annotation; coordinates are rounded to a hundredth of a pixel."""
    result = {'source': annotation.source, 'pair_id': annotation.pair_id}
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


class _Object(dict):
    """A JSON object that also keeps its repeated keys, which a dict drops."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = pairs


def _parse_items(data: dict, name: str, size, note: Note) -> list[Item]:
    items = {}
    for key, value in data.pairs if isinstance(data, _Object) else data.items():
        if not key.lower().startswith('item'):
            continue
        match = re.fullmatch(r'item(\d{1,9})', key, flags=re.ASCII)
        if not match:
            note(Problem('bad item name', name, short(key), 'items are named item1, item2, ...'))
            continue
        item_id = int(match[1])
        if item_id in items:
            note(Problem('duplicate item id', name, key, f'item {item_id} is there more than once'))
            continue
        if isinstance(value, _Object) and len(value) != len(value.pairs):
            note(Problem('repeated key', name, key, f'keys {[pair[0] for pair in value.pairs]}'))
        items[item_id] = parse_item(
            item_id, value, size, lambda kind, detail, key=key: note(Problem(kind, name, key, detail))
        )
    return [items[item_id] for item_id in sorted(items) if items[item_id] is not None]


def _rounded(values) -> list:
    flat = np.round(np.asarray(values, dtype=np.float64).reshape(-1), 2).tolist()
    return [int(value) if value == int(value) else value for value in flat]

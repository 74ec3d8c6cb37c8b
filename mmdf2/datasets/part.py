"""One part of a store in the making: a few hundred images read, checked, packed and put on disk whole."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmdf2 import __version__
from mmdf2.datasets.annotation import read_annotation
from mmdf2.datasets.columns import pack
from mmdf2.datasets.listing import Entry, signature
from mmdf2.datasets.manifest import VERSION
from mmdf2.datasets.problems import AnnotationError, Problem

ORIENTATION_TAG = 0x0112
SWAPPED_ORIENTATIONS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Part:
    """What one part is made from and where it goes (``<path>.npz`` and ``<path>.json``)."""

    path: Path
    entries: list[Entry]


def image_size(path) -> tuple[int, int]:
    """(width, height) of an image file from its header, as decoders show it: with its orientation tag applied.

    Raises:
        AnnotationError: Missing, or no image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = 'exif' in image.info and image.getexif().get(ORIENTATION_TAG) in SWAPPED_ORIENTATIONS
    except FileNotFoundError:
        raise AnnotationError(Problem('missing image', path.name, '', f'no file {path}')) from None
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        detail = str(error).replace(str(path), path.name)
        raise AnnotationError(Problem('unreadable image', path.name, '', detail)) from error
    if width < 1 or height < 1:
        raise AnnotationError(Problem('unreadable image', path.name, '', f'its size is {width} x {height}'))
    return (height, width) if turned else (width, height)


def make_part(part: Part) -> int:
    """Makes the part unless it is already there, made by this version from the same files.

    Returns:
        Number of images looked at.
    """
    state = f'{VERSION} {__version__} {signature(part.entries)}'
    if _state_on_disk(part) == state:
        return len(part.entries)
    problems: list[Problem] = []
    images = []
    for entry in part.entries:
        try:
            size = image_size(entry.image)
            images.append(
                (entry.image_id, entry.image.name, size, read_annotation(entry.annotation, size, problems.append))
            )
        except AnnotationError as error:
            problems.append(error.problem)
    beside = part.path.with_suffix('.npz.tmp')
    with open(beside, 'wb') as file:
        np.savez(file, **pack(images))
    os.replace(beside, part.path.with_suffix('.npz'))
    # The JSON comes last: with it the part counts as made.
    beside = part.path.with_suffix('.json.tmp')
    beside.write_text(json.dumps({'state': state, 'problems': [asdict(problem) for problem in problems]}))
    os.replace(beside, part.path.with_suffix('.json'))
    return len(part.entries)


def part_problems(part: Part) -> list[Problem]:
    """The problems found while the part was made."""
    return [Problem(**problem) for problem in json.loads(part.path.with_suffix('.json').read_text())['problems']]


def _state_on_disk(part: Part) -> str | None:
    try:
        with np.load(part.path.with_suffix('.npz'), allow_pickle=False) as arrays:
            arrays['point_counts']
        return json.loads(part.path.with_suffix('.json').read_text())['state']
    except (OSError, ValueError, KeyError, TypeError):
        return None

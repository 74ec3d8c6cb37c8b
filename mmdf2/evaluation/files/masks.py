"""Run-length masks: pixels, polygons and run lengths made into COCO's compressed form, and the check of that form.

pycocotools trusts a compressed mask: when the runs do not fill the image, it reads beyond its memory or never ends.
"""

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.codecs.polygons import LONGEST_OUTLINE, polygons_to_rle
from mmdf2.evaluation.files.json_list import JsonEntry, all_finite

# Masks that are checked together.
_MASKS_AT_ONCE = 2048
# No image has coordinates beyond this, in pixels, and drawing such polygons would take all memory.
_FARTHEST = 1e5
# One character holds five bits of a run length; seven hold every length of an image below 2**31 pixels.
_LONGEST = 7
# A character code from here on means that the next character belongs to the same number.
_CONTINUED = 48 + 32
# The last five bits of a number hold its sign.
_SIGNED = np.arange(32, dtype=np.int64)
_SIGNED[16:] -= 32
_EXPECTED = (
    'a run-length mask {"size": [height, width], "counts": "..."}, or polygons [[x1, y1, x2, y2, x3, y3, ...], ...]'
)


def encode_masks(masks: np.ndarray) -> list[dict]:
    """Compresses masks of one size.

    Args:
        masks: (n, height, width), 0 outside. Boolean masks are not copied.
    """
    if not len(masks):
        return []
    masks = np.ascontiguousarray(masks, dtype=bool).view(np.uint8)
    columns = np.empty((len(masks), masks.shape[2], masks.shape[1]), dtype=np.uint8)
    # pycocotools reads column by column. OpenCV turns rows into columns several times as fast as NumPy does.
    for mask, turned in zip(masks, columns, strict=True):
        cv2.transpose(mask, turned)
    return mask_utils.encode(columns.transpose(2, 1, 0))


def mask_of(entry: JsonEntry, size: tuple[int, int]) -> dict:
    """The ``segmentation`` of an entry as a compressed mask of the image's size (height, width)."""
    try:
        return to_compressed(entry.value.get('segmentation'), size)
    except ValueError as error:
        raise entry.wrong('segmentation', f'{error}') from None


def checked_masks(masks: Iterable[tuple[JsonEntry, dict]]) -> list[dict]:
    """Collects the masks of entries; EvaluationError that names the first entry whose runs do not fill its image."""
    checked: list[dict] = []
    waiting: list[tuple[JsonEntry, dict]] = []

    def check() -> None:
        pixels = np.array([mask['size'][0] * mask['size'][1] for _, mask in waiting])
        bad = np.flatnonzero(unfit([mask['counts'] for _, mask in waiting], pixels))
        if len(bad):
            entry, mask = waiting[bad[0]]
            raise entry.wrong('segmentation', f'{_EXPECTED}, whose runs add up to {" x ".join(map(str, mask["size"]))}')
        checked.extend(mask for _, mask in waiting)
        waiting.clear()

    for pair in masks:
        waiting.append(pair)
        if len(waiting) == _MASKS_AT_ONCE:
            check()
    check()
    return checked


def to_compressed(segmentation: Any, size: tuple[int, int]) -> dict:
    """Converts a mask of any of COCO's forms to the compressed form.

    A mask that is compressed already is not checked here; ``unfit`` checks many at once.

    Args:
        segmentation: Compressed or plain run lengths of the image's size, or polygons.
        size: (height, width) of the image.

    Raises:
        ValueError: The mask has none of these forms, or an outline is too long to be filled; the message says what was
            expected.
    """
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, size)
    polygons = segmentation if isinstance(segmentation, list) else None
    if not polygons or not all(map(_is_polygon, polygons)):
        raise ValueError(_EXPECTED)
    outlines = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons]
    try:
        return polygons_to_rle(outlines, *size)
    except ValueError:
        raise ValueError(f'polygons whose outlines have {LONGEST_OUTLINE} pixels at most') from None


def unfit(counts: list[bytes], pixels: np.ndarray | list[int]) -> np.ndarray:
    """Finds the compressed masks that do not fill their images exactly.

    Args:
        counts: n compressed run lengths.
        pixels: (n,) height times width of each image.

    Returns:
        (n,) bool, true for a mask with characters that are not of the format, with a run below 0, or with runs that do
        not add up to the pixels.
    """
    broken = np.array([not text or not 48 <= text[-1] < _CONTINUED for text in counts], dtype=bool)
    # A broken mask would run into the next one, so a 0 takes its place.
    counts = [b'0' if bad else text for text, bad in zip(counts, broken.tolist(), strict=True)]
    step = 256  # The numbers of so many masks stay in the processor's cache.
    totals = [_totals(counts[row : row + step]) for row in range(0, len(counts), step)]
    return broken | (np.concatenate([*totals, np.zeros(0, np.int64)]) != pixels)


def _totals(counts: list[bytes]) -> np.ndarray:
    """(n,) sum of the runs of each mask, -1 where a character or a run is impossible."""
    firsts = _firsts(counts)
    odd = np.add.reduceat(_bits(counts) < 32, firsts, dtype=np.int64) % 2 > 0
    # With an even number of runs in every mask, the two chains below are the columns of one array.
    counts = [text + b'0' if lone else text for text, lone in zip(counts, odd.tolist(), strict=True)]
    firsts, bits = _firsts(counts), _bits(counts)
    bad = np.maximum.reduceat(bits, firsts) > 63
    ends = np.flatnonzero(bits < 32)
    sizes = np.diff(ends, prepend=-1)
    values = _values(bits, ends, sizes)
    rows = np.searchsorted(ends, firsts)
    bad |= np.maximum.reduceat(sizes, rows) > _LONGEST
    # From the fourth run of a mask on, a run is given as its difference from the one before the last, so the runs are
    # the cumulative sums of two chains.
    begins = values[rows]
    values[rows] = 0
    sums = values.reshape(-1, 2).cumsum(axis=0)
    pairs = rows // 2
    before = sums[pairs] - values.reshape(-1, 2)[pairs]
    bad |= (np.minimum.reduceat(sums, pairs) < before).any(axis=1) | (begins < 0)
    lengths = np.diff(pairs, append=len(sums))
    totals = begins + (np.add.reduceat(sums, pairs) - before * lengths[:, None]).sum(axis=1)
    last = sums[pairs + lengths - 1, 1] - before[:, 1]
    return np.where(bad, -1, totals - np.where(odd, last, 0))


def _firsts(counts: list[bytes]) -> np.ndarray:
    lengths = np.fromiter(map(len, counts), dtype=np.int64, count=len(counts))
    return np.cumsum(lengths) - lengths


def _bits(counts: list[bytes]) -> np.ndarray:
    return np.frombuffer(b''.join(counts), dtype=np.uint8) - np.uint8(48)


def _values(bits: np.ndarray, ends: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(r,) signed numbers from the characters that end at ``ends``: five bits each, the lowest first."""
    values = _SIGNED[bits[ends]]
    for place in range(1, _LONGEST):
        rows = np.flatnonzero(sizes > place)
        if not len(rows):
            break
        values[rows] = (values[rows] << 5) | (bits[ends[rows] - place] & 31)
    return values


def _from_runs(segmentation: dict, size: tuple[int, int]) -> dict:
    counts: Any = segmentation.get('counts')
    if segmentation.get('size') != list(size):
        raise ValueError(f"a mask of the image's size {list(size)} (height, width)")
    if isinstance(counts, str):
        try:
            return {'size': list(size), 'counts': counts.encode('ascii')}
        except UnicodeEncodeError:
            raise ValueError(_EXPECTED) from None
    whole = isinstance(counts, list) and counts and all(type(run) is int and run >= 0 for run in counts)
    if not whole or sum(counts) != size[0] * size[1]:
        raise ValueError(f'{_EXPECTED}, whose runs add up to {size[0]} x {size[1]} pixels')
    return mask_utils.frPyObjects({'size': list(size), 'counts': counts}, *size)


def _is_polygon(polygon: Any) -> bool:
    fits = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and all_finite(polygon)
    return fits and max(map(abs, polygon)) <= _FARTHEST

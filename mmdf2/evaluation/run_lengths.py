"""Run-length masks from files: polygons and run lengths made into COCO's compressed form, and the check of that form.

pycocotools trusts a compressed mask: one whose runs do not fill its image makes it read beyond its memory, or never
end.
"""

import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.evaluation.entries import all_finite

# Coordinates of polygons beyond this, in pixels, are of no image, and drawing them would take all memory.
_FARTHEST = 1e5
# A character holds five bits of a run length; seven hold every length of an image below 2**31 pixels.
_LONGEST = 7
# A character from here on is followed by another of the same number.
_CONTINUED = 48 + 32
# The last five bits of a number hold its sign.
_SIGNED = np.arange(32, dtype=np.int64)
_SIGNED[16:] -= 32
EXPECTED = (
    'a run-length mask {"size": [height, width], "counts": "..."}, or polygons [[x1, y1, x2, y2, x3, y3, ...], ...]'
)


def to_compressed(segmentation, size: tuple[int, int]) -> dict:
    """COCO's compressed form of a mask in any of COCO's forms.

    A compressed mask is taken as it is; ``unfit`` checks many at once.

    Args:
        segmentation: Compressed or plain run lengths of the image's size, or polygons.
        size: (height, width) of the image.

    Raises:
        ValueError: None of these forms; the message says what was expected.
    """
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, size)
    polygons = segmentation if isinstance(segmentation, list) else None
    if not polygons or not all(map(_is_polygon, polygons)):
        raise ValueError(EXPECTED)
    return mask_utils.merge(mask_utils.frPyObjects([list(map(float, polygon)) for polygon in polygons], *size))


def unfit(counts: list[bytes], pixels) -> np.ndarray:
    """Which compressed masks do not fill their images exactly.

    Args:
        counts: n compressed run lengths.
        pixels: (n,) height times width of each image.

    Returns:
        (n,) bool: characters that are none of the format, a run below 0, or runs that do not add up to the pixels.
    """
    broken = np.array([not text or not 48 <= text[-1] < _CONTINUED for text in counts], dtype=bool)
    # A broken one would run into the next; a 0 stands in for it.
    counts = [b'0' if bad else text for text, bad in zip(counts, broken.tolist(), strict=True)]
    step = 256  # masks whose numbers stay in the processor's cache
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
    # From a mask's fourth on, a run is given as its difference from the one before the last: sums in two chains.
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


def _values(bits, ends, sizes) -> np.ndarray:
    """(r,) signed numbers from the characters that end at ``ends``: five bits each, the lowest first."""
    values = _SIGNED[bits[ends]]
    for place in range(1, _LONGEST):
        rows = np.flatnonzero(sizes > place)
        if not len(rows):
            break
        values[rows] = (values[rows] << 5) | (bits[ends[rows] - place] & 31)
    return values


def _from_runs(segmentation: dict, size: tuple[int, int]) -> dict:
    counts = segmentation.get('counts')
    if segmentation.get('size') != list(size):
        raise ValueError(f"a mask of the image's size {list(size)} (height, width)")
    if isinstance(counts, str):
        try:
            return {'size': list(size), 'counts': counts.encode('ascii')}
        except UnicodeEncodeError:
            raise ValueError(EXPECTED) from None
    whole = isinstance(counts, list) and counts and all(type(run) is int and run >= 0 for run in counts)
    if not whole or sum(counts) != size[0] * size[1]:
        raise ValueError(f'{EXPECTED}, whose runs add up to {size[0]} x {size[1]} pixels')
    return mask_utils.frPyObjects({'size': list(size), 'counts': counts}, *size)


def _is_polygon(polygon) -> bool:
    fits = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and all_finite(polygon)
    return fits and max(map(abs, polygon)) <= _FARTHEST

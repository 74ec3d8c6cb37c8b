"""The facts of DeepFashion2: the one table of its 13 categories and their 294 landmarks, and the codes of its annotation.

Landmark numbers are 0-based within the category. Everywhere in mmdf2 a *label* is the 0-based row of this table
(``category_id - 1``) and landmark arrays are category-local, padded to ``MAX_LANDMARKS`` columns.

Sources: counts, order, skeleton and sigmas are those of the dataset's official COCO-style evaluation. The published
figure of landmark definitions swaps numbers 2 and 4 of 'short sleeve outwear'; the pairs here follow the sigmas, which
are symmetric only under them, and the order that 'long sleeve outwear' uses. The published sigmas of one pair differ:
landmarks 14 and 28 of 'long sleeve dress' (15 and 29 in the figure, which counts from 1) have 0.0455 and 0.0486; they
are kept, so that figures agree with the official evaluation. Contours run along the lines of the published figure; the
straps of slings are left out of them, being lines without width from the neckline to a tip (7 and the last number).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, overload

import numpy as np

# (red, green, blue), 0 to 255 each.
RGB = tuple[int, int, int]


class Source(IntEnum):
    """Who took an image: a consumer ('user' in the annotation) or a shop. The codes are those of stores and batches."""

    USER = 0
    SHOP = 1

    @property
    def annotation_name(self) -> str:
        """The word of the annotation files, 'user' or 'shop'."""
        return self.name.lower()


SOURCE_NAMES = tuple(source.annotation_name for source in Source)


def source_code(name: object) -> int:
    """The code of a source's name in the annotation; -1, for an unknown source, when the value is no such name."""
    return SOURCE_NAMES.index(name) if name in SOURCE_NAMES else -1


class Visibility(IntEnum):
    """The third value of an annotated landmark."""

    UNLABELLED = 0
    OCCLUDED = 1
    VISIBLE = 2


# The four attributes of an item, each with a value from 1 to 3, in the order of attribute arrays (m, 4).
ATTRIBUTES = ('scale', 'occlusion', 'zoom_in', 'viewpoint')

MAX_STYLE = 2**16 - 1
MAX_PAIR_ID = 2**31 - 1


@overload
def identity_code(pair_id: int, style: int) -> int: ...


@overload
def identity_code(pair_id: np.ndarray, style: np.ndarray) -> np.ndarray: ...


def identity_code(pair_id: Any, style: Any) -> Any:
    """Computes the code of an item's identity: ``pair_id * 65536 + style``, or -1 (no identity) when style is 0.

    Args:
        pair_id: 0 to ``MAX_PAIR_ID``; an int or an integer array.
        style: 0 to ``MAX_STYLE``; an int or an integer array.

    Returns:
        An int, or an int64 array when either argument is an array.
    """
    pair_id, style = np.asarray(pair_id, dtype=np.int64), np.asarray(style, dtype=np.int64)
    code = np.where(style > 0, pair_id * (MAX_STYLE + 1) + style, -1)
    return int(code) if code.ndim == 0 else code


@dataclass(frozen=True)
class Category:
    """One clothing category.

    Attributes:
        id: The dataset's ``category_id``, 1 to 13.
        name: The dataset's name.
        offset: First column of the category in the dense 294-landmark vector of the exchange format.
        flip_pairs: Pairs of landmarks that a horizontal flip exchanges; a landmark in no pair maps to itself.
        skeleton: Pairs of landmarks that the garment's outline joins.
        contour: Closed runs of landmarks around the cloth as it is worn and seen from the front. In each run the last
            landmark joins the first. There is one run, or for outwear, which opens in front, one for each side.
        back_contour: Closed runs of landmarks, as in ``contour``, around the cloth as it is seen from behind or lies
            unworn: along the back of the neck.
        oks_sigmas: Per landmark, the sigma of object keypoint similarity (variance ``(2 sigma)^2`` over box area).
    """

    id: int
    name: str
    offset: int
    flip_pairs: tuple[tuple[int, int], ...]
    skeleton: tuple[tuple[int, int], ...]
    contour: tuple[tuple[int, ...], ...]
    back_contour: tuple[tuple[int, ...], ...]
    oks_sigmas: tuple[float, ...]

    @property
    def label(self) -> int:
        """0-based class label, ``id - 1``."""
        return self.id - 1

    @property
    def num_landmarks(self) -> int:
        """Landmarks of this category, 8 to 39."""
        return len(self.oks_sigmas)

    @property
    def dense_slice(self) -> slice:
        """The category's columns in the dense 294-landmark vector."""
        return slice(self.offset, self.offset + self.num_landmarks)


# fmt: off
CATEGORIES: tuple[Category, ...] = (
    Category(1, 'short sleeve top', 0,
        flip_pairs=((1, 5), (2, 4), (6, 24), (7, 23), (8, 22), (9, 21), (10, 20), (11, 19), (12, 18), (13, 17), (14, 16)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (2, 3), (3, 4), (4, 5), (5, 24), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 16), (16, 17), (17, 18), (18, 19), (19, 20), (20, 21), (21, 22), (22, 23), (23, 24)),
        contour=((1, 2, 3, 4, 5, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        back_contour=((1, 0, 5, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        oks_sigmas=(0.012, 0.0158, 0.0169, 0.0165, 0.0169, 0.0158, 0.0298, 0.0329, 0.0321, 0.0323, 0.034, 0.0388, 0.0452, 0.0574, 0.0492, 0.0352, 0.0492, 0.0574, 0.0452, 0.0388, 0.034, 0.0323, 0.0321, 0.0329, 0.0298)),
    Category(2, 'long sleeve top', 25,
        flip_pairs=((1, 5), (2, 4), (6, 32), (7, 31), (8, 30), (9, 29), (10, 28), (11, 27), (12, 26), (13, 25), (14, 24), (15, 23), (16, 22), (17, 21), (18, 20)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (2, 3), (3, 4), (4, 5), (5, 32), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 16), (16, 17), (17, 18), (18, 19), (19, 20), (20, 21), (21, 22), (22, 23), (23, 24), (24, 25), (25, 26), (26, 27), (27, 28), (28, 29), (29, 30), (30, 31), (31, 32)),
        contour=((1, 2, 3, 4, 5, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        back_contour=((1, 0, 5, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        oks_sigmas=(0.0194, 0.017, 0.0185, 0.0193, 0.0185, 0.017, 0.0286, 0.0471, 0.0547, 0.0526, 0.043, 0.0392, 0.0513, 0.0566, 0.0509, 0.0564, 0.0542, 0.0604, 0.0599, 0.052, 0.0599, 0.0604, 0.0542, 0.0564, 0.0509, 0.0566, 0.0513, 0.0392, 0.043, 0.0526, 0.0547, 0.0471, 0.0286)),
    Category(3, 'short sleeve outwear', 58,
        flip_pairs=((1, 5), (2, 4), (3, 25), (6, 24), (7, 23), (8, 22), (9, 21), (10, 20), (11, 19), (12, 18), (13, 17), (14, 16), (15, 28), (26, 29), (27, 30)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (2, 3), (3, 29), (4, 5), (4, 25), (5, 24), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 30), (16, 17), (16, 28), (17, 18), (18, 19), (19, 20), (20, 21), (21, 22), (22, 23), (23, 24), (25, 26), (26, 27), (27, 28), (29, 30)),
        contour=((1, 2, 3, 29, 30, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6), (5, 4, 25, 26, 27, 28, 16, 17, 18, 19, 20, 21, 22, 23, 24),),
        back_contour=((1, 0, 5, 24, 23, 22, 21, 20, 19, 18, 17, 16, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        oks_sigmas=(0.0074, 0.0085, 0.0165, 0.0248, 0.0165, 0.0085, 0.0156, 0.0231, 0.0296, 0.0137, 0.0195, 0.025, 0.0347, 0.038, 0.0257, 0.037, 0.0257, 0.038, 0.0347, 0.025, 0.0195, 0.0137, 0.0296, 0.0231, 0.0156, 0.0248, 0.0469, 0.0632, 0.037, 0.0469, 0.0632)),
    Category(4, 'long sleeve outwear', 89,
        flip_pairs=((1, 5), (2, 4), (3, 33), (6, 32), (7, 31), (8, 30), (9, 29), (10, 28), (11, 27), (12, 26), (13, 25), (14, 24), (15, 23), (16, 22), (17, 21), (18, 20), (19, 36), (34, 37), (35, 38)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (2, 3), (3, 37), (4, 5), (4, 33), (5, 32), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 16), (16, 17), (17, 18), (18, 19), (19, 38), (20, 21), (20, 36), (21, 22), (22, 23), (23, 24), (24, 25), (25, 26), (26, 27), (27, 28), (28, 29), (29, 30), (30, 31), (31, 32), (33, 34), (34, 35), (35, 36), (37, 38)),
        contour=((1, 2, 3, 37, 38, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6), (5, 4, 33, 34, 35, 36, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32),),
        back_contour=((1, 0, 5, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        oks_sigmas=(0.0137, 0.0153, 0.0243, 0.0377, 0.0243, 0.0153, 0.0203, 0.0366, 0.0467, 0.0433, 0.0393, 0.0329, 0.0418, 0.0477, 0.0399, 0.0331, 0.042, 0.0492, 0.0436, 0.0478, 0.0436, 0.0492, 0.042, 0.0331, 0.0399, 0.0477, 0.0418, 0.0329, 0.0393, 0.0433, 0.0467, 0.0366, 0.0203, 0.0377, 0.0645, 0.0573, 0.0478, 0.0645, 0.0573)),
    Category(5, 'vest', 128,
        flip_pairs=((1, 5), (2, 4), (6, 14), (7, 13), (8, 12), (9, 11)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (2, 3), (3, 4), (4, 5), (5, 14), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14)),
        contour=((1, 2, 3, 4, 5, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        back_contour=((1, 0, 5, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        oks_sigmas=(0.0352, 0.0158, 0.021, 0.0214, 0.021, 0.0158, 0.0196, 0.05, 0.0489, 0.0404, 0.0401, 0.0404, 0.0489, 0.05, 0.0196)),
    Category(6, 'sling', 143,
        flip_pairs=((1, 5), (2, 4), (6, 14), (7, 13), (8, 12), (9, 11)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (1, 7), (2, 3), (3, 4), (4, 5), (5, 13), (5, 14), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13)),
        contour=((1, 2, 3, 4, 5, 13, 12, 11, 10, 9, 8, 7),),
        back_contour=((1, 0, 5, 13, 12, 11, 10, 9, 8, 7),),
        oks_sigmas=(0.0276, 0.0548, 0.0283, 0.0204, 0.0283, 0.0548, 0.0369, 0.0726, 0.0677, 0.064, 0.0251, 0.064, 0.0677, 0.0726, 0.0369)),
    Category(7, 'shorts', 158,
        flip_pairs=((0, 2), (3, 9), (4, 8), (5, 7)),
        skeleton=((0, 1), (0, 3), (1, 2), (2, 9), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9)),
        contour=((0, 1, 2, 9, 8, 7, 6, 5, 4, 3),),
        back_contour=((0, 1, 2, 9, 8, 7, 6, 5, 4, 3),),
        oks_sigmas=(0.0308, 0.0216, 0.0308, 0.0506, 0.0494, 0.0463, 0.0477, 0.0463, 0.0494, 0.0506)),
    Category(8, 'trousers', 168,
        flip_pairs=((0, 2), (3, 13), (4, 12), (5, 11), (6, 10), (7, 9)),
        skeleton=((0, 1), (0, 3), (1, 2), (2, 13), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13)),
        contour=((0, 1, 2, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3),),
        back_contour=((0, 1, 2, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3),),
        oks_sigmas=(0.0275, 0.0202, 0.0275, 0.0651, 0.0451, 0.035, 0.028, 0.0392, 0.0362, 0.0392, 0.028, 0.035, 0.0451, 0.0651)),
    Category(9, 'skirt', 182,
        flip_pairs=((0, 2), (3, 7), (4, 6)),
        skeleton=((0, 1), (0, 3), (1, 2), (2, 7), (3, 4), (4, 5), (5, 6), (6, 7)),
        contour=((0, 1, 2, 7, 6, 5, 4, 3),),
        back_contour=((0, 1, 2, 7, 6, 5, 4, 3),),
        oks_sigmas=(0.0253, 0.0195, 0.0253, 0.0513, 0.0543, 0.0415, 0.0543, 0.0513)),
    Category(10, 'short sleeve dress', 190,
        flip_pairs=((1, 5), (2, 4), (6, 28), (7, 27), (8, 26), (9, 25), (10, 24), (11, 23), (12, 22), (13, 21), (14, 20), (15, 19), (16, 18)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (2, 3), (3, 4), (4, 5), (5, 28), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 16), (16, 17), (17, 18), (18, 19), (19, 20), (20, 21), (21, 22), (22, 23), (23, 24), (24, 25), (25, 26), (26, 27), (27, 28)),
        contour=((1, 2, 3, 4, 5, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        back_contour=((1, 0, 5, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        oks_sigmas=(0.0153, 0.023, 0.0167, 0.0145, 0.0167, 0.023, 0.0332, 0.0391, 0.0391, 0.0396, 0.044, 0.0452, 0.0498, 0.0514, 0.0585, 0.0655, 0.0635, 0.0602, 0.0635, 0.0655, 0.0585, 0.0514, 0.0498, 0.0452, 0.044, 0.0396, 0.0391, 0.0391, 0.0332)),
    Category(11, 'long sleeve dress', 219,
        flip_pairs=((1, 5), (2, 4), (6, 36), (7, 35), (8, 34), (9, 33), (10, 32), (11, 31), (12, 30), (13, 29), (14, 28), (15, 27), (16, 26), (17, 25), (18, 24), (19, 23), (20, 22)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (2, 3), (3, 4), (4, 5), (5, 36), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 16), (16, 17), (17, 18), (18, 19), (19, 20), (20, 21), (21, 22), (22, 23), (23, 24), (24, 25), (25, 26), (26, 27), (27, 28), (28, 29), (29, 30), (30, 31), (31, 32), (32, 33), (33, 34), (34, 35), (35, 36)),
        contour=((1, 2, 3, 4, 5, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        back_contour=((1, 0, 5, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        oks_sigmas=(0.0121, 0.0134, 0.0158, 0.0162, 0.0158, 0.0134, 0.0246, 0.0406, 0.047, 0.0404, 0.0463, 0.0466, 0.0435, 0.0499, 0.0455, 0.044, 0.0411, 0.049, 0.0576, 0.0685, 0.0618, 0.0483, 0.0618, 0.0685, 0.0576, 0.049, 0.0411, 0.044, 0.0486, 0.0499, 0.0435, 0.0466, 0.0463, 0.0404, 0.047, 0.0406, 0.0246)),
    Category(12, 'vest dress', 256,
        flip_pairs=((1, 5), (2, 4), (6, 18), (7, 17), (8, 16), (9, 15), (10, 14), (11, 13)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (2, 3), (3, 4), (4, 5), (5, 18), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 16), (16, 17), (17, 18)),
        contour=((1, 2, 3, 4, 5, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        back_contour=((1, 0, 5, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6),),
        oks_sigmas=(0.0116, 0.0167, 0.016, 0.018, 0.016, 0.0167, 0.0196, 0.0385, 0.0421, 0.0497, 0.0562, 0.0528, 0.0428, 0.0528, 0.0562, 0.0497, 0.0421, 0.0385, 0.0196)),
    Category(13, 'sling dress', 275,
        flip_pairs=((1, 5), (2, 4), (6, 18), (7, 17), (8, 16), (9, 15), (10, 14), (11, 13)),
        skeleton=((0, 1), (0, 5), (1, 2), (1, 6), (1, 7), (2, 3), (3, 4), (4, 5), (5, 17), (5, 18), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 16), (16, 17)),
        contour=((1, 2, 3, 4, 5, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7),),
        back_contour=((1, 0, 5, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7),),
        oks_sigmas=(0.0244, 0.0297, 0.0244, 0.0208, 0.0244, 0.0297, 0.0173, 0.0616, 0.0659, 0.0712, 0.0707, 0.0685, 0.0339, 0.0685, 0.0707, 0.0712, 0.0659, 0.0616, 0.0173)),
)
# fmt: on

NUM_CATEGORIES = len(CATEGORIES)
CATEGORY_NAMES = tuple(category.name for category in CATEGORIES)
# The colour that each category is drawn in. Neighbours in the table (short and long sleeve of one garment) and garments
# that are worn together (a top and trousers) differ in hue and in lightness, also for a red-green colour-blind eye.
PALETTE: tuple[RGB, ...] = (
    (64, 156, 255),  # short sleeve top
    (0, 84, 190),  # long sleeve top
    (255, 138, 28),  # short sleeve outwear
    (176, 66, 12),  # long sleeve outwear
    (26, 204, 186),  # vest
    (0, 126, 116),  # sling
    (255, 214, 10),  # shorts
    (196, 140, 0),  # trousers
    (124, 206, 44),  # skirt
    (255, 104, 176),  # short sleeve dress
    (184, 22, 104),  # long sleeve dress
    (190, 132, 255),  # vest dress
    (108, 44, 190),  # sling dress
)
LANDMARK_COUNTS = np.array([category.num_landmarks for category in CATEGORIES])
LANDMARK_OFFSETS = np.array([category.offset for category in CATEGORIES])
MAX_LANDMARKS = int(LANDMARK_COUNTS.max())
TOTAL_LANDMARKS = int(LANDMARK_COUNTS.sum())


def category_by_id(category_id: int) -> Category:
    """Returns the category with the dataset's ``category_id``, 1 to 13; ValueError for any other."""
    if category_id not in range(1, NUM_CATEGORIES + 1):
        raise ValueError(f'category_id must be 1 to {NUM_CATEGORIES} (DeepFashion2), got {category_id!r}')
    return CATEGORIES[category_id - 1]


def _flip_permutations() -> np.ndarray:
    permutations = np.tile(np.arange(MAX_LANDMARKS), (NUM_CATEGORIES, 1))
    for category in CATEGORIES:
        for left, right in category.flip_pairs:
            permutations[category.label, [left, right]] = right, left
    return permutations


def _padded_sigmas() -> np.ndarray:
    sigmas = np.full((NUM_CATEGORIES, MAX_LANDMARKS), np.nan)
    for category in CATEGORIES:
        sigmas[category.label, : category.num_landmarks] = category.oks_sigmas
    return sigmas


# (13, 39): flipped landmark j of label c is landmark FLIP_PERMUTATIONS[c, j] of the original; padding maps to itself.
FLIP_PERMUTATIONS = _flip_permutations()
# (13, 39): NaN in the padding, so that a use beyond the category's own landmarks cannot pass unseen.
OKS_SIGMAS = _padded_sigmas()


def label_of_name(name: str) -> int | None:
    """The label of a category's name, in which upper case, and hyphens or underscores for spaces, make no difference.

    Returns:
        0 to 12; None when no category has the name.
    """
    plain = ' '.join(name.lower().replace('_', ' ').replace('-', ' ').split())
    return CATEGORY_NAMES.index(plain) if plain in CATEGORY_NAMES else None

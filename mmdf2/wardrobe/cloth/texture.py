"""Texture and drapery of version 2's cloth: how the yarn looks from near, and how the cloth falls.

All maps repeat without a seam. They are drawn once per process, from seeds of their own.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from mmdf2.wardrobe.canvas import Surface
from mmdf2.wardrobe.cloth.fabric import PRINTS, Fabric, periodic_noise
from mmdf2.wardrobe.photo_folder import nth_photo

SIZE = 128
DRAPERY_SIZE = 256
DRAPERY_KINDS = ('vertical', 'crumpled', 'fine', 'broad', 'diagonal')
DRAPERY_PER_KIND = 3
# Weave -> size of one repeat of its map in centimetres, and how much it changes the brightness.
WEAVES = {
    'smooth': (20.0, 0.0),
    'twill': (3.0, 0.14),
    'canvas': (2.5, 0.12),
    'rib': (5.0, 0.2),
    'knit': (7.0, 0.24),
    'cable': (14.0, 0.3),
    'corduroy': (4.0, 0.24),
    'heather': (12.0, 0.2),
    'washed': (40.0, 0.2),
    'leather': (12.0, 0.16),
    'fleece': (8.0, 0.18),
    'photo': (30.0, 1.0),
}
WEAVE_SHARES = (0.4, 0.08, 0.05, 0.06, 0.08, 0.05, 0.03, 0.1, 0.06, 0.04, 0.05)
# BGR colours that clothes have most often, and their shares.
COMMON_COLORS = {
    (28, 26, 26): 0.24,
    (238, 240, 242): 0.19,
    (135, 135, 138): 0.09,
    (70, 68, 66): 0.07,
    (86, 48, 34): 0.12,
    (168, 188, 206): 0.09,
    (92, 118, 148): 0.05,
    (60, 82, 96): 0.05,
    (46, 38, 112): 0.04,
    (150, 112, 72): 0.06,
}


@dataclass(frozen=True)
class Texture:
    """What version 2 adds to a cloth.

    Attributes:
        weave: A key of ``WEAVES``.
        map_number: Number of the weave's map, or of the photo of cloth.
        scale: Factor on the weave's size.
        strength: Factor on the weave's depth.
        opacity: Share of the light that the cloth holds back, 1 for all of it.
    """

    weave: str = 'smooth'
    map_number: int = 0
    scale: float = 1.0
    strength: float = 1.0
    opacity: float = 1.0


@dataclass(frozen=True)
class Drapery:
    """How a cloth falls into folds.

    Attributes:
        kind: One of ``DRAPERY_KINDS``.
        depth: How much a fold of height 1 changes the brightness.
        size_cm: Size of one repeat of the map of folds in centimetres.
        map_number: Number of the map among those of this kind.
    """

    kind: str
    depth: float
    size_cm: float
    map_number: int


def sample_texture(rng: np.random.Generator, has_photos: bool) -> Texture:
    """Samples the texture of a cloth."""
    weave = str(rng.choice(list(WEAVES)[: len(WEAVE_SHARES)], p=WEAVE_SHARES))
    if has_photos and rng.random() < 0.4:
        weave = 'photo'
    return Texture(
        weave=weave,
        map_number=int(rng.integers(1 << 16)),
        scale=float(np.exp(rng.normal(0, 0.25))),
        strength=float(rng.uniform(0.3, 1.1)),
        opacity=float(rng.uniform(0.6, 0.9)) if rng.random() < 0.07 else 1.0,
    )


def sample_drapery(rng: np.random.Generator) -> Drapery:
    """Samples how a cloth falls."""
    return Drapery(
        kind=str(rng.choice(DRAPERY_KINDS)),
        depth=float(np.exp(rng.uniform(np.log(0.04), np.log(0.22)))),
        size_cm=float(rng.uniform(45, 110)),
        map_number=int(rng.integers(DRAPERY_PER_KIND)),
    )


def vary_fabric(rng: np.random.Generator, fabric: Fabric, taken: list[Fabric]) -> Fabric:
    """Gives a cloth a more common colour and a print of any size.

    Args:
        rng: Random generator.
        fabric: The cloth of version 1.
        taken: The cloths of the other styles of the same cut, from which this one is to differ.
    """
    period = float(np.exp(rng.uniform(np.log(1.5), np.log(24))))
    kind = _vary_print(rng, fabric.print)
    second = _common_color(rng) if rng.random() < 0.5 else fabric.second
    base = fabric.base
    if kind not in ('denim', 'camouflage') and rng.random() < 0.75:
        for _ in range(8):
            base = _common_color(rng)
            others = [*(other.base for other in taken if other.print == kind), fabric.third]
            if kind != 'plain':
                others.append(second)
            if all(np.abs(np.subtract(base, other)).sum() > 90 for other in others):
                break
        else:
            base, second = fabric.base, fabric.second
    return replace(fabric, base=base, second=second, print=kind, period_cm=period)


def _vary_print(rng, kind: str) -> str:
    """Half of the printed cloths become plain, as most clothes are; the others more often have a frequent print."""
    if kind not in PRINTS[2:]:
        return kind
    lot = rng.random()
    if lot < 0.5:
        return 'plain'
    return str(rng.choice(('stripes', 'plaid', 'flowers', 'pinstripes'))) if lot < 0.65 else kind


def _common_color(rng) -> tuple[int, int, int]:
    colors, shares = list(COMMON_COLORS), np.array(list(COMMON_COLORS.values()))
    color = np.array(colors[rng.choice(len(colors), p=shares / shares.sum())]) + rng.normal(0, 9, 3) + rng.normal(0, 8)
    blue, green, red = np.clip(color, 8, 250).astype(int)
    return int(blue), int(green), int(red)


@lru_cache(maxsize=1)
def weave_maps() -> dict[str, list[np.ndarray]]:
    """Draws three (128, 128) uint8 maps per weave; 128 leaves the brightness as it is."""
    rng = np.random.default_rng(1801)
    x, y = np.meshgrid(np.arange(SIZE) / SIZE, np.arange(SIZE) / SIZE)
    maps: dict[str, list[np.ndarray]] = {}
    for kind, (_, depth) in WEAVES.items():
        if kind in ('smooth', 'photo'):
            continue
        maps[kind] = []
        for _ in range(3):
            height = _weave_height(rng, kind, x, y)
            maps[kind].append(np.clip(128 * (1 + depth * np.clip(height, -2, 2)), 0, 255).astype(np.uint8))
    return maps


def _weave_height(rng, kind, x, y) -> np.ndarray:
    """Height of a weave's yarn, about -2 to 2, at positions 0 to 1 of one repeat."""
    tau = 2 * np.pi
    noise, broad = periodic_noise(rng, SIZE, (40, 40)), periodic_noise(rng, SIZE, (6, 6))
    streaks = periodic_noise(rng, SIZE, (60, 8))
    heights = {
        'twill': np.sin(tau * 12 * (x + y)) + 0.8 * noise,
        'canvas': np.sin(tau * 14 * x) * np.sin(tau * 14 * y) + noise,
        'rib': 1.6 * np.abs(np.sin(tau * 4 * x)) - 0.8 + 0.3 * noise,
        'knit': np.sin(tau * (16 * y + 1.5 * np.abs(np.sin(tau * 5 * x)))) + 0.4 * noise,
        'cable': np.cos(tau * 4 * x + 1.2 * np.sin(tau * 3 * y)) + 0.5 * np.sin(tau * 24 * y) + 0.3 * noise,
        'corduroy': np.sin(tau * 10 * x) + 0.3 * noise,
        'heather': streaks + 0.6 * broad,
        'washed': 0.8 * periodic_noise(rng, SIZE, (3, 4)) + 0.5 * streaks,
        'leather': 0.8 - np.abs(periodic_noise(rng, SIZE, (14, 14))) + 0.3 * broad,
        'fleece': periodic_noise(rng, SIZE, (22, 22)) + 0.4 * noise,
    }
    return heights[kind]


@lru_cache(maxsize=1)
def drapery_maps() -> dict[str, list[np.ndarray]]:
    """Draws three (256, 256) float32 maps per kind of drapery: folds lit from one side, about -2 to 2."""
    rng = np.random.default_rng(1802)
    bumps = {'vertical': (7, 1.6), 'crumpled': (8, 7), 'fine': (20, 9), 'broad': (3, 2), 'diagonal': (6, 2)}
    maps: dict[str, list[np.ndarray]] = {}
    rows, columns = np.mgrid[:DRAPERY_SIZE, :DRAPERY_SIZE].astype(np.float32)
    for kind in DRAPERY_KINDS:
        across, down = bumps[kind]
        maps[kind] = []
        for _ in range(DRAPERY_PER_KIND):
            height: np.ndarray = np.zeros((DRAPERY_SIZE, DRAPERY_SIZE), dtype=np.float32)
            for octave, weight in ((1, 1.0), (2.3, 0.45), (5, 0.15)):
                noise = periodic_noise(rng, DRAPERY_SIZE, (across * octave, down * octave))
                height += weight * (0.8 - np.abs(noise)).astype(np.float32)
            # Folds bend and meet: the map is pushed about by another one.
            push = 10 * np.stack([periodic_noise(rng, DRAPERY_SIZE, (3, 3)) for _ in range(2)])
            slant = rows if kind == 'diagonal' else 0
            height = cv2.remap(
                height, columns + push[0] + slant, rows + push[1], cv2.INTER_LINEAR, None, cv2.BORDER_WRAP
            )
            height = cv2.copyMakeBorder(height, 4, 4, 4, 4, cv2.BORDER_WRAP)
            lit = cv2.GaussianBlur(height - np.roll(height, (1, 2), axis=(0, 1)), (0, 0), 1.0)[4:-4, 4:-4]
            maps[kind].append(np.clip(lit / lit.std(), -2.5, 2.5).astype(np.float32))
    return maps


def draped(surface: Surface, drapery: Drapery, place: np.ndarray) -> Surface:
    """Lets a surface fall into folds.

    Args:
        surface: The surface.
        drapery: How it falls.
        place: (2, 3) map from the folds' centimetres to those of the surface.
    """
    return replace(
        surface,
        folds=drapery_maps()[drapery.kind][drapery.map_number],
        folds_cm=drapery.size_cm,
        fold_depth=drapery.depth,
        folds_place=place,
    )


def weave_map(texture: Texture, folder: str) -> tuple[np.ndarray | None, float]:
    """Finds the map of a texture: (T, T) uint8, 128 for no change, and the size of one repeat in centimetres.

    A smooth cloth has no map.

    Args:
        texture: The texture.
        folder: Folder of photos of cloth for the weave 'photo'.
    """
    size, _ = WEAVES[texture.weave]
    if texture.weave == 'smooth':
        return None, size
    if texture.weave == 'photo':
        tile = _cloth_photo(nth_photo(folder, texture.map_number))
    else:
        maps = weave_maps()[texture.weave]
        tile = maps[texture.map_number % len(maps)]
    return cv2.convertScaleAbs(tile, alpha=texture.strength, beta=128 * (1 - texture.strength)), size * texture.scale


def _cloth_photo(photo: np.ndarray) -> np.ndarray:
    """The middle of a photo as a map of brightness that repeats: its four mirror images side by side, evenly lit."""
    gray = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    side = min(gray.shape)
    top, left = (gray.shape[0] - side) // 2, (gray.shape[1] - side) // 2
    gray = cv2.resize(gray[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    level = gray.astype(np.float32)
    even = level / np.maximum(cv2.GaussianBlur(level, (0, 0), SIZE / 4), 8)
    half = np.concatenate([even, even[:, ::-1]], axis=1)
    return np.clip(128 * np.concatenate([half, half[::-1]]), 0, 255).astype(np.uint8)

"""Cloth: colour, print, chest logo and folds. Colour and print are what tells the styles of one cut apart."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

TILE = 64
FOLD_TILE = 128
PRINTS = (
    'plain', 'denim', 'stripes', 'pinstripes', 'checks', 'plaid', 'dots', 'flowers', 'camouflage', 'zigzag', 'gradient',
    'blocks',
)  # fmt: skip
LOGOS = ('star', 'heart', 'disc', 'ring', 'bolt', 'flower', 'word', 'bars', 'face', 'diamond')
WORDS = ('SUN', 'LOVE', '1987', 'NY', 'HEY', 'WAVE', 'OK', 'MOON', 'GO', '23', 'ART', 'FUN')
# Kind of folds -> bumps across and down one map, and the slant: how many map widths the last row is shifted by.
FOLD_KINDS = {'soft': (5, 2, 1), 'draped': (12, 1.5, 0), 'crumpled': (9, 2.5, 2)}


@dataclass(frozen=True)
class Fabric:
    """The cloth of one style of one garment.

    Attributes:
        base: BGR colour of the cloth.
        second: BGR colour of the print.
        third: BGR colour of the logo, and of the thin lines of a plaid.
        print: One of ``PRINTS``.
        period_cm: Size of one repeat of the print in centimetres.
        logo: One of ``LOGOS``, or '' for none.
        logo_cm: Size of the logo in centimetres.
        word: The text of a 'word' logo.
        seed: Seed of the print's irregularities.
    """

    base: tuple[int, int, int]
    second: tuple[int, int, int]
    third: tuple[int, int, int]
    print: str
    period_cm: float
    logo: str = ''
    logo_cm: float = 14.0
    word: str = ''
    seed: int = 0


def sample_fabric(rng: np.random.Generator, has_chest: bool, plainness=0.35) -> Fabric:
    """Samples a cloth.

    Args:
        rng: Random generator.
        has_chest: Whether the garment has a chest, on which there can be a logo.
        plainness: Probability of a cloth without print.
    """
    base, second, third = _colors(rng)
    plain = rng.random() < plainness
    kind = ('plain', 'denim')[rng.random() < 0.3 and not has_chest] if plain else PRINTS[rng.integers(2, len(PRINTS))]
    if kind == 'denim':
        blue, green, red = np.array([150, 100, 60]) * rng.uniform(0.5, 1.35)
        base = int(blue), int(green), int(red)
    logo = has_chest and rng.random() < (0.65 if kind in ('plain', 'gradient', 'blocks', 'pinstripes') else 0.15)
    return Fabric(
        base=base,
        second=second,
        third=third,
        print=kind,
        period_cm=float(rng.uniform(4, 16)),
        logo=str(rng.choice(LOGOS)) if logo else '',
        logo_cm=float(rng.uniform(11, 20)),
        word=str(rng.choice(WORDS)),
        seed=int(rng.integers(2**31)),
    )


def _colors(rng) -> list[tuple[int, int, int]]:
    """Samples three BGR colours that can be told apart."""
    chosen: list[np.ndarray] = []
    while len(chosen) < 3:
        if rng.random() < 0.25:
            hsv = (
                0,
                rng.uniform(0, 18),
                rng.choice([rng.uniform(28, 60), rng.uniform(110, 160), rng.uniform(215, 245)]),
            )
        else:
            hsv = (rng.uniform(0, 180), rng.uniform(60, 215), rng.uniform(75, 240))
        color = cv2.cvtColor(np.array([[hsv]]).astype(np.uint8), cv2.COLOR_HSV2BGR)[0, 0].astype(int)
        if all(np.abs(color - other).sum() > 110 for other in chosen):
            chosen.append(color)
    return [(int(blue), int(green), int(red)) for blue, green, red in chosen]


@lru_cache(maxsize=64)
def print_tile(fabric: Fabric) -> tuple[np.ndarray | None, tuple[float, float]]:
    """Draws the repeating pattern of a cloth.

    Returns:
        (T, T, 3) uint8 BGR tile, or None for a plain cloth; and the (width, height) of one repeat in centimetres.
    """
    period = fabric.period_cm
    base, second, third = (np.array(color, dtype=np.float32) for color in (fabric.base, fabric.second, fabric.third))
    if fabric.print == 'plain':
        return None, (period, period)
    if fabric.print in ('gradient', 'blocks'):
        height = 70 + 5 * period
        y = np.linspace(0, 1, 2 * TILE)[:, None]
        share = 0.5 - 0.5 * np.cos(2 * np.pi * y) if fabric.print == 'gradient' else ((y + 0.1) * 3 % 1 > 0.5) * 1.0
        return _mix(base, second, np.repeat(share, 16, axis=1)), (period, height)
    rng = np.random.default_rng(fabric.seed)
    tile = _PRINTERS[fabric.print](base, second, third, rng)
    size = {'denim': 20.0, 'camouflage': 3 * period, 'flowers': 1.6 * period, 'plaid': 1.5 * period}.get(
        fabric.print, period
    )
    return tile, (size, size)


def _mix(base, second, share) -> np.ndarray:
    share = np.asarray(share, dtype=np.float32)[..., None]
    return np.clip(base * (1 - share) + second * share, 0, 255).astype(np.uint8)


def _axis() -> np.ndarray:
    return (np.arange(TILE) + 0.5) / TILE


def _stripes(base, second, third, rng):
    share = (_axis()[:, None] < rng.uniform(0.25, 0.6)) * np.ones(TILE)
    return _mix(base, second, share)


def _pinstripes(base, second, third, rng):
    share = (_axis()[None, :] * 2 % 1 < 0.2) * np.ones((TILE, 1))
    return _mix(base, second, share)


def _checks(base, second, third, rng):
    bars = (_axis() < 0.5) * 0.5
    return _mix(base, second, bars[:, None] + bars[None, :])


def _plaid(base, second, third, rng):
    bars = (_axis() < 0.35) * 0.5
    tile = _mix(base, second, bars[:, None] + bars[None, :])
    line = (np.abs(_axis() - 0.7) < 0.035) * 0.8
    return _mix(np.float32(tile), third, np.maximum(line[:, None], line[None, :]))


def _dots(base, second, third, rng):
    x, y = np.meshgrid(_axis(), _axis())
    radius = rng.uniform(0.14, 0.2)
    distance = np.minimum(np.hypot(x - 0.25, y - 0.25), np.hypot(x - 0.75, y - 0.75))
    return _mix(base, second, np.clip((radius - distance) * 32 + 0.5, 0, 1))


def _flowers(base, second, third, rng):
    x, y = np.meshgrid(_axis(), _axis())
    tile = np.float32(np.broadcast_to(base, (TILE, TILE, 3)))
    for cx, cy in ((0.27, 0.3), (0.75, 0.72)):
        angle, distance = np.arctan2(y - cy, x - cx), np.hypot(x - cx, y - cy)
        petals = 0.13 + 0.07 * np.cos(5 * angle + rng.uniform(0, 6))
        tile = np.float32(_mix(tile, second, np.clip((petals - distance) * 32 + 0.5, 0, 1)))
        tile = np.float32(_mix(tile, third, np.clip((0.055 - distance) * 32 + 0.5, 0, 1)))
    return tile.astype(np.uint8)


def _camouflage(base, second, third, rng):
    first, other = periodic_noise(rng, TILE, (4, 4)), periodic_noise(rng, TILE, (4, 4))
    return _mix(np.float32(_mix(base, second, first > 0.35)), third, other > 0.75)


def _zigzag(base, second, third, rng):
    x, y = np.meshgrid(_axis(), _axis())
    return _mix(base, second, (y + 0.5 * np.abs(2 * x - 1)) % 1 < 0.42)


def _denim(base, second, third, rng):
    grain = 0.12 * periodic_noise(rng, TILE, (30, 6)) + 0.08 * periodic_noise(rng, TILE, (3, 3))
    return np.clip(base * (1 + grain[..., None]), 0, 255).astype(np.uint8)


_PRINTERS = {
    'stripes': _stripes, 'pinstripes': _pinstripes, 'checks': _checks, 'plaid': _plaid, 'dots': _dots,
    'flowers': _flowers, 'camouflage': _camouflage, 'zigzag': _zigzag, 'denim': _denim,
}  # fmt: skip


def periodic_noise(rng, size: int, cells: tuple[float, float]) -> np.ndarray:
    """Draws (size, size) float32 smooth noise of unit variance that repeats without a seam.

    Args:
        rng: Random generator.
        size: Side of the map in pixels.
        cells: Approximate number of bumps across and down.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None] * size, np.fft.rfftfreq(size)[None, :] * size
    spectrum *= np.exp(-0.5 * ((fx / cells[0]) ** 2 + (fy / cells[1]) ** 2))
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return (noise / noise.std()).astype(np.float32)


@lru_cache(maxsize=1)
def fold_maps() -> dict[str, list[np.ndarray]]:
    """Draws four repeating (128, 128) maps per kind of folds: lit on one side and dark on the other, about -2 to 2."""
    rng = np.random.default_rng(2019)
    maps: dict[str, list[np.ndarray]] = {}
    for kind, (across, down, slant) in FOLD_KINDS.items():
        maps[kind] = []
        for _ in range(4):
            ridges = 0
            for slope in (-slant, slant):
                noise = periodic_noise(rng, FOLD_TILE, (across, down))
                rows = [np.roll(row, slope * number) for number, row in enumerate(noise)]
                ridges = ridges + np.maximum(np.stack(rows), 0.2)
            lit = ridges - np.roll(ridges, (1, 3), axis=(0, 1))
            maps[kind].append(np.ascontiguousarray(cv2.blur(lit / lit.std(), (3, 3)), dtype=np.float32))
    return maps


@lru_cache(maxsize=64)
def logo_decal(fabric: Fabric) -> np.ndarray | None:
    """Draws the chest logo: (128, 128, 4) uint8 BGR and alpha; None for a cloth without logo."""
    if not fabric.logo:
        return None
    alpha, inner = np.zeros((2, 128, 128), dtype=np.uint8)
    center = (64, 64)
    angles = np.linspace(-np.pi / 2, 1.5 * np.pi, 60, endpoint=False)
    if fabric.logo == 'word':
        scale = 1.0 if len(fabric.word) > 3 else 1.4
        (width, height), _ = cv2.getTextSize(fabric.word, cv2.FONT_HERSHEY_DUPLEX, scale * 1.4, 8)
        origin = (max(2, 64 - width // 2), 64 + height // 2)
        cv2.putText(alpha, fabric.word, origin, cv2.FONT_HERSHEY_DUPLEX, scale * 1.4, 255, 8, cv2.LINE_AA)
    elif fabric.logo == 'bars':
        for y in (34, 64, 94):
            cv2.rectangle(alpha, (6, y - 9), (122, y + 9), 255, -1)
    elif fabric.logo in ('disc', 'ring', 'face'):
        cv2.circle(alpha, center, 52, 255, -1 if fabric.logo != 'ring' else 20, cv2.LINE_AA)
        if fabric.logo == 'face':
            for x in (46, 82):
                cv2.circle(inner, (x, 50), 8, 255, -1, cv2.LINE_AA)
            cv2.ellipse(inner, (64, 68), (28, 24), 0, 20, 160, 255, 7, cv2.LINE_AA)
    else:
        cv2.fillPoly(alpha, [_logo_shape(fabric.logo, angles).astype(np.int32)], 255, cv2.LINE_AA)
        if fabric.logo == 'flower':
            cv2.circle(inner, center, 14, 255, -1, cv2.LINE_AA)
    third, base = (np.array(color, dtype=np.float32) for color in (fabric.third, fabric.base))
    color = _mix(third, base, inner / 255).astype(np.float32)
    return np.concatenate([color.astype(np.uint8), alpha[..., None]], axis=2)


def _logo_shape(kind, t) -> np.ndarray:
    if kind == 'heart':
        height = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([64 + 3.3 * 16 * np.sin(t) ** 3, 60 - 3.3 * height], axis=1)
    if kind == 'bolt':
        return np.array([[74, 6], [28, 74], [60, 74], [48, 122], [100, 50], [66, 50]])
    if kind == 'diamond':
        return np.array([[64, 6], [110, 64], [64, 122], [18, 64]])
    if kind == 'flower':
        radius = 40 + 17 * np.cos(6 * t)
    else:
        radius = np.interp((t * 5 / (2 * np.pi) + 1.25) % 1, [0, 0.5, 1], [56, 23, 56])
    return np.stack([64 + radius * np.cos(t), 64 + radius * np.sin(t)], axis=1)

"""Backgrounds of the images: studios of shops, rooms and streets of users, and surfaces that garments are laid on."""

import cv2
import numpy as np

from mmdf2.wardrobe.cloth.fabric import periodic_noise

_GRAIN = periodic_noise(np.random.default_rng(7), 256, (40, 40))
_WOOD = periodic_noise(np.random.default_rng(8), 256, (3, 50))
SHRINK = 2  # backgrounds are out of focus: drawn at half size and enlarged


def studio(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draws a clean wall in soft light: (height, width, 3) uint8 BGR."""
    tone = np.array([rng.uniform(205, 250)] * 3) if rng.random() < 0.65 else _muted(rng, 150, 235)
    small = _gradient(rng, width // SHRINK + 1, height // SHRINK + 1, tone, 0.14)
    if rng.random() < 0.5:
        rows = small.shape[0]
        small[int(rows * rng.uniform(0.78, 0.92)) :] *= rng.uniform(0.86, 0.95)
        small = cv2.blur(small, (1, 15))
    return _enlarged(small, width, height)


def room(rng: np.random.Generator, width: int, height: int, feet: float) -> np.ndarray:
    """Draws a wall, a floor and some furniture: (height, width, 3) uint8 BGR."""
    columns, rows = width // SHRINK + 1, height // SHRINK + 1
    small = _gradient(rng, columns, rows, _muted(rng, 110, 225), 0.3)
    horizon = _horizon(rng, rows, feet)
    floor = _gradient(rng, columns, rows - horizon, _muted(rng, 60, 190), 0.25)
    if rng.random() < 0.6:
        floor *= 1 + 0.07 * _patch(rng, _WOOD, rows - horizon, columns)[..., None]
    small[horizon:] = floor
    small[max(0, horizon - 2) : horizon + 1] *= 0.75
    small = np.ascontiguousarray(np.clip(small, 0, 255), dtype=np.uint8)
    for _ in range(rng.integers(2, 6)):
        _FURNITURE[rng.integers(len(_FURNITURE))](rng, small, horizon)
    return _enlarged(cv2.blur(small, (3, 3)), width, height)


def street(rng: np.random.Generator, width: int, height: int, feet: float) -> np.ndarray:
    """Draws blurred buildings and pavement: (height, width, 3) uint8 BGR."""
    columns, rows = width // SHRINK + 1, height // SHRINK + 1
    small = np.ascontiguousarray(
        np.clip(_gradient(rng, columns, rows, _muted(rng, 140, 230), 0.3), 0, 255), dtype=np.uint8
    )
    horizon = _horizon(rng, rows, feet)
    x = -5
    while x < columns:
        wide = int(rng.integers(20, 70))
        top = int(rng.uniform(-0.2, 0.5) * horizon)
        cv2.rectangle(small, (x, top), (x + wide, horizon), _muted(rng, 50, 200).tolist(), -1)
        window = _muted(rng, 60, 230).tolist()
        for wx in range(x + 5, x + wide - 8, 13):
            for wy in range(top + 6, horizon - 10, 17):
                cv2.rectangle(small, (wx, wy), (wx + 6, wy + 9), window, -1)
        x += wide
    cv2.rectangle(small, (0, horizon), (columns, rows), _muted(rng, 80, 170).tolist(), -1)
    if rng.random() < 0.6:
        leaf = (rng.uniform(30, 70), rng.uniform(90, 150), rng.uniform(40, 90))
        for _ in range(12):
            center = (int(rng.normal(columns * 0.15, 18)), int(rng.normal(horizon * 0.7, 20)))
            cv2.circle(small, center, int(rng.integers(6, 16)), tuple(c * rng.uniform(0.7, 1.2) for c in leaf), -1)
    return _enlarged(cv2.blur(cv2.blur(small, (7, 7)), (5, 5)), width, height)


def flat_lay(rng: np.random.Generator, width: int, height: int, clean: bool) -> np.ndarray:
    """What a garment is laid on, seen from above: (height, width, 3) uint8."""
    columns, rows = width // SHRINK + 1, height // SHRINK + 1
    tone = _muted(rng, 200, 245) if clean else _muted(rng, 90, 220)
    small = _gradient(rng, columns, rows, tone, 0.15)
    kind = rng.integers(3)
    if kind == 0:
        small *= 1 + 0.08 * _patch(rng, _WOOD, rows, columns)[..., None]
        small[:, :: int(rng.integers(24, 50))] *= 0.8
    elif kind == 1:
        small *= 1 + 0.04 * _patch(rng, _GRAIN, rows, columns)[..., None]
    else:
        folds = cv2.resize(
            _patch(rng, _GRAIN, rows // 6 + 1, columns // 6 + 1), (columns, rows), interpolation=cv2.INTER_CUBIC
        )
        small *= 1 + 0.025 * folds[..., None]
    return _enlarged(small, width, height)


def _horizon(rng, rows, feet) -> int:
    """Row at which the floor begins: above the wearer's feet (``feet``, a row of the image) if the image shows them."""
    behind = feet / SHRINK - rows * rng.uniform(0.0, 0.15)
    return int(np.clip(min(rows * rng.uniform(0.6, 0.9), behind), 0.2 * rows, 0.95 * rows))


def _muted(rng, low, high) -> np.ndarray:
    gray = rng.uniform(low, high)
    return np.clip(gray + rng.normal(0, 10, 3), 20, 250)


def _gradient(rng, columns, rows, tone, strength) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.linspace(-0.5, 0.5, columns), np.linspace(-0.5, 0.5, rows)
    light = 1 + strength * (np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None])
    return (light[..., None] * tone).astype(np.float32)


def _patch(rng, texture, rows, columns) -> np.ndarray:
    shifted = np.roll(texture, rng.integers(0, 256, 2), axis=(0, 1))
    return np.tile(shifted, (rows // 256 + 1, columns // 256 + 1))[:rows, :columns]


def _enlarged(small, width, height) -> np.ndarray:
    small = np.clip(small, 0, 255).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _box(rng, small, horizon) -> None:
    rows, columns = small.shape[:2]
    wide, high = int(columns * rng.uniform(0.12, 0.4)), int(rows * rng.uniform(0.1, 0.45))
    x, y = int(rng.uniform(-0.1, 0.95) * columns), int(min(rows, horizon + rows * rng.uniform(0, 0.12)))
    color = _muted(rng, 40, 215)
    cv2.rectangle(small, (x, y - high), (x + wide, y), color.tolist(), -1)
    for part in range(1, int(rng.integers(2, 5))):
        line = y - high + high * part // 4
        cv2.line(small, (x, line), (x + wide, line), (color * 0.7).tolist(), 1)


def _frame(rng, small, horizon) -> None:
    rows, columns = small.shape[:2]
    wide, high = int(columns * rng.uniform(0.12, 0.3)), int(rows * rng.uniform(0.12, 0.3))
    x, y = int(rng.uniform(0, 0.9) * columns), int(rng.uniform(0.02, 0.4) * rows)
    cv2.rectangle(small, (x, y), (x + wide, y + high), _muted(rng, 30, 120).tolist(), -1)
    cv2.rectangle(small, (x + 3, y + 3), (x + wide - 3, y + high - 3), _muted(rng, 120, 240).tolist(), -1)


def _door(rng, small, horizon) -> None:
    rows, columns = small.shape[:2]
    wide = int(columns * rng.uniform(0.2, 0.35))
    x, top = (
        int(rng.choice([rng.uniform(-0.1, 0.15), rng.uniform(0.6, 0.9)]) * columns),
        int(rows * rng.uniform(0, 0.15)),
    )
    color = _muted(rng, 70, 225)
    cv2.rectangle(small, (x, top), (x + wide, horizon), color.tolist(), -1)
    cv2.rectangle(small, (x, top), (x + wide, horizon), (color * 0.75).tolist(), 2)
    cv2.circle(small, (x + wide - 6, (top + horizon) // 2), 2, (60, 80, 90), -1)


def _lamp(rng, small, horizon) -> None:
    rows, columns = small.shape[:2]
    x, y = int(rng.uniform(0, 1) * columns), int(horizon - rows * rng.uniform(0.25, 0.4))
    cv2.line(small, (x, y), (x, horizon), (50, 50, 50), 2)
    shade = np.array([[x - 12, y], [x + 12, y], [x + 7, y - 18], [x - 7, y - 18]], dtype=np.int32)
    cv2.fillPoly(small, [shade], (rng.uniform(60, 160), rng.uniform(150, 220), rng.uniform(200, 250)))


def _plant(rng, small, horizon) -> None:
    columns = small.shape[1]
    x = int(rng.uniform(0, 1) * columns)
    for _ in range(14):
        tip = (x + int(rng.normal(0, 16)), horizon - int(rng.uniform(12, 55)))
        cv2.line(small, (x, horizon - 8), tip, (rng.uniform(30, 80), rng.uniform(90, 160), rng.uniform(40, 100)), 3)
    cv2.rectangle(small, (x - 9, horizon - 12), (x + 9, horizon + 5), _muted(rng, 90, 220).tolist(), -1)


_FURNITURE = (_box, _box, _frame, _frame, _door, _lamp, _plant)

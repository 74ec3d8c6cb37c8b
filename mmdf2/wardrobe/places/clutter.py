"""Version 2's places: cluttered backgrounds, photos of a user's folder, mirrors, hangers, beds and floors."""

from functools import lru_cache

import cv2
import numpy as np

from mmdf2.wardrobe.canvas import Surface
from mmdf2.wardrobe.cloth.fabric import periodic_noise
from mmdf2.wardrobe.cloth.texture import drapery_maps
from mmdf2.wardrobe.geometry import band, polygon_of, spline
from mmdf2.wardrobe.people.body import as_color
from mmdf2.wardrobe.people.figure import Layer
from mmdf2.wardrobe.photo_folder import nth_photo
from mmdf2.wardrobe.places.backgrounds import SHRINK

SMALLEST_SURFACE = 150  # pixels; smaller things are of one colour


@lru_cache(maxsize=1)
def _surfaces() -> list[np.ndarray]:
    """Brightness of stone, wood, plaster, foliage and carpets: (256, 256) float32 maps of unit variance that repeat."""
    rng = np.random.default_rng(1803)
    cells = ((3, 3), (60, 60), (2, 40), (50, 2), (12, 12), (25, 25), (5, 30), (90, 90))
    maps = [periodic_noise(rng, 256, pair) for pair in cells]
    maps += [maps[0] + 0.6 * maps[4] + 0.4 * maps[1], np.abs(maps[4]) * 2 - 1, np.sign(maps[5]) + 0.4 * maps[7]]
    rows, columns = np.mgrid[:256, :256]
    bricks = ((rows % 32 < 3) | ((columns + 32 * (rows // 32 % 2)) % 64 < 3)) * -2.0
    tiles = ((rows % 64 < 3) | (columns % 64 < 3)) * -2.0
    planks = (columns % 42 < 2) * -2.0 + 0.5 * maps[2]
    return [surface.astype(np.float32) for surface in (*maps, bricks + 0.4 * maps[1], tiles, planks)]


def other_place(rng: np.random.Generator, background: np.ndarray, source: str, worn: bool, photos: str) -> np.ndarray:
    """Sometimes replaces the background of version 1.

    Args:
        rng: Random generator.
        background: (H, W, 3) uint8 BGR background of version 1.
        source: 'shop' or 'user'.
        worn: Whether somebody wears the garments.
        photos: Folder of photos of places, or ''.
    """
    height, width = background.shape[:2]
    if not worn:
        chosen = bedding(rng, width, height) if rng.random() < (0.7 if source == 'user' else 0.3) else background
    elif rng.random() < (0.85 if source == 'user' else 0.35):
        if photos and rng.random() < 0.7:
            chosen = photo_of(rng, photos, width, height)
        else:
            chosen = clutter(rng, width, height)
    else:
        chosen = background
    return mirror(rng, chosen) if worn and source == 'user' and rng.random() < 0.15 else chosen


def clutter(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draws things of all sizes that cover each other, as behind people on photos: (height, width, 3) uint8 BGR."""
    columns, rows = width // SHRINK + 1, height // SHRINK + 1
    image = np.ascontiguousarray(_surface(rng, rows, columns, _tone(rng), rng.uniform(0.03, 0.2)))
    if rng.random() < 0.5:
        horizon = int(rows * rng.uniform(0.3, 0.9))
        image[horizon:] = _ground(rng, rows - horizon, columns)
    palette = [_tone(rng) for _ in range(6)]
    count = int(rng.choice((0, 8, 25, 70), p=(0.08, 0.22, 0.4, 0.3)))
    sizes = np.sort(np.exp(rng.uniform(np.log(0.03), np.log(0.7), count)))[::-1] * max(rows, columns)
    for size in sizes:
        _thing(rng, image, size, palette[rng.integers(len(palette))])
    blur = rng.choice((0.0, 0.0, 0.0, 0.7, 1.5, 3.0, 5.0))
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _ground(rng, rows, columns) -> np.ndarray:
    """A floor or a street seen at a slant: its texture grows towards the lower edge; (rows, columns, 3) uint8."""
    flat = _surface(rng, columns, columns, _tone(rng), rng.uniform(0.03, 0.2))
    inset = columns * rng.uniform(0.2, 0.45)
    source = np.array([[inset, 0], [columns - inset, 0], [columns, columns], [0, columns]], dtype=np.float32)
    target = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32)
    return cv2.warpPerspective(flat, cv2.getPerspectiveTransform(source, target), (columns, rows))


def _thing(rng, image, size, color) -> None:
    """Draws one thing of about ``size`` pixels somewhere on an image, flat or with a surface of its own."""
    rows, columns = image.shape[:2]
    outline = np.round(_outline(rng, size, rng.uniform((0, 0), (columns, rows))) * 16).astype(np.int32)
    shade = np.clip(np.array(color) * rng.uniform(0.75, 1.2) + rng.normal(0, 6, 3), 0, 255)
    x, y, w, h = cv2.boundingRect(np.round(outline / 16).astype(np.int32))
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w + 1, columns), min(y + h + 1, rows)
    if x2 <= x1 or y2 <= y1:
        return
    if (x2 - x1) * (y2 - y1) < SMALLEST_SURFACE or rng.random() < 0.4:
        cv2.fillPoly(image, [outline], shade.tolist(), cv2.LINE_AA, 4)
        return
    mask = np.zeros((y2 - y1, x2 - x1), dtype=np.uint8)
    cv2.fillPoly(mask, [outline - np.array([x1, y1], dtype=np.int32) * 16], 255, cv2.LINE_8, 4)
    cv2.copyTo(_surface(rng, y2 - y1, x2 - x1, shade, rng.uniform(0.03, 0.25)), mask, image[y1:y2, x1:x2])


def _outline(rng, size, center) -> np.ndarray:
    """A box, a disc or a ragged piece: (P, 2) points; most boxes stand upright, as furniture and houses do."""
    aspect = np.exp(rng.normal(0, 0.6))
    half = np.array([size * np.sqrt(aspect), size / np.sqrt(aspect)]) / 2
    angle = rng.normal(0, 0.08) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    kind = rng.integers(4)
    if kind < 2:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    elif kind == 2:
        t = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        corners = np.stack([np.cos(t), np.sin(t)], axis=1)
    else:
        t = np.sort(rng.uniform(0, 2 * np.pi, 7))
        corners = np.stack([np.cos(t), np.sin(t)], axis=1) * rng.uniform(0.5, 1.1, (7, 1))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (corners * half) @ turn + center


def _surface(rng, rows, columns, color, depth) -> np.ndarray:
    maps = _surfaces()
    texture = maps[rng.integers(len(maps))]
    top, left = rng.integers(0, 256, 2)
    scale = np.exp(rng.uniform(np.log(0.5), np.log(2.0)))
    place = np.array([[scale, 0, left], [0, scale, top]])
    patch = cv2.warpAffine(
        texture, place, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
    )
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * np.linspace(-1, 1, columns)[None, :] + np.sin(angle) * np.linspace(-1, 1, rows)[:, None]
    light = np.float32(1 + 0.15 * slope) + np.float32(depth) * patch
    flat = np.empty((rows, columns, 3), dtype=np.uint8)
    flat[:] = np.clip(color, 0, 255)
    return _shaded(flat, light)


def _shaded(pixels, light) -> np.ndarray:
    """Multiplies (H, W, 3) pixels by an (H, W) map of light from 0 to 2."""
    bright = cv2.convertScaleAbs(np.clip(light, 0, 2), alpha=127.5)
    return cv2.multiply(pixels, cv2.merge([bright] * 3), scale=1 / 127.5)


def _tone(rng) -> np.ndarray:
    """A BGR colour as things around people have: pale, gray or dark, mostly a little warm; few are bright."""
    gray = rng.uniform(20, 245)
    if rng.random() < 0.12:
        return np.clip(gray + rng.normal(0, 45, 3), 5, 250)
    warmth, tint = rng.normal(0.08, 0.16), rng.normal(0, 0.035)
    return np.clip(gray * np.array([1 - warmth, 1 + tint, 1 + warmth]) + rng.normal(0, 4, 3), 5, 250)


def photo_of(rng: np.random.Generator, folder: str, width: int, height: int) -> np.ndarray:
    """Cuts a background out of a photo of a folder: (height, width, 3) uint8 BGR."""
    photo = nth_photo(folder, int(rng.integers(1 << 31)))
    scale = max(width / photo.shape[1], height / photo.shape[0]) * np.exp(rng.uniform(0, np.log(2)))
    slack = np.array(photo.shape[1::-1]) * scale - (width, height)
    left, top = -slack * rng.random(2)
    place = np.array([[scale, 0, left], [0, scale, top]])
    if rng.random() < 0.5:
        place = np.array([[-scale, 0, width - left], [0, scale, top]])
    return cv2.warpAffine(photo, place, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)


def bedding(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draws what a garment is laid on: a bed's cover with folds, boards or a carpet; (height, width, 3) uint8."""
    if rng.random() < 0.5:
        return _surface(rng, height, width, _tone(rng), rng.uniform(0.03, 0.25))
    kinds = drapery_maps()
    maps = kinds[str(rng.choice(list(kinds)))]
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.6)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    place = np.array([[cos, -sin, 0], [sin, cos, 0]])
    folds = cv2.warpAffine(
        maps[rng.integers(len(maps))],
        place,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    light = 1 + rng.uniform(0.03, 0.16) * folds
    return _shaded(_surface(rng, height, width, _tone(rng), 0.03), light)


def hanger(rng: np.random.Generator) -> list[Layer]:
    """Draws a hanger, which is seen in the neck of the garment that is on it."""
    surface = Surface(as_color(rng.choice(((30, 30, 32), (95, 140, 180), (200, 200, 205)))), relief_cm=1.5, shadow=0.2)
    wood = spline([(-17, 5.5), (-9, 1.2), (0, -2.5), (9, 1.2), (17, 5.5)], 4)
    hook = spline([(0, -2.5), (0, -8), (2.5, -10.5), (4.2, -13.5), (1.5, -17), (-2, -15.5)], 4)
    return [Layer(polygon_of(band(wood, 1.1)), surface), Layer(polygon_of(band(hook, 0.45)), surface)]


def mirror(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Puts the frame of a mirror, and the wall around it, over a finished picture; labels stay where they are.

    Args:
        rng: Random generator.
        image: (H, W, 3) uint8 BGR background that is seen in the mirror.
    """
    height, width = image.shape[:2]
    inset = rng.uniform(-0.05, 0.22, 4) * (width, height, width, height)
    x1, y1, x2, y2 = int(inset[0]), int(inset[1]), int(width - inset[2]), int(height - inset[3])
    wall = _surface(rng, height, width, _tone(rng), rng.uniform(0.02, 0.15))
    wall[max(y1, 0) : y2, max(x1, 0) : x2] = image[max(y1, 0) : y2, max(x1, 0) : x2]
    cv2.rectangle(wall, (x1, y1), (x2, y2), _tone(rng).tolist(), int(rng.integers(2, max(3, width // 40))), cv2.LINE_AA)
    return wall

"""Version 2's places: cluttered backgrounds, photos of a user's folder, mirrors, hangers, beds and floors."""

from functools import lru_cache

import cv2
import numpy as np

from mmdf2.wardrobe.canvas import Surface, filled
from mmdf2.wardrobe.cloth.fabric import periodic_noise, print_tile, sample_fabric
from mmdf2.wardrobe.cloth.texture import drapery_maps
from mmdf2.wardrobe.geometry import affine, band, polygon_of, spline
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
    # Most are as sharp as what is before them; otherwise models learn that what is sharp is a garment.
    shrink = SHRINK if rng.random() < 0.35 else 1
    columns, rows = width // shrink + 1, height // shrink + 1
    image = np.ascontiguousarray(_surface(rng, rows, columns, _tone(rng), rng.uniform(0.03, 0.2)))
    if rng.random() < 0.5:
        horizon = int(rows * rng.uniform(0.3, 0.9))
        image[horizon:] = _ground(rng, rows - horizon, columns)
    palette = [_tone(rng) for _ in range(6)]
    count = int(rng.choice((0, 8, 25, 70), p=(0.08, 0.22, 0.4, 0.3)))
    sizes = np.sort(np.exp(rng.uniform(np.log(0.03), np.log(0.7), count)))[::-1] * max(rows, columns)
    special = rng.random(count)
    for size, lot in zip(sizes, special, strict=True):
        color = palette[rng.integers(len(palette))]
        if lot < 0.1:
            _row_of_things(rng, image, size, color)
        elif lot < 0.16:
            _foliage(rng, image, size)
        elif lot < 0.22:
            _pole(rng, image, size, color)
        else:
            _thing(rng, image, size, color)
    blur = rng.choice((0.0, 0.7, 1.5, 3.0, 5.0), p=(0.55, 0.15, 0.12, 0.1, 0.08))
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur * 2 / shrink)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _row_of_things(rng, image, size, color) -> None:
    """Draws the same thing again and again, as windows of a house, books on a shelf or bars of a fence are."""
    rows, columns = image.shape[:2]
    across, down = int(rng.integers(2, 10)), int(rng.choice((1, 1, 2, 4, 7)))
    pitch = np.maximum(size * np.exp(rng.normal(0, 0.3, 2)) / (across, down) * (1, 0.8), 3)
    filled = pitch * rng.uniform(0.35, 0.9, 2)
    corner = rng.uniform((-0.3 * size, -0.3 * size), (columns, rows))
    slant = rng.normal(0, 0.12)  # a wall that is seen from the side
    if rng.random() < 0.6:
        whole = np.array([[0, 0], [across, slant * across], [across, down + slant * across], [0, down]])
        _fill(image, corner + whole * pitch, _varied(rng, color))
    shade, other = _varied(rng, color), _varied(rng, _tone(rng))
    for column in range(across):
        for row in range(down):
            place = corner + (np.array([column, row + slant * column]) + 0.05) * pitch
            box = np.array([[0, 0], [1, slant], [1, 1 + slant], [0, 1]]) * filled
            _fill(image, place + box, shade if rng.random() < 0.8 else other)


def _foliage(rng, image, size) -> None:
    """Draws leaves of a plant or a tree, light and dark."""
    rows, columns = image.shape[:2]
    center, spread = rng.uniform((0, 0), (columns, rows)), size * rng.uniform(0.2, 0.5, 2)
    green = np.array([45.0, 110.0, 70.0]) * rng.uniform(0.5, 1.5) + rng.normal(0, 15, 3)
    places = center + rng.normal(0, 1, (int(rng.integers(30, 140)), 2)) * spread
    radius = max(1.0, 0.035 * size)
    for (x, y), shade in zip(places, rng.uniform(0.45, 1.6, len(places)), strict=True):
        axes = (int(radius * (0.6 + shade)) + 1, int(radius) + 1)
        tone = np.clip(green * shade, 0, 255).tolist()
        cv2.ellipse(image, (int(x), int(y)), axes, float(shade * 360), 0, 360, tone, -1)


def _pole(rng, image, size, color) -> None:
    """Draws something long and thin: a pole, a cable, a frame or the edge of a wall."""
    rows, columns = image.shape[:2]
    start = rng.uniform((0, 0), (columns, rows))
    angle = rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.1)
    end = start + size * rng.uniform(1, 3) * np.array([np.cos(angle), np.sin(angle)])
    ends = np.round(np.stack([start, end])).astype(int).tolist()
    width = max(1, int(size * rng.uniform(0.01, 0.08)))
    cv2.line(image, ends[0], ends[1], _varied(rng, color), width, cv2.LINE_AA)


def _varied(rng, color) -> list[float]:
    return np.clip(np.array(color) * rng.uniform(0.7, 1.25) + rng.normal(0, 6, 3), 0, 255).tolist()


def _fill(image, outline, color) -> None:
    cv2.fillPoly(image, [np.round(outline * 16).astype(np.int32)], color, cv2.LINE_AA, 4)


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
    surface = _surface(rng, y2 - y1, x2 - x1, shade, rng.uniform(0.03, 0.25))
    if rng.random() < 0.2:
        surface = _printed(rng, y2 - y1, x2 - x1) if rng.random() < 0.4 else surface
        surface = _shaded(surface, 1 + rng.uniform(0.05, 0.2) * _folds(rng, y2 - y1, x2 - x1))
    cv2.copyTo(surface, mask, image[y1:y2, x1:x2])


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
    across, down = np.linspace(-0.15, 0.15, columns) * np.cos(angle), np.linspace(-0.15, 0.15, rows) * np.sin(angle)
    light = np.float32(depth) * patch
    light += (1 + across).astype(np.float32)
    light += down.astype(np.float32)[:, None]
    return _shaded(filled(color, rows, columns), light)


def _shaded(pixels, light) -> np.ndarray:
    """Multiplies (H, W, 3) pixels by an (H, W) map of light from 0 to 2."""
    bright = cv2.convertScaleAbs(np.maximum(light, 0), alpha=127.5)
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
    cover = _printed(rng, height, width) if rng.random() < 0.4 else _surface(rng, height, width, _tone(rng), 0.03)
    return _shaded(cover, 1 + rng.uniform(0.03, 0.16) * _folds(rng, height, width))


def _printed(rng, rows, columns) -> np.ndarray:
    """The print of a bed's cover, a curtain or a cushion: (rows, columns, 3) uint8."""
    tile, _ = print_tile(sample_fabric(rng, has_chest=False, plainness=0.0))
    assert tile is not None, 'a cloth without print was not asked for'
    scale, angle = np.exp(rng.uniform(np.log(0.6), np.log(3))), rng.normal(0, 0.4)
    place = affine(scale, angle, rng.uniform(0, 64, 2))
    return cv2.warpAffine(
        tile, place, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
    )


def _folds(rng, rows, columns) -> np.ndarray:
    """Folds of curtains, covers and other cloth: a (rows, columns) map around 0."""
    kinds = drapery_maps()
    maps = kinds[str(rng.choice(list(kinds)))]
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.6)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return cv2.warpAffine(
        maps[rng.integers(len(maps))],
        np.array([[cos, -sin, 0], [sin, cos, 0]]),
        (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )


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

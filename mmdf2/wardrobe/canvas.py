"""The image while it is painted: shaded polygons from back to front, and the number of the surface at each pixel."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from mmdf2.wardrobe.geometry import compose, scale_of

SHIFT = 4  # fractional bits of polygon coordinates
SHADOW_CM = 2.5
MIN_STROKE = 0.34  # pixels; thinner lines cannot be seen and are left out
SHADING_SCALE = 3  # shading is smooth, so it is computed for every third pixel only


@dataclass(frozen=True)
class Light:
    """The light of a scene.

    Attributes:
        direction: (x, y) from which the light comes, upper left in a studio.
        strength: Factor on how much the rounding of surfaces changes their brightness.
    """

    direction: tuple[float, float] = (0.55, 0.83)
    strength: float = 1.0


STUDIO_LIGHT = Light()


@dataclass(frozen=True)
class Surface:
    """What a polygon is made of.

    Attributes:
        color: BGR colour, 0 to 255 each.
        tile: (T, T, 3) uint8 BGR pattern that repeats, or None for a surface of one ``color``.
        tile_cm: (width, height) of one repeat of the pattern in centimetres.
        decal: (T, T, 4) uint8 BGR and alpha of a picture that is drawn once, or None.
        decal_box: (x, y, size) of the decal in centimetres of the cloth, x and y of its centre.
        folds: (T, T) float32 map of folds around 0 that repeats, or None.
        folds_cm: Size of one repeat of ``folds`` in centimetres.
        fold_depth: How much a fold of height 1 changes the brightness.
        relief_cm: Distance from its edge within which the surface is rounded.
        relief: How much the rounding changes the brightness; 0 draws the surface flat.
        shade: Factor on the brightness of the whole surface.
        shadow: How much the surface darkens what is close behind it.
        weave: (T, T) uint8 map of brightness that repeats, 128 for no change, or None.
        weave_cm: Size of one repeat of ``weave`` in centimetres.
        folds_place: (2, 3) map from the folds' centimetres to those of the cloth, or None where they are the same.
        opacity: Share of what is behind the surface that it hides.
    """

    color: tuple[float, float, float]
    tile: np.ndarray | None = None
    tile_cm: tuple[float, float] = (10.0, 10.0)
    decal: np.ndarray | None = None
    decal_box: tuple[float, float, float] = (0.0, 0.0, 0.0)
    folds: np.ndarray | None = None
    folds_cm: float = 60.0
    fold_depth: float = 0.0
    relief_cm: float = 5.0
    relief: float = 0.6
    shade: float = 1.0
    shadow: float = 0.3
    weave: np.ndarray | None = None
    weave_cm: float = 10.0
    folds_place: np.ndarray | None = None
    opacity: float = 1.0


class Canvas:
    """An image that is painted back to front.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        owner: (H, W) uint8, the number of the topmost surface of each pixel; 0 where there is none with a number.
    """

    def __init__(self, image: np.ndarray, ground_is_near: bool, light: Light = STUDIO_LIGHT):
        """Starts a canvas.

        Args:
            image: (H, W, 3) uint8 BGR background.
            ground_is_near: Whether things lie on the background, so that they cast their shadow on it.
            light: The light of the scene.
        """
        self.image = image
        self._light = light
        self._shaded = np.full(image.shape[:2], 255 if ground_is_near else 0, dtype=np.uint8)
        self.owner: np.ndarray = np.zeros(image.shape[:2], dtype=np.uint8)

    def paint(
        self, outline: np.ndarray, surface: Surface, frame: np.ndarray, owner: int, strokes=(), over=(), zone=None
    ) -> None:
        """Paints a polygon.

        Args:
            outline: (P, 2) pixels.
            surface: What the polygon is made of.
            frame: (2, 3) map from the cloth's centimetres to pixels.
            owner: Number that the polygon's pixels get in ``Canvas.owner``.
            strokes: Lines and shapes on the polygon, which are cut off at its outline: (points in pixels, BGR, width in
                pixels or 0 to fill) each.
            over: Numbers of surfaces that stay on top of the polygon within ``zone``.
            zone: (P, 2) outline in pixels; needed with ``over``.
        """
        scale = scale_of(frame)
        margin = SHADOW_CM * scale * 2 if surface.shadow else 0
        region = self._region(outline, margin)
        if region is None:
            return
        x1, y1, x2, y2 = region
        alpha = np.zeros((y2 - y1, x2 - x1), dtype=np.uint8)
        cv2.fillPoly(alpha, [_fixed(outline - (x1, y1))], 255, cv2.LINE_AA, SHIFT)
        if len(over):
            above = np.zeros_like(alpha)
            cv2.fillPoly(above, [_fixed(zone - (x1, y1))], 1, cv2.LINE_8, SHIFT)
            alpha[(above & owned(self.owner[y1:y2, x1:x2], over)) > 0] = 0
        frame = compose(np.array([[1.0, 0, -x1], [0, 1, -y1]]), frame)
        if surface.shadow:
            self._cast_shadow(region, alpha, surface.shadow, margin / 2)
        pixels = _pattern(surface, frame, scale, alpha.shape)
        for points, color, width in strokes:
            _draw(pixels, points - (x1, y1), color, width)
        if surface.relief or surface.fold_depth:
            shade = cv2.cvtColor(_shading(alpha, surface, frame, scale, self._light), cv2.COLOR_GRAY2BGR)
            pixels = cv2.multiply(pixels, shade, dst=pixels, scale=1 / 128)
        hiding = alpha if surface.opacity == 1 else cv2.convertScaleAbs(alpha, alpha=surface.opacity)
        _blend(self.image[y1:y2, x1:x2], pixels, hiding)
        self.owner[y1:y2, x1:x2][alpha > 127] = owner
        self._shaded[y1:y2, x1:x2] = cv2.max(self._shaded[y1:y2, x1:x2], alpha)

    def _cast_shadow(self, region, alpha, strength, reach) -> None:
        x1, y1, x2, y2 = region
        small = (max(1, (x2 - x1) // SHADING_SCALE), max(1, (y2 - y1) // SHADING_SCALE))
        size = 2 * int(reach / SHADING_SCALE) + 1
        offset = np.array([[1.0, 0, reach / SHADING_SCALE * 0.5], [0, 1.0, reach / SHADING_SCALE * 0.8]])
        soft = cv2.blur(cv2.resize(alpha, small, interpolation=cv2.INTER_AREA), (size, size))
        soft = cv2.warpAffine(soft, offset, small)
        light = cv2.resize(cv2.convertScaleAbs(soft, alpha=-strength, beta=255), (x2 - x1, y2 - y1))
        light = cv2.max(light, cv2.bitwise_not(self._shaded[y1:y2, x1:x2]))
        under = self.image[y1:y2, x1:x2]
        np.copyto(under, cv2.multiply(under, cv2.cvtColor(light, cv2.COLOR_GRAY2BGR), scale=1 / 255))

    def _region(self, outline, margin):
        height, width = self.owner.shape
        x1, y1 = np.floor(outline.min(axis=0) - margin).astype(int) - 1
        x2, y2 = np.ceil(outline.max(axis=0) + margin).astype(int) + 2
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def owned(owner: np.ndarray, numbers: Iterable[int]) -> np.ndarray:
    """Where one of some surfaces is seen: (H, W) uint8, 1 or 0.

    Args:
        owner: (H, W) uint8 part of ``Canvas.owner``.
        numbers: The numbers of the surfaces.
    """
    table = np.zeros(256, dtype=np.uint8)
    table[list(numbers)] = 1
    return cv2.LUT(owner, table)


def filled(color, height: int, width: int) -> np.ndarray:
    """An image of one BGR colour: (height, width, 3) uint8."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:1] = np.clip(color, 0, 255)
    pixels[1:] = pixels[0]  # copies of a row are ten times faster than those of a pixel
    return pixels


def _draw(pixels, points, color, width) -> None:
    if not width:
        cv2.fillPoly(pixels, [_fixed(points)], _scalar(color), cv2.LINE_AA, SHIFT)
    elif width > MIN_STROKE:
        cv2.polylines(pixels, [_fixed(points)], False, _scalar(color), max(1, round(width)), cv2.LINE_AA, SHIFT)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(np.clip(points, -20000, 20000) * (1 << SHIFT)).astype(np.int32).reshape(-1, 1, 2)


def _scalar(color):
    return tuple(float(channel) for channel in color)


def _blend(under: np.ndarray, pixels: np.ndarray, alpha: np.ndarray) -> None:
    weight = cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR)
    over = cv2.multiply(pixels, weight, scale=1 / 255)
    np.copyto(under, cv2.add(over, cv2.multiply(under, cv2.bitwise_not(weight), scale=1 / 255)))


def _pattern(surface: Surface, frame: np.ndarray, scale: float, shape) -> np.ndarray:
    height, width = shape
    if surface.tile is None:
        pixels = filled(surface.color, height, width)
    else:
        pixels = _repeat(surface.tile, surface.tile_cm, frame, scale, shape)
    if surface.weave is not None:
        weave = _repeat(surface.weave, (surface.weave_cm,) * 2, frame, scale, shape)
        pixels = cv2.multiply(pixels, cv2.cvtColor(weave, cv2.COLOR_GRAY2BGR), dst=pixels, scale=1 / 128)
    if surface.decal is not None:
        x, y, size = surface.decal_box
        decal = _shrunk(surface.decal, size * scale)
        step = size / decal.shape[0]
        place = compose(frame, np.array([[step, 0, x - size / 2], [0, step, y - size / 2]]))
        decal = cv2.warpAffine(decal, place, (width, height), flags=cv2.INTER_LINEAR)
        _blend(pixels, decal[..., :3].copy(), decal[..., 3].copy())
    return pixels


def _repeat(tile, tile_cm, frame, scale, shape) -> np.ndarray:
    tile = _shrunk(tile, max(tile_cm) * scale)
    step_x, step_y = tile_cm[0] / tile.shape[1], tile_cm[1] / tile.shape[0]
    place = compose(frame, np.array([[step_x, 0, 0.0], [0, step_y, 0.0]]))
    return cv2.warpAffine(tile, place, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _shrunk(tile: np.ndarray, pixels: float) -> np.ndarray:
    """Halves a tile until it has fewer than two texels per pixel, so that thin patterns do not alias."""
    while max(tile.shape[:2]) > 2 * pixels and min(tile.shape[:2]) >= 8:
        tile = cv2.resize(tile, (tile.shape[1] // 2, tile.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return tile


def _shading(alpha: np.ndarray, surface: Surface, frame: np.ndarray, scale: float, light: Light) -> np.ndarray:
    height, width = alpha.shape
    small = (max(1, width // SHADING_SCALE), max(1, height // SHADING_SCALE))
    solid = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA).astype(np.float32) * (1 / 255)
    radius = max(1.0, surface.relief_cm * scale / SHADING_SCALE)
    size = 2 * int(radius) + 1
    soft = cv2.blur(cv2.blur(solid, (size, size)), (size, size))
    slope = cv2.Sobel(soft, cv2.CV_32F, 1, 0, scale=light.direction[0] / 8) + cv2.Sobel(
        soft, cv2.CV_32F, 0, 1, scale=light.direction[1] / 8
    )
    shade = surface.shade * (1 + surface.relief * light.strength * (slope * size * 0.6 - 0.35 * (1 - soft)))
    if surface.folds is not None and surface.fold_depth:
        place = frame if surface.folds_place is None else compose(frame, surface.folds_place)
        shrink = np.array([[small[0] / width, 0, 0], [0, small[1] / height, 0]])
        place = compose(shrink, place)
        folds = _repeat(surface.folds, (surface.folds_cm,) * 2, place, scale_of(place), small[::-1])
        shade += surface.fold_depth * folds
    return cv2.resize(np.clip(shade * 128, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)

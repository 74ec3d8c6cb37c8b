"""What camera and light do to a finished image."""

import cv2
import numpy as np

from mmdf2.wardrobe.canvas import Light
from mmdf2.wardrobe.cloth.fabric import periodic_noise

_NOISE = periodic_noise(np.random.default_rng(9), 512, (400, 400))


def shop_photo(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Applies the even light of a studio: the exposure differs a little from image to image."""
    return cv2.convertScaleAbs(image, alpha=rng.uniform(0.95, 1.05))


def user_photo(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Makes the image one of a phone: colour cast, uneven light, sometimes blur, and noise."""
    cast = 1 + rng.normal(0, 0.045, 3)
    gain = rng.uniform(0.78, 1.12) * cast
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    x, y = _positions(image, 8)
    light = 1 + strength * (np.cos(angle) * x + np.sin(angle) * y)
    image = _lit(image, light[..., None] * gain)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.3))
    return _noisy(rng, image, rng.uniform(0, 6))


def _noisy(rng, image, strength) -> np.ndarray:
    if strength < 1:
        return image
    height, width = image.shape[:2]
    rows, columns = rng.integers(0, 512, 2)
    grain = (np.roll(_NOISE, (rows, columns), axis=(0, 1)) * strength).astype(np.int16)
    grain = np.tile(grain, (height // 512 + 1, width // 512 + 1))[:height, :width]
    return cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)


def sample_light(rng: np.random.Generator) -> Light:
    """Samples the light of a scene of version 2: from any side, hard or soft."""
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.7 else 0.98
    return Light((float(np.cos(angle)), float(np.sin(angle))), float(np.exp(rng.uniform(np.log(0.35), np.log(1.8)))))


def relight(rng: np.random.Generator, image: np.ndarray, user: bool) -> np.ndarray:
    """Applies version 2's light: white balance, exposure, contrast, saturation, one-sided light and flash.

    Args:
        rng: Random generator.
        image: (H, W, 3) uint8 BGR.
        user: Whether it is a user's photo; a shop's are lit more evenly.
    """
    strength = 1.0 if user else 0.4
    if rng.random() < 0.6:
        image = _saturated(image, float(np.exp(rng.normal(-0.25, 0.35 * strength))))
    if rng.random() < 0.5 * strength:
        image = _lit(image, _one_sided(rng, *_positions(image, 4), strength))
    if rng.random() < 0.25 * strength:
        image = _lit(image, _flash(rng, *_positions(image, 4)))
    warmth, tint = rng.normal(0, 0.07 * strength), rng.normal(0, 0.025 * strength)
    gains = np.exp([-warmth, tint, warmth])
    gamma, contrast = np.exp(rng.normal(0, 0.22 * strength)), rng.normal(0, 0.25 * strength)
    level = np.linspace(0, 1, 256)[:, None] ** gamma * gains
    curve = level + contrast * (level - 0.5) * (1 - np.abs(2 * level - 1))
    black, white = rng.uniform(0, 0.08), rng.uniform(0.9, 1.05)
    table = np.clip(255 * (black + (white - black) * curve), 0, 255).astype(np.uint8)
    return cv2.LUT(image, np.ascontiguousarray(table[None]))


def _saturated(image, factor) -> np.ndarray:
    gray = np.outer(np.ones(3), (0.114, 0.587, 0.299))
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * gray)


def _positions(image, step) -> tuple[np.ndarray, np.ndarray]:
    """x (1, W / step) and y (H / step, 1) of a coarse grid over an image, -0.5 to 0.5 each."""
    height, width = image.shape[:2]
    return np.linspace(-0.5, 0.5, width // step + 1)[None, :], np.linspace(-0.5, 0.5, height // step + 1)[:, None]


def _lit(image, light) -> np.ndarray:
    """Multiplies an image by a coarse map of light, of one channel or of three, in which 1 leaves it as it is."""
    height, width = image.shape[:2]
    scale = np.clip(light * 128, 0, 255).astype(np.uint8)
    scale = cv2.resize(scale, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, scale if scale.ndim == 3 else cv2.merge([scale] * 3), scale=1 / 128)


def _one_sided(rng, x, y, strength) -> np.ndarray:
    """Light that falls from one side, sometimes with the sharp edge of a shadow."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y + rng.normal(0, 0.15)
    soft = rng.choice((0.9, 0.5, 0.05))
    return 1 + strength * rng.uniform(0.15, 0.5) * np.clip(along / soft, -1, 0.7)


def _flash(rng, x, y) -> np.ndarray:
    """A flash: bright where it hits, dark towards the corners."""
    center = rng.normal(0, 0.15, 2)
    distance = np.hypot(x - center[0], y - center[1])
    return 0.65 + rng.uniform(0.3, 0.7) * np.exp(-((distance / rng.uniform(0.25, 0.5)) ** 2))


def degrade(rng: np.random.Generator, image: np.ndarray, user: bool) -> np.ndarray:
    """Loses what version 2's cameras and web sites lose: sharpness, resolution, and detail by JPEG.

    Args:
        rng: Random generator.
        image: (H, W, 3) uint8 BGR.
        user: Whether it is a user's photo; a shop's lose less.
    """
    height, width = image.shape[:2]
    often = 1.0 if user else 0.35
    if rng.random() < 0.15 * often:
        image = cv2.filter2D(image, -1, _motion(rng, max(height, width)))
    if rng.random() < 0.35 * often:
        factor = rng.uniform(0.3, 0.85)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.2:
        image = cv2.addWeighted(image, 1.6, cv2.GaussianBlur(image, (0, 0), 1.2), -0.6, 0)
    if rng.random() < 0.25 * often:
        image = _noisy(rng, image, rng.uniform(4, 14))
    if rng.random() < 0.5 * often:
        _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image


def _motion(rng, side) -> np.ndarray:
    """Kernel of a shaken camera: a line of up to 2 % of the image's longer side."""
    reach = max(1.0, rng.uniform(0.004, 0.01) * side)
    size = 2 * int(np.ceil(reach)) + 1
    kernel = np.zeros((size, size), dtype=np.float32)
    angle = rng.uniform(0, np.pi)
    half = reach * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(value) for value in np.round((size // 2 + sign * half) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    return kernel / max(kernel.sum(), 1e-6)

"""What camera and light do to a finished image."""

import cv2
import numpy as np

from mmdf2.wardrobe.canvas import Light
from mmdf2.wardrobe.fabric import periodic_noise

_NOISE = periodic_noise(np.random.default_rng(9), 512, (400, 400))


def shop_photo(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Applies the even light of a studio: the exposure differs a little from image to image."""
    return cv2.convertScaleAbs(image, alpha=rng.uniform(0.95, 1.05))


def user_photo(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Makes the image one of a phone: colour cast, uneven light, sometimes blur, and noise."""
    height, width = image.shape[:2]
    cast = 1 + rng.normal(0, 0.045, 3)
    gain = rng.uniform(0.78, 1.12) * cast
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    x, y = np.linspace(-0.5, 0.5, width // 8 + 1), np.linspace(-0.5, 0.5, height // 8 + 1)
    light = 1 + strength * (np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None])
    scale = np.clip(light[..., None] * gain * 128, 0, 255).astype(np.uint8)
    scale = cv2.resize(scale, (width, height), interpolation=cv2.INTER_LINEAR)
    image = cv2.multiply(image, scale, scale=1 / 128)
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
        image = _saturated(image, float(np.exp(rng.normal(-0.1, 0.35 * strength))))
    if rng.random() < 0.5 * strength:
        image = cv2.multiply(image, cv2.merge([_one_sided(rng, image.shape, strength)] * 3), scale=1 / 128)
    if rng.random() < 0.25 * strength:
        image = cv2.multiply(image, cv2.merge([_flash(rng, image.shape)] * 3), scale=1 / 128)
    warmth, tint = rng.normal(0, 0.09 * strength), rng.normal(0, 0.04 * strength)
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


def _one_sided(rng, shape, strength) -> np.ndarray:
    """Light that falls from one side, sometimes with the sharp edge of a shadow: (H, W) uint8, 128 for no change."""
    height, width = shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.linspace(-0.5, 0.5, width // 4 + 1), np.linspace(-0.5, 0.5, height // 4 + 1)
    along = np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None] + rng.normal(0, 0.15)
    soft = rng.choice((0.9, 0.5, 0.05))
    light = 1 + strength * rng.uniform(0.15, 0.5) * np.clip(along / soft, -1, 0.7)
    return cv2.resize(np.clip(light * 128, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)


def _flash(rng, shape) -> np.ndarray:
    """A flash: bright where it hits, dark towards the corners; (H, W) uint8, 128 for no change."""
    height, width = shape[:2]
    x, y = np.linspace(-0.5, 0.5, width // 4 + 1), np.linspace(-0.5, 0.5, height // 4 + 1)
    center = rng.normal(0, 0.15, 2)
    distance = np.hypot(x[None, :] - center[0], y[:, None] - center[1])
    light = 0.65 + rng.uniform(0.3, 0.7) * np.exp(-((distance / rng.uniform(0.25, 0.5)) ** 2))
    return cv2.resize(np.clip(light * 128, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)


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

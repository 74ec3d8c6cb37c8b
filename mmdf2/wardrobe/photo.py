"""What camera and light do to a finished image."""

import cv2
import numpy as np

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

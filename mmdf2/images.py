"""Images read and written without surprises: orientation applied, damage noticed, no half-written file."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

# What Pillow raises on files that are no image, cut short, damaged, or unreasonably large when decoded.
_DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path) -> np.ndarray:
    """Decodes a whole image file.

    The orientation tag is applied. What is transparent becomes white. (OpenCV would paint the missing part of a file
    that was cut short grey and go on.)

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError: The file is missing, is no image or is damaged.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if 'A' in image.getbands() or 'transparency' in image.info:
                image = image.convert('RGBA')
                image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
            return np.array(image.convert('RGB'))
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise OSError(f'{path} is not a readable image: {error}') from error


def write_image(path, image: np.ndarray) -> None:
    """Writes an image; a reader never sees half of it. The folder is made where it is missing.

    Args:
        path: The file; its suffix chooses the format.
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: A suffix that OpenCV cannot write.
    """
    path = Path(path)
    try:
        _, data = cv2.imencode(path.suffix or '.', np.ascontiguousarray(image[..., ::-1]))
    except cv2.error:
        raise ValueError(f"{path}: cannot write images of type '{path.suffix}'; use .jpg or .png") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'.{path.name}.{os.getpid()}')
    beside.write_bytes(data.tobytes())
    os.replace(beside, path)

"""Reading and writing images: the orientation is applied, damage is noticed, and no file is left half written."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from mmdf2.files import AnyPath, write_bytes

# Suffixes of the files of a folder that are taken for images.
READABLE_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff'})
# What Pillow raises for files that are no image, are cut short or damaged, or are unreasonably large when decoded.
_DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: AnyPath) -> np.ndarray:
    """Decodes a whole image file.

    The orientation tag is applied. Transparent parts become white. A file that was cut short is refused (OpenCV would
    paint the missing part grey and say nothing).

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError: The file is missing, is no image or is damaged; a missing file is a FileNotFoundError.
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


def write_image(path: AnyPath, image: np.ndarray) -> None:
    """Writes an image file, so that a reader never sees half of it. The folder is created if it is missing.

    Args:
        path: The file; its suffix chooses the format.
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: OpenCV cannot write files with this suffix.
    """
    path = Path(path)
    try:
        _, data = cv2.imencode(path.suffix or '.', np.ascontiguousarray(image[..., ::-1]))
    except cv2.error:
        raise ValueError(f"{path}: cannot write images of type '{path.suffix}'; use .jpg or .png") from None
    write_bytes(path, data.tobytes(), durable=False)

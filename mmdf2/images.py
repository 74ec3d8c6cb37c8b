"""The one way to open an image, and writing one: upright, whole, with the right colours, or refused by name.

Everything that looks at an image file comes here: inference, galleries, training, testing, preparing, drawing. So all
of them see the same pixels, and a box has the same place for each of them.
"""

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from mmdf2.files import AnyPath, printable, write_bytes

# Suffixes of the files of a folder that are taken for images.
READABLE_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff'})

# Modes that Pillow turns into RGB by themselves. LAB is missing since files do not say which white it is relative to.
_PLAIN_MODES = frozenset({'1', 'L', 'P', 'RGB', 'RGBX', 'RGBA', 'RGBa', 'LA', 'La', 'PA', 'CMYK', 'YCbCr', 'HSV'})
# (format, mode) of grey images of up to 16 bits whose white is known. In other formats and modes, such as 32-bit
# integers and floating-point numbers, nothing says which number is white.
_DEEP_GREY = frozenset(
    {(kind, mode) for kind in ('PNG', 'TIFF', 'JPEG2000') for mode in ('I;16', 'I;16B', 'I;16L')}
    | {('PNG', 'I'), ('PPM', 'I')}
)
# Pillow widens PNG's grey values of 2 and 4 bits by these factors, but not the value that means transparent.
_WIDENED = {'L;2': 85, 'L;4': 17}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SUBFILE, _ORIENTATION = 258, 262, 254, 0x0112
# Value of the orientation tag -> the upright picture, a view of (H, W, 3) pixels.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
_PIXELS_AT_ONCE = 1 << 20
_SWAPPED = (5, 6, 7, 8)  # values that exchange width and height
_JPEG_START = b'\xff\xd8\xff'
# How files of a format begin, and how they end when nothing is cut off.
_ENDS = {_JPEG_START: b'\xff\xd9', b'\x89PNG': b'\x00\x00\x00\x00IEND\xaeB`\x82'}


class ImageError(OSError):
    """A file that cannot be read as an image; the message names it and says why."""


def read_image(path: AnyPath) -> np.ndarray:
    """Reads a whole image file.

    The orientation tag is applied. Transparent parts become white. Grey values of 16 bits are reduced to 8. Of an
    animation, the first frame is read. These are refused: a file that was cut short, a TIFF of several pages, and
    colours whose black and white are unknown (32-bit integers, floating-point numbers, Lab). Colour profiles are not
    applied.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: The file is missing.
        ImageError: The file is no image, is damaged, or is one of those that are refused.
        OSError: The file cannot be opened.
    """
    with open(path, 'rb') as file:
        content = file.read()
    return decode_image(content, path)


def decode_image(content: bytes, name: AnyPath, channels: str = 'RGB') -> np.ndarray:
    """Decodes the content of an image file, as :func:`read_image` does.

    Args:
        content: All bytes of the file.
        name: Path of the file, for messages.
        channels: 'RGB' or 'BGR', the order of the channels.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    try:
        image = _decode_plain_jpeg(content)
        if image is None:
            rgb = _decode_with_pillow(content)
            return rgb if channels == 'RGB' else np.ascontiguousarray(rgb[..., ::-1])
        return image if channels == 'BGR' else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    # Pillow's readers raise errors of all kinds for damaged files: KeyError, struct.error, ZeroDivisionError.
    except Exception as error:
        raise _image_error(name, error) from error


def image_size(path: AnyPath, whole: bool = False) -> tuple[int, int]:
    """(width, height) of an image file, as :func:`read_image` gives it.

    Only the header is read, unless it does not suffice: JPEG and PNG files that do not end as they should, and TIFF
    files are decoded, and so are PNG files without an orientation before the pixels, which may have one behind them.

    Args:
        path: The image file.
        whole: Whether to decode the whole image, which finds any damage.

    Raises:
        FileNotFoundError: The file is missing.
        ImageError: The file is one that :func:`read_image` refuses, as far as it was read.
        OSError: The file cannot be opened.
    """
    with open(path, 'rb') as file:
        if not (whole or _may_be_cut_short(file)):
            try:
                size = _size_in_header(file)
            except Exception as error:
                raise _image_error(path, error) from error
            if size is not None:
                return size
        file.seek(0)
        height, width = decode_image(file.read(), path).shape[:2]
    return width, height


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


def _image_error(name: AnyPath, error: Exception) -> ImageError:
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, Image.UnidentifiedImageError):
        reason = 'it is in no format of images that is known here'
    return ImageError(f'{printable(name)} is not a readable image: {reason}')


def _decode_plain_jpeg(content: bytes) -> np.ndarray | None:
    """Decodes an ordinary JPEG file by OpenCV, in a fifth of the time that Pillow takes, to the same pixels.

    Returns:
        (H, W, 3) uint8 BGR; None for other files: those of other formats, unusual ones, and those that are cut short,
        whose missing part OpenCV would paint grey without a word.
    """
    if not (content.startswith(_JPEG_START) and content.endswith(_ENDS[_JPEG_START])):
        return None
    orientation = _plain_jpeg_orientation(content)
    if orientation is None:
        return None
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else _upright(image, orientation)


def _plain_jpeg_orientation(content: bytes) -> int | None:
    """The orientation of an ordinary JPEG file, 1 to 8: of one or three channels of 8 bits, and with one picture."""
    orientation, place = 1, 2
    while place + 10 <= len(content) and content[place] == 0xFF:
        marker, length = struct.unpack_from('>BH', content, place + 1)
        if marker in (0xC0, 0xC1, 0xC2):  # the size and the channels; sequential or progressive
            bits, height, width, channels = struct.unpack_from('>BHHB', content, place + 4)
            large = Image.MAX_IMAGE_PIXELS is not None and height * width > 2 * Image.MAX_IMAGE_PIXELS
            return orientation if bits == 8 and channels in (1, 3) and not large else None
        if marker == 0xE1 or (marker == 0xE2 and content.startswith(b'MPF', place + 4)):
            # What can hold an orientation, or say that the file has several pictures, is left to Pillow.
            with Image.open(BytesIO(content)) as image:
                if image.format != 'JPEG':
                    return None
                orientation = _orientation(image)
        place += 2 + length
    return None


def _decode_with_pillow(content: bytes) -> np.ndarray:
    """Decodes a file of any format; returns (H, W, 3) uint8 RGB."""
    with Image.open(BytesIO(content)) as image:
        if isinstance(image, TiffImageFile):
            _go_to_the_page(image)
        _check_readable(image)
        _widen_transparency(image)
        image.load()
        orientation = _orientation(image)
        rgb = _rgb(image)
    return _upright(rgb, orientation)


def _orientation(image: Image.Image) -> int:
    """The value of the orientation tag; 1, upright, where there is none that can be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises errors of all kinds for damaged tags
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, 3) pixels turned as the orientation tag says; values that it does not know turn nothing."""
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)) if orientation in _UPRIGHT else pixels


def _go_to_the_page(image: TiffImageFile) -> None:
    """Opens the one page of a TIFF file that is no reduced copy and no mask of another page; ValueError if several."""
    pages = []
    for number in range(image.n_frames):
        image.seek(number)
        if not image.tag_v2.get(_TIFF_SUBFILE, 0) & 0b101:
            pages.append(number)
    if len(pages) > 1:
        raise ValueError(f'it holds {len(pages)} pages; save each page as a file')
    image.seek(pages[0] if pages else 0)


def _check_readable(image: ImageFile) -> None:
    """Raises ValueError for images whose colours are not known, and for those that only a program can draw."""
    if image.format == 'EPS':
        raise ValueError('it is a program that draws an image (EPS); save it as PNG')
    if image.mode not in _PLAIN_MODES and (image.format, image.mode) not in _DEEP_GREY:
        raise ValueError(
            f'nothing says which of its values are black and white ({image.format}, mode {image.mode}); save it with '
            '8 bits per channel in grey or RGB'
        )


def _widen_transparency(image: ImageFile) -> None:
    """Makes the value of a PNG file that means transparent fit the pixels that Pillow is going to decode."""
    transparent = image.info.get('transparency')
    if image.format != 'PNG' or transparent is None or not image.tile:
        return
    stored = str(image.tile[0][3])
    if stored in _WIDENED and transparent <= 255 // _WIDENED[stored]:
        image.info['transparency'] = transparent * _WIDENED[stored]
    if stored == 'RGB;16B':
        raise ValueError('it has a transparent colour of 16 bits per channel; save it with 8 bits per channel')


def _rgb(image: ImageFile) -> np.ndarray:
    """(H, W, 3) uint8 of an image, white where it was transparent.

    It is made strip by strip, because a file of some hundred kilobytes may hold as many pixels as Pillow allows, and
    the steps in between would take gigabytes.
    """
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    deep = (image.format, image.mode) in _DEEP_GREY
    rows = max(1, _PIXELS_AT_ONCE // max(width, 1))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = _eight_bits(image, strip)[..., None] if deep else np.asarray(_plain_rgb(strip))
    return pixels


def _plain_rgb(strip: Image.Image) -> Image.Image:
    """A part of an image in mode RGB, white where it was transparent."""
    plain = strip.convert('LA') if strip.mode == 'La' else strip
    if {'A', 'a'} & set(plain.getbands()) or 'transparency' in plain.info:
        plain = plain.convert('RGBA')
        plain = Image.alpha_composite(Image.new('RGBA', plain.size, 'white'), plain)
    return plain.convert('RGB')


def _eight_bits(image: ImageFile, strip: Image.Image) -> np.ndarray:
    """(H, W) uint8 of a part of a grey image with up to 16 bits, to the nearest; white where it is transparent."""
    values = np.asarray(strip).astype(np.uint32)
    white, inverted = 65535, False
    if isinstance(image, TiffImageFile):
        white = 2 ** int(image.tag_v2[_TIFF_BITS][0]) - 1
        inverted = image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
    grey = ((values * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    if 'transparency' in image.info:
        grey[values == image.info['transparency']] = 255
    return grey


def _size_in_header(file: BinaryIO) -> tuple[int, int] | None:
    """(width, height) of an open image file, upright; None where the header does not suffice."""
    file.seek(0)
    with Image.open(file) as image:
        if image.format == 'TIFF':  # which has pages, and whose size Pillow gives upright or not, by its version
            return None
        _check_readable(image)
        width, height = image.size
        if image.format == 'PNG' and 'exif' not in image.info:
            image.load()
        return (height, width) if _orientation(image) in _SWAPPED else (width, height)


def _may_be_cut_short(file: BinaryIO) -> bool:
    """Whether an open JPEG or PNG file does not end as such files do."""
    start = file.read(4)
    for beginning, end in _ENDS.items():
        if start.startswith(beginning):
            size = file.seek(0, 2)
            file.seek(max(0, size - len(end)))
            return file.read() != end
    return False

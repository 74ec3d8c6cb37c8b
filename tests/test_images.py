"""Reading and writing of image files."""

import math
import os
import re
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mmdf2 import images
from mmdf2.images import ImageError, decode_image, image_size, read_image, write_image


@pytest.fixture(autouse=True, params=[1, 1 << 20], ids=['strips of a row', 'whole'])
def fixture_strips(request, monkeypatch):
    """Makes every image from many strips, and from one."""
    monkeypatch.setattr(images, '_PIXELS_AT_ONCE', request.param)


def test_png_comes_back_as_it_was_written(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    write_image(tmp_path / 'new folder' / 'a.png', image)
    np.testing.assert_array_equal(read_image(tmp_path / 'new folder' / 'a.png'), image)
    assert [path.name for path in (tmp_path / 'new folder').iterdir()] == ['a.png']


def test_orientation_tag_is_applied(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:10, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(image).save(tmp_path / 'turned.jpg', quality=95, exif=exif)
    read = read_image(tmp_path / 'turned.jpg')
    assert read.shape == (60, 40, 3)
    assert read[:9, 31:].min() > 200
    assert read[:9, :9].max() < 50


def save(path, image, **options):
    image.save(path, **options)
    return path


def grey_of(values, white):
    """The nearest of 256 greys, in exact fractions: an independent formula of what a deep grey image shows."""
    nearest = [[math.floor(Fraction(int(value) * 255, white) + Fraction(1, 2)) for value in row] for row in values]
    return np.repeat(np.array(nearest)[..., None], 3, axis=2)


def over_white(colours, alpha):
    """Colours (H, W, 3) with this opacity (H, W), 0 to 255, in front of white."""
    share = np.asarray(alpha, float)[..., None] / 255
    return np.asarray(colours, float) * share + 255 * (1 - share)


DEEP = np.array([[0, 1, 128, 129, 255], [256, 4095, 32767, 65407, 65535]])


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.jp2'])
def test_16_bits_of_grey_become_8(tmp_path, name):
    options = {'irreversible': False} if name.endswith('jp2') else {}
    path = save(tmp_path / name, Image.fromarray(DEEP.astype(np.uint16)), **options)
    np.testing.assert_array_equal(read_image(path), grey_of(DEEP, 65535))


def raw_tiff(values, bits, photometric, order='<'):
    """A TIFF file of one strip, byte for byte by the specification; values are the strip's bytes and its shape."""
    strip, (height, width) = values
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(strip))]
    strip += b'\0' * (len(strip) % 2)
    entries = b''
    for tag, kind, value in tags:
        short = struct.pack(f'{order}HH', value, 0) if kind == 3 else struct.pack(f'{order}I', value)
        entries += struct.pack(f'{order}HHI', tag, kind, 1) + short
    begin = (b'II' if order == '<' else b'MM') + struct.pack(f'{order}HI', 42, 8 + len(strip))
    return begin + strip + struct.pack(f'{order}H', len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(('photometric', 'order'), [(1, '<'), (1, '>'), (0, '<')])
def test_tiff_of_16_bits_whose_zero_is_black_or_white(tmp_path, photometric, order):
    path = tmp_path / 'a.tif'
    path.write_bytes(raw_tiff((DEEP.astype(f'{order}u2').tobytes(), DEEP.shape), 16, photometric, order))
    expected = grey_of(DEEP, 65535)
    np.testing.assert_array_equal(read_image(path), expected if photometric else 255 - expected)


def test_tiff_of_12_bits(tmp_path):
    values = np.array([[0, 8, 2048, 4095]])
    bits = ''.join(f'{value:012b}' for value in values[0])
    strip = bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))
    (tmp_path / 'a.tif').write_bytes(raw_tiff((strip, values.shape), 12, 1))
    np.testing.assert_array_equal(read_image(tmp_path / 'a.tif'), grey_of(values, 4095))


def test_maps_of_more_than_256_greys(tmp_path):
    (tmp_path / 'a.pgm').write_bytes(b'P5 5 2 65535 ' + DEEP.astype('>u2').tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / 'a.pgm'), grey_of(DEEP, 65535))


def raw_png(kind, bits, rows, *chunks):
    """A PNG file, byte for byte by the specification: kind of colour, bits per channel, rows of bytes, other chunks."""

    def chunk(name, content):
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    width = len(rows[0]) * 8 // bits // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    pixels = zlib.compress(b''.join(b'\0' + row for row in rows))
    header = struct.pack('>IIBBBBB', width, len(rows), bits, kind, 0, 0, 0)
    parts = [chunk(b'IHDR', header), *(chunk(*other) for other in chunks), chunk(b'IDAT', pixels), chunk(b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


@pytest.mark.parametrize('bits', [1, 2, 4, 8, 16])
def test_a_grey_value_that_means_transparent_is_white(tmp_path, bits):
    white = 2**bits - 1
    values = np.array([[0, white, 1, 0], [white // 2, 0, white, 1], [0] * 4, [1] * 4] * 2).T  # (4, 8)
    digits = [''.join(f'{value:0{bits}b}' for value in row) for row in values]
    rows = [bytes(int(row[place : place + 8], 2) for place in range(0, len(row), 8)) for row in digits]
    for transparent in (0, 1):
        (tmp_path / 'a.png').write_bytes(raw_png(0, bits, rows, (b'tRNS', struct.pack('>H', transparent))))
        expected = grey_of(values, white)
        expected[values == transparent] = 255
        np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), expected)


def test_png_of_16_bits_per_channel(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (3, 4, 4))
    for kind, channels in ((2, 3), (6, 4), (4, 2)):
        pixels = values[..., :channels]
        (tmp_path / 'a.png').write_bytes(raw_png(kind, 16, [row.astype('>u2').tobytes() for row in pixels]))
        colours = pixels[..., :3] if channels > 2 else np.repeat(pixels[..., :1], 3, axis=2)
        alpha = pixels[..., -1] if channels in (2, 4) else np.full((3, 4), 65535)
        # Pillow keeps the upper byte, which is at most one grey darker than the nearest.
        np.testing.assert_allclose(read_image(tmp_path / 'a.png'), over_white(colours / 257, alpha / 257), atol=2)
    rows = [row.astype('>u2').tobytes() for row in values[..., :3]]
    (tmp_path / 'a.png').write_bytes(raw_png(2, 16, rows, (b'tRNS', bytes(6))))
    with pytest.raises(ImageError, match=r'a\.png .*transparent colour of 16 bits'):
        read_image(tmp_path / 'a.png')


def test_palettes_with_transparent_and_half_transparent_colours(tmp_path):
    palette = np.array([[10, 20, 30], [200, 100, 50], [0, 0, 0], [255, 0, 255]])
    alpha = np.array([0, 128, 255, 77])
    numbers = np.array([[0, 1, 2], [3, 2, 1]])
    image = Image.fromarray(numbers.astype(np.uint8)).convert('L')
    image = Image.frombytes('P', image.size, image.tobytes())
    image.putpalette(palette.astype(np.uint8).tobytes())
    path = save(tmp_path / 'a.png', image, transparency=bytes(alpha.tolist()))
    np.testing.assert_allclose(read_image(path), over_white(palette[numbers], alpha[numbers]), atol=1)
    np.testing.assert_array_equal(read_image(save(tmp_path / 'b.png', image)), palette[numbers])
    path = save(tmp_path / 'c.gif', image, transparency=3)
    np.testing.assert_array_equal(read_image(path), over_white(palette[numbers], 255 * (numbers != 3)))


@pytest.mark.parametrize(('mode', 'name'), [('LA', 'a.png'), ('LA', 'a.tif'), ('RGBA', 'a.png'), ('RGBA', 'a.tif')])
def test_transparent_parts_are_white(tmp_path, mode, name):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, len(mode)), dtype=np.uint8)
    pixels[0, 0, -1], pixels[0, 1, -1] = 0, 255
    read = read_image(save(tmp_path / name, Image.frombytes(mode, (5, 4), pixels.tobytes())))
    colours = pixels[..., :3] if mode == 'RGBA' else np.repeat(pixels[..., :1], 3, axis=2)
    np.testing.assert_allclose(read, over_white(colours, pixels[..., -1]), atol=1)


def test_black_and_white_inks_and_luminance(tmp_path):
    bits = np.random.default_rng(2).integers(0, 2, (5, 9)).astype(bool)
    for name in ('a.png', 'a.tif', 'a.bmp'):
        read = read_image(save(tmp_path / name, Image.fromarray(bits)))
        np.testing.assert_array_equal(read, np.repeat(255 * bits[..., None], 3, axis=2))
    pixels = np.random.default_rng(3).integers(0, 256, (6, 7, 4), dtype=np.uint8)
    read = read_image(save(tmp_path / 'ink.tif', Image.frombytes('CMYK', (7, 6), pixels.tobytes())))
    inks = pixels / 255
    np.testing.assert_allclose(read, 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:]), atol=1)
    y, cb, cr = np.moveaxis(pixels[..., :3].astype(float), -1, 0)
    read = read_image(save(tmp_path / 'video.tif', Image.frombytes('YCbCr', (7, 6), pixels[..., :3].tobytes())))
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = (y - 0.299 * red - 0.114 * blue) / 0.587  # from the definition of luminance
    np.testing.assert_allclose(read, np.stack([red, green, blue], axis=-1).clip(0, 255), atol=1.5)


@pytest.mark.parametrize('ink', [(0, 0, 0, 0), (255, 0, 0, 0), (0, 200, 100, 0), (40, 40, 40, 128)])
def test_jpeg_of_inks(tmp_path, ink):
    path = save(tmp_path / 'a.jpg', Image.new('CMYK', (16, 16), ink), quality=100)
    expected = [255 * (1 - part / 255) * (1 - ink[3] / 255) for part in ink[:3]]
    np.testing.assert_allclose(read_image(path)[8, 8], expected, atol=3)


@pytest.mark.parametrize(
    ('image', 'reason'),
    [
        (Image.fromarray(np.ones((4, 5), np.int32)), 'mode I'),
        (Image.fromarray(np.ones((4, 5), np.float32)), 'mode F'),
        (Image.new('LAB', (5, 4)), 'mode LAB'),
    ],
)
def test_colours_without_a_known_black_and_white_are_refused_by_name(tmp_path, image, reason):
    path = save(tmp_path / 'a.tif', image)
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match=rf'a\.tif .*black and white \(TIFF, {reason}\); save it with 8 bits'):
            read(path)


def test_a_program_is_not_run(tmp_path):
    path = save(tmp_path / 'a.eps', Image.new('RGB', (8, 8)))
    with pytest.raises(ImageError, match=r'a\.eps .*program'):
        read_image(path)


def pages(count):
    return [Image.fromarray(np.full((6, 8, 3), 40 * page + 10, np.uint8)) for page in range(count)]


@pytest.mark.parametrize('name', ['a.gif', 'a.png', 'a.webp'])
def test_the_first_frame_of_an_animation_is_read(tmp_path, name):
    first, *others = pages(3)
    path = save(tmp_path / name, first, save_all=True, append_images=others, duration=50)
    assert Image.open(path).n_frames == 3
    np.testing.assert_allclose(read_image(path), np.full((6, 8, 3), 10), atol=1)


def test_pages_of_a_tiff_file(tmp_path):
    first, second = pages(2)
    path = save(tmp_path / 'a.tif', first, save_all=True, append_images=[second])
    with pytest.raises(ImageError, match=r'a\.tif .*2 pages; save each page'):
        read_image(path)
    # With a reduced copy, before or behind, there is one picture.
    for small, large in ((0, 1), (1, 0)):
        images = [first, second]
        images[small] = images[small].resize((4, 3))
        with TiffImagePlugin.AppendingTiffWriter(tmp_path / 'b.tif', new=True) as file:
            for page, image in enumerate(images):
                image.save(file, format='TIFF', tiffinfo={254: int(page == small)})
                file.newFrame()
        np.testing.assert_array_equal(read_image(tmp_path / 'b.tif'), np.full((6, 8, 3), 40 * large + 10))
        assert image_size(tmp_path / 'b.tif') == (8, 6)


# How the eight values of the orientation tag lay the upright picture down, by the definition of the 0th row and column.
LAID_DOWN = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
    0: lambda upright: upright,
    9: lambda upright: upright,
}


@pytest.mark.parametrize('orientation', LAID_DOWN)
@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp', 'a.tif', 'deep.png', 'deep.tif', 'ink.jpg', 'grey.jpg'])
def test_all_orientations(tmp_path, name, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8], upright[8:, 16:], upright[:8, 8:16] = 255, 160, 80
    stored = Image.fromarray(np.ascontiguousarray(LAID_DOWN[orientation](upright)))
    if name.startswith('deep'):
        stored = Image.fromarray(np.asarray(stored)[..., 0].astype(np.uint16) * 257)
    stored = stored.convert({'ink.jpg': 'CMYK', 'grey.jpg': 'L'}.get(name, stored.mode))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {'quality': 95} if name.endswith('jpg') else {'lossless': True} if name.endswith('webp') else {}
    path = save(tmp_path / name, stored, exif=exif, **options)
    np.testing.assert_allclose(read_image(path), upright, atol=12 if name.endswith('jpg') else 0)
    assert image_size(path) == image_size(path, whole=True) == (24, 16)
    bgr = decode_image(path.read_bytes(), path, 'BGR')
    np.testing.assert_array_equal(bgr[..., ::-1], read_image(path))


def test_orientation_behind_the_pixels_and_in_xmp(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = [bytes(range(9))]  # 3 x 1
    png = raw_png(2, 8, rows)
    content = exif.tobytes()[6:]
    tag = struct.pack('>I', len(content)) + b'eXIf' + content + struct.pack('>I', zlib.crc32(b'eXIf' + content))
    (tmp_path / 'late.png').write_bytes(png[:-12] + tag + png[-12:])
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.new('RGB', (3, 1)).save(tmp_path / 'xmp.jpg', xmp=xmp)
    for name in ('late.png', 'xmp.jpg'):
        assert read_image(tmp_path / name).shape == (3, 1, 3)
        assert image_size(tmp_path / name) == (1, 3)


def test_damaged_tags_turn_nothing(tmp_path):
    image = Image.fromarray(np.random.default_rng(4).integers(0, 256, (8, 16, 3), dtype=np.uint8))
    for number, junk in enumerate(
        [b'Exif\0\0', b'Exif\0\0MM\0*\0\0\xff\xff', b'Exif\0\0II*\0\x08\0\0\0\xff\xff' + b'\xff' * 40]
    ):
        path = save(tmp_path / f'{number}.jpg', image, exif=junk)
        assert read_image(path).shape == (8, 16, 3) and image_size(path) == (16, 8)


@pytest.mark.parametrize(
    'options', [{}, {'progressive': True}, {'subsampling': 0}, {'subsampling': 2}, {'keep_rgb': True}]
)
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_jpeg_has_the_pixels_that_pillow_sees(tmp_path, options, mode):
    coarse = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((61, 43), Image.Resampling.BILINEAR).convert(mode)
    path = save(tmp_path / 'a.jpg', image, quality=85, **options)
    expected = np.array(Image.open(path).convert('RGB')).astype(int)
    # Two builds of libjpeg may round differently.
    assert np.abs(read_image(path) - expected).max() <= 2


def test_damage_is_an_error_that_names_the_file(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / 'a.jpg')
    data = (tmp_path / 'a.jpg').read_bytes()
    for name, content in {'cut.jpg': data[: len(data) // 2], 'text.jpg': b'hello', 'empty.jpg': b''}.items():
        (tmp_path / name).write_bytes(content)
        for read in (read_image, image_size, lambda path: image_size(path, whole=True)):
            with pytest.raises(ImageError, match=rf'{name} is not a readable image'):
                read(tmp_path / name)
    for read in (read_image, image_size):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / 'nowhere.jpg')


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp', 'a.bmp', 'a.tif', 'turned.jpg'])
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6 if name == 'turned.jpg' else 1
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    data = save(tmp_path / name, Image.fromarray(pixels), exif=exif).read_bytes()
    for share in (0.02, 0.2, 0.5, 0.9, 0.99):
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        for read in (read_image, lambda path: image_size(path, whole=True)):
            with pytest.raises(ImageError, match=name):
                read(tmp_path / name)
        if name.endswith(('jpg', 'png')):
            with pytest.raises(ImageError, match=name):
                image_size(tmp_path / name)


def test_something_behind_the_end_of_a_jpeg_file_is_no_damage(tmp_path):
    path = save(tmp_path / 'a.jpg', Image.new('RGB', (24, 16), (200, 10, 10)), quality=95)
    whole = read_image(path)
    path.write_bytes(path.read_bytes() + bytes(100))
    np.testing.assert_array_equal(read_image(path), whole)
    assert image_size(path) == (24, 16)


def test_a_name_that_is_not_utf_8_can_be_printed(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b'/bl\xe9.jpg')
    with open(path, 'wb') as file:
        file.write(b'hello')
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert 'bl\\xe9.jpg' in str(caught.value) and str(caught.value).encode('utf-8')


@pytest.mark.parametrize('name', ['a.xyz', 'a'])
def test_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r'use \.jpg or \.png'):
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


_PEAK = """
import resource, sys
from mmdf2.images import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
shape = read_image(sys.argv[1]).shape
print(shape[0] * shape[1], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize(('mode', 'name'), [('RGBA', 'a.png'), ('LA', 'a.png'), ('I;16', 'a.png'), ('RGB', 'a.jpg')])
def test_a_small_file_of_many_pixels_takes_little_more_than_these(tmp_path, mode, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new(mode, (6000, 5000)).save(tmp_path / name, exif=exif)
    assert (tmp_path / name).stat().st_size < 1_000_000
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, '-c', _PEAK, str(tmp_path / name)]
    said = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    pixels, taken = map(int, said.split())
    # Three bytes of each pixel that is given back, as many before it is turned, and what the file's own pixels take.
    assert pixels == 30_000_000 and taken < 9 * pixels + 50_000_000


def test_nothing_else_in_the_project_opens_image_files():
    root = Path(__file__).resolve().parents[1]
    opener = re.compile(
        r'\b(cv2\.imread|mmcv\.imread|Image\.open|imfrombytes|imageio|LoadImageFromFile|LoadImageFromWeb)\b(?!``)'
    )
    found = {
        path.relative_to(root).as_posix()
        for folder in ('mmdf2', 'tools', 'benchmarks', 'scripts', 'configs')
        for path in (root / folder).rglob('*.py')
        if opener.search(path.read_text())
    }
    assert found == {'mmdf2/images.py'}

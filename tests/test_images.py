"""Reading and writing of image files."""

import numpy as np
import pytest
from PIL import Image

from mmdf2.images import read_image, write_image


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


@pytest.mark.parametrize('mode', ['L', 'P', 'CMYK', 'I;16', 'LA', 'RGBA', '1'])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    image = Image.new('RGBA', (8, 6), (0, 0, 0, 0)) if mode == 'RGBA' else Image.new(mode, (8, 6))
    name = 'a.tif' if mode == 'CMYK' else 'a.png'
    image.save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.shape == (6, 8, 3) and read.dtype == np.uint8
    assert (read == (255 if mode in ('RGBA', 'LA') else read[0, 0])).all()


def test_damage_is_an_error_that_names_the_file(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / 'a.jpg')
    data = (tmp_path / 'a.jpg').read_bytes()
    for name, content in {'cut.jpg': data[: len(data) // 2], 'text.jpg': b'hello', 'empty.jpg': b''}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OSError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / 'nowhere.jpg')


@pytest.mark.parametrize('name', ['a.xyz', 'a'])
def test_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r'use \.jpg or \.png'):
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())

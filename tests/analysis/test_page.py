"""The page is one file; it escapes every text, loads nothing and runs nothing."""

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mmdf2.analysis import page

HOSTILE = '"><script>alert(1)</script><img src=x onerror=1>'
VOID = {'meta', 'img', 'br'}


class Reader(HTMLParser):
    """Collects tags with their attributes; fails when tags are not closed in the right order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_hostile_text_stays_text():
    image = np.full((8, 12, 3), 200, np.uint8)
    blocks = [
        page.paragraph(HOSTILE),
        page.heading(HOSTILE),
        page.table([HOSTILE, 'b'], [[HOSTILE, 1]], words=(1,)),
        page.sheet([page.figure(image, f'{HOSTILE}\nsecond line')]),
    ]
    reader = Reader(page.build_page(HOSTILE, HOSTILE, [page.Section('one', HOSTILE, blocks)]))
    assert not reader.all('script') and len(reader.all('img')) == 1
    assert reader.words.count(HOSTILE) == 10
    assert all(not name.startswith('on') for _, attributes in reader.tags for name in attributes)


def test_the_page_loads_nothing():
    image = np.zeros((4, 4, 3), np.uint8)
    text = page.build_page('t', 'l', [page.Section('a', 'A', [page.figure(image, 'c')]), page.Section('b', 'B')])
    reader = Reader(text)
    links = [attributes[key] for _, attributes in reader.tags for key in ('src', 'href') if key in attributes]
    assert links[:2] == ['#a', '#b'] and links[2].startswith('data:image/jpeg;base64,') and len(links) == 3
    assert {attributes.get('id') for attributes in reader.all('section')} == {'a', 'b'}
    assert reader.all('meta')[1]['content'].startswith("default-src 'none'")


def test_pictures_are_embedded_whole():
    image = np.zeros((20, 30, 3), np.uint8)
    image[..., 0] = 250
    (source,) = (attributes['src'] for attributes in Reader(page.figure(image, 'c')).all('img'))
    decoded = np.array(Image.open(io.BytesIO(base64.b64decode(source.split(',')[1]))))
    assert decoded.shape == (20, 30, 3)
    assert np.abs(decoded.astype(int) - image).max() < 12


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match='must have 2 cells'):
        page.table(['a', 'b'], [['1']])


def test_numbers_are_plain_json(tmp_path):
    numbers = {1: np.int64(3), 'b': [np.float32(0.5), float('nan')], 'c': np.array([1, 2]), 'd': (True, None)}
    path = tmp_path / 'new' / 'n.json'
    page.write_numbers(path, numbers)
    assert json.loads(path.read_text()) == {'1': 3, 'b': [0.5, None], 'c': [1, 2], 'd': [True, None]}
    with pytest.raises(ValueError):
        page.write_numbers(path, {'a': float('inf')})
    assert json.loads(path.read_text())['1'] == 3 and list(path.parent.iterdir()) == [path]

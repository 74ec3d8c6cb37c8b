"""Gallery items and their table in SQLite."""

import sqlite3

import numpy as np
import pytest

from mmdf2.categories import CATEGORIES
from mmdf2.retrieval.items import GalleryItem, ItemTable, number_of

BOX = (0.0, 1.0, 20.5, 30.0)


def test_items_come_back_as_they_went_in(tmp_path):
    landmarks = tuple((float(k), 2.0, 1.0) for k in range(CATEGORIES[8].num_landmarks))
    items = [
        GalleryItem(
            image='a b/ü.jpg',
            box=BOX,
            category_id=9,
            landmarks=landmarks,
            fields={'price': 12.5, 'tags': ['x', None], 'quote': "it's"},
        ),
        GalleryItem('', BOX, 1),
    ]
    table = ItemTable()
    table.put([4, 10**12], items)
    assert table.get([10**12, 4, 5]) == {4: items[0], 10**12: items[1]}
    path = tmp_path / 'a ?mode=rwc#%41.sqlite'
    table.write(path)
    again = ItemTable(path)
    assert again.get([4]) == {4: items[0]} and len(again) == 2
    again.remove([4, 7])
    assert len(again) == 1 and len(ItemTable(path)) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_many_ids_at_once():
    table = ItemTable()
    table.put(range(3000), [GalleryItem(f'{row}', BOX, 1) for row in range(3000)])
    assert list(table.get(range(0, 4000))) == list(range(3000))


def test_writing_again_replaces_and_what_fails_writes_nothing():
    table = ItemTable()
    table.put([1], [GalleryItem('a', BOX, 1)])
    with pytest.raises(ValueError, match='fields of an item must be what JSON can hold'):
        table.put([2, 1], [GalleryItem('b', BOX, 1), GalleryItem('c', BOX, 1, fields={'x': {1, 2}})])
    assert len(table) == 1
    table.put([2, 1], [GalleryItem('b', BOX, 1), GalleryItem('c', BOX, 1)])
    assert [item.image for item in table.get([1, 2]).values()] == ['c', 'b']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('a', (0, 1, 2), 1), 'box of an item must be x1, y1, x2, y2, finite'),
        (('a', (0, 1, 2, float('inf')), 1), 'box of an item must be'),
        (('a', BOX, 0), 'category_id of an item must be 1 to 13, got 0'),
        (('a', BOX, True), 'category_id of an item must be'),
        (('a', BOX, 9, ((1, 2, 3),)), 'landmarks of a category 9 must be 8 rows x, y, v, finite'),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        GalleryItem(*arguments)


def test_fields_that_json_cannot_hold_are_refused_however_deep():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {1, 2}, float('nan'), b'bytes'):
        with pytest.raises(ValueError, match='fields of an item must be what JSON can hold'):
            ItemTable().put([0], [GalleryItem('a', BOX, 1, fields={'value': value})])


def test_files_that_are_no_table(tmp_path):
    path = tmp_path / 'items.sqlite'
    path.write_bytes(b'not a database at all, but long enough to be looked at' * 40)
    with pytest.raises(ValueError, match=r'items\.sqlite is no table of items'):
        ItemTable(path)
    path.unlink()
    with pytest.raises(ValueError, match='is no table of items'):
        ItemTable(path)
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE items (id INTEGER PRIMARY KEY)')
    connection.close()
    with pytest.raises(ValueError, match=r"has a table items of \('id',\) columns"):
        ItemTable(path)


ALIKE = ['17', 17, '00017', 17.5, True, 1, '1', '1_000', 1000, 0, False, 2**53, 2**53 + 1, 2**70, 2**70 + 1, 0.1 + 0.2]
ALIKE += [0.3, 7982301937829123456, 7982301937829123072, -1, 'ü', 'a"b', '', 1e300, '1e300', None, [17], 'true']


@pytest.mark.parametrize('kind', ['folder', 'milvus'])
def test_values_keep_their_type_and_every_digit(kind, request):
    names = ['sku', 'ü', 'a"b', '\\', 'a.b', '$', '"x": 1']
    items = [GalleryItem(f'{row}', BOX, 1, fields=dict.fromkeys(names, value)) for row, value in enumerate(ALIKE)]
    if kind == 'milvus':
        gallery = request.getfixturevalue('small')[0]
        gallery.add(np.zeros((len(items), gallery.similarity.width), np.float32), items)
        ids_where = gallery.ids_where
    else:
        table = ItemTable()
        table.put(range(len(items)), items)
        ids_where = table.ids_where
    for row, value in enumerate(ALIKE):
        if isinstance(value, str | int | float):
            for name in names if row < 3 else names[:1]:
                assert ids_where(name, [value]) == [row], (name, value)
    assert ids_where('sku', [17.0, np.int64(2**53)]) == [1, ALIKE.index(2**53)]
    assert ids_where('sku', [float(2**53 + 2)]) == ids_where('image', [17]) == ids_where('none', [1]) == []
    with pytest.raises(TypeError, match='searched by texts and numbers'):
        ids_where('sku', [None])


@pytest.mark.parametrize(
    ('text', 'number'),
    [
        ('17', 17),
        ('-0', 0),
        ('7982301937829123456', 7982301937829123456),
        ('7982301937829123456.0', 7982301937829123456),
        ('9.50', 9.5),
        ('1e3', 1000.0),
        ('00017', None),
        ('1_000', None),
        ('+1', None),
        (' 1', None),
        ('1\n', None),
        ('٣', None),
        ('nan', None),
        ('0x10', None),
        ('0.10000000000000000001', None),
        ('1e400', None),
        ('1e9999', None),
        ('9' * 300, int('9' * 300)),
    ],
)
def test_a_text_means_the_number_that_is_written_like_it(text, number):
    found = number_of(text)
    assert found == number and type(found) is type(number)

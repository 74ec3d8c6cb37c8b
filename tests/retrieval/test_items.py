"""Gallery items and their table in SQLite."""

import sqlite3

import pytest

from mmdf2.categories import CATEGORIES
from mmdf2.retrieval.items import GalleryItem, ItemTable

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

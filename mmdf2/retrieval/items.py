"""What a gallery knows of an item besides its embedding, and the table of all items in SQLite."""

import json
import math
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np

from mmdf2.categories import CATEGORIES, NUM_CATEGORIES
from mmdf2.files import printable

_SCHEMA = """
CREATE TABLE items (
    id INTEGER PRIMARY KEY, category INTEGER NOT NULL, image TEXT NOT NULL,
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL, landmarks TEXT, fields TEXT NOT NULL
) STRICT
"""
COLUMNS = ('id', 'category', 'image', 'x1', 'y1', 'x2', 'y2', 'landmarks', 'fields')
_NUMBER = re.compile(r'-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?')
_LONGEST_NUMBER = 400  # characters
_VALUES_AT_ONCE = 500  # in one statement; every SQLite takes at least 999


@dataclass(frozen=True)
class GalleryItem:
    """A garment on a shop photo.

    Attributes:
        image: The photo's name or path, as the caller has it.
        box: (x1, y1, x2, y2) in pixels.
        category_id: 1 to 13.
        landmarks: One row (x, y, v) per landmark of the category; None when they are unknown.
        fields: The caller's own data, whatever JSON can hold, such as SKU, price or link.
    """

    image: str
    box: tuple[float, float, float, float]
    category_id: int
    landmarks: tuple[tuple[float, float, float], ...] | None = None
    fields: dict = field(default_factory=dict)

    def __post_init__(self):
        box = tuple(float(side) for side in self.box)
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise ValueError(f'box of an item must be x1, y1, x2, y2, finite, got {self.box!r}')
        if isinstance(self.category_id, bool) or self.category_id not in range(1, NUM_CATEGORIES + 1):
            raise ValueError(f'category_id of an item must be 1 to {NUM_CATEGORIES}, got {self.category_id!r}')
        object.__setattr__(self, 'box', box)
        object.__setattr__(self, 'category_id', int(self.category_id))
        if self.landmarks is not None:
            object.__setattr__(self, 'landmarks', self._checked_landmarks(self.landmarks))

    def _checked_landmarks(self, landmarks) -> tuple:
        rows = tuple(tuple(float(value) for value in row) for row in landmarks)
        count = CATEGORIES[self.category_id - 1].num_landmarks
        if len(rows) != count or any(len(row) != 3 or not all(map(math.isfinite, row)) for row in rows):
            raise ValueError(f'landmarks of a category {self.category_id} must be {count} rows x, y, v, finite')
        return rows


class ItemTable:
    """Items by id, in an SQLite file or in memory; threads may read and write it at once.

    Args:
        path: A file to copy into memory, which is only read; None for an empty table.

    Raises:
        ValueError: The file holds no table of items.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(':memory:', check_same_thread=False)
        if path is None:
            self._connection.execute(_SCHEMA)
            return
        try:
            source = sqlite3.connect(f'{Path(path).absolute().as_uri()}?mode=ro&immutable=1', uri=True)
            # The file may be a stranger's, and its schema must not call functions that have effects.
            source.execute('PRAGMA trusted_schema = OFF')
            with source:
                kinds = source.execute('SELECT type FROM sqlite_master').fetchall()
                if kinds != [('table',)]:
                    raise ValueError(f'{path} holds other things than a table items: {kinds}')
                found = tuple(row[1] for row in source.execute('PRAGMA table_info(items)'))
                if found != COLUMNS:
                    raise ValueError(f'{path} has a table items of {found or "no"} columns; {COLUMNS} are needed')
                # A copy, because additions stay in memory until the gallery is saved.
                source.backup(self._connection)
            source.close()
        except sqlite3.Error as error:
            raise ValueError(f'{path} is no table of items: {error}') from error

    def __len__(self) -> int:
        with self._lock:
            return self._connection.execute('SELECT count(*) FROM items').fetchone()[0]

    def put(self, ids: Sequence[int], items: Sequence[GalleryItem]) -> None:
        """Writes items under ids, in place of the items that had them: all of them or, on an error, none.

        Raises:
            ValueError: An item's fields are not what JSON can hold.
        """
        rows = [_to_row(number, item) for number, item in zip(ids, items, strict=True)]
        with self._lock, self._connection:
            marks = ', '.join('?' * len(COLUMNS))
            self._connection.executemany(f'INSERT OR REPLACE INTO items VALUES ({marks})', rows)

    def remove(self, ids: Iterable[int]) -> None:
        """Removes the items of some ids; unknown ids are skipped."""
        with self._lock, self._connection:
            self._connection.executemany('DELETE FROM items WHERE id = ?', [(int(number),) for number in ids])

    def get(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """Id -> item, for those ids that are there."""
        ids = [int(number) for number in ids]
        found: dict[int, GalleryItem] = {}
        with self._lock:
            for start in range(0, len(ids), _VALUES_AT_ONCE):
                part = ids[start : start + _VALUES_AT_ONCE]
                query = f'SELECT * FROM items WHERE id IN ({", ".join("?" * len(part))})'
                found.update((row[0], _from_row(row)) for row in self._connection.execute(query, part))
        return found

    def ids_by_category(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) category_ids and (n,) ids of all items, ordered by category and then by id."""
        with self._lock:
            rows = self._connection.execute('SELECT category, id FROM items ORDER BY category, id').fetchall()
        categories, ids = np.array(rows, dtype=np.int64).reshape(-1, 2).T
        return categories, ids

    def ids_where(self, name: str, values: Iterable) -> list[int]:
        """Rising ids of the items whose field, or for the name 'image' whose image, has one of some values.

        Raises:
            TypeError: ``values`` is a text and not a list, or one of them is neither text, number nor truth value.
        """
        wanted = exact_values(values)
        if name != 'image':
            return self._ids_with_field(name, wanted)
        # SQLite takes no text that is not UTF-8, as a file's name may be, so no item has it.
        texts = [str(value) for kind, value in wanted if kind == 'text' and value == printable(str(value))]
        found: set[int] = set()
        with self._lock:
            for start in range(0, len(texts), _VALUES_AT_ONCE):
                part = texts[start : start + _VALUES_AT_ONCE]
                query = f'SELECT id FROM items WHERE image IN ({", ".join("?" * len(part))})'
                found.update(row[0] for row in self._connection.execute(query, part))
        return sorted(found)

    def _ids_with_field(self, name: str, wanted: set[tuple]) -> list[int]:
        # SQLite rounds long numbers and knows no truth values, so it only skips the items that lack the field's name.
        with self._lock:
            rows = self._connection.execute(
                'SELECT id, fields FROM items WHERE instr(fields, ?) ORDER BY id', (json.dumps(name) + ':',)
            )
            return [number for number, fields in rows if has_value(json.loads(fields), name, wanted)]

    def write(self, path: Path) -> None:
        """Copies the table into a new file, without waiting until it is on the disk."""
        with self._lock:
            target = sqlite3.connect(path)
            # A file that was not finished is of no use, so SQLite need not be able to repair it.
            target.executescript('PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF')
            with target:
                self._connection.backup(target)
            target.close()


def is_scalar(value) -> bool:
    """Whether a field's value is one that items can be searched by: a text, a number or a truth value."""
    return isinstance(value, str | int | float)


def exact(value) -> tuple[str, str | int | float]:
    """The type and the value of a field, equal for equal ones: '1', 1 and True differ, 1 and 1.0 do not.

    Raises:
        TypeError: It is neither text, number nor truth value.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if not is_scalar(value):
        raise TypeError(f'fields are searched by texts and numbers, got {value!r}')
    kind = 'text' if isinstance(value, str) else 'truth' if isinstance(value, bool) else 'number'
    # Python compares integers and floats by every digit.
    return kind, value


def exact_values(values: Iterable) -> set[tuple]:
    """What ``exact`` makes of each of the values that a search looks for.

    Raises:
        TypeError: ``values`` is a text and not a list, or one of them is neither text, number nor truth value.
    """
    if isinstance(values, str):
        raise TypeError(f'values must be a list of those looked for, got the string {values!r}')
    return {exact(value) for value in values}


def has_value(fields: dict, name: str, wanted: set[tuple]) -> bool:
    """Whether the field of a name has one of some values, given as ``exact`` has them."""
    value = fields.get(name)
    return is_scalar(value) and exact(value) in wanted


def number_of(text: str) -> int | float | None:
    """The number that JSON writes like a text, with every digit: None for '00017', '1_000' and 'nan'.

    None as well for a number whose digits neither an integer nor a float of 64 bits keeps, as 0.10000000000000000001.
    """
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    if number == Decimal(repr(float(text))):
        return int(text) if text.lstrip('-').isdigit() else float(text)
    return int(number) if len(text) < _LONGEST_NUMBER and number.adjusted() < 400 and number == int(number) else None


def json_of(value, item: GalleryItem) -> str:
    """What JSON writes for a value that holds the fields of an item.

    Raises:
        ValueError: The fields are not what JSON can hold.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        try:
            fields = repr(item.fields)[:200]
        except RecursionError:
            fields = 'lists in lists'
        raise ValueError(f'fields of an item must be what JSON can hold, got {fields}: {error}') from error


def _to_row(number: int, item: GalleryItem) -> tuple:
    fields = json_of(item.fields, item)
    landmarks = None if item.landmarks is None else json.dumps(item.landmarks)
    return (int(number), item.category_id, item.image, *item.box, landmarks, fields)


def _from_row(row) -> GalleryItem:
    _, category_id, image, x1, y1, x2, y2, landmarks, fields = row
    return GalleryItem(
        image=image,
        box=(x1, y1, x2, y2),
        category_id=category_id,
        landmarks=None if landmarks is None else json.loads(landmarks),
        fields=json.loads(fields),
    )

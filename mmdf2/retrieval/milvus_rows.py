"""How an item lies in Milvus: the columns, rows from items and back, and marks to find fields by."""

import hashlib
import json
from collections.abc import Iterable, Iterator

import numpy as np

from mmdf2.retrieval.items import GalleryItem

MOST_WIDTH = 4096  # of an embedding; what an array of Milvus holds
_MOST_MARKS = 4096
_BATCH_ROWS = 500
_BATCH_BYTES = 8 << 20  # Milvus refuses messages of 64 MiB
_MOST_TEXT = 65_535  # bytes of a text in Milvus


def item_schema(width: int, searched_width: int):
    """The columns of a gallery.

    The embedding is there besides the searched vector, which has fewer digits and nothing of columns of weight 0.

    Args:
        width: Of embeddings, to 4096.
        searched_width: Of the vectors in the searched space.
    """
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field('id', DataType.INT64, is_primary=True)
    schema.add_field('category', DataType.INT64, is_partition_key=True)
    schema.add_field('vector', DataType.FLOAT_VECTOR, dim=searched_width)
    schema.add_field('embedding', DataType.ARRAY, element_type=DataType.FLOAT, max_capacity=width)
    schema.add_field('marks', DataType.ARRAY, element_type=DataType.INT64, max_capacity=_MOST_MARKS)
    schema.add_field('image', DataType.VARCHAR, max_length=_MOST_TEXT)
    schema.add_field('details', DataType.VARCHAR, max_length=_MOST_TEXT)
    return schema


def to_row(number: int, item: GalleryItem) -> dict:
    """The row of an item without its two vectors.

    Raises:
        ValueError: Fields that JSON cannot hold, or more text than Milvus takes.
    """
    try:
        # By the file's format and not Milvus's own JSON, which knows no numbers beyond 64 bits.
        details = json.dumps([item.box, item.landmarks, item.fields], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f'fields of an item must be what JSON can hold, got {item.fields!r}: {error}') from error
    for name, text in (('image', item.image), ('box, landmarks and fields', details)):
        size = len(text.encode())
        if size > _MOST_TEXT:
            raise ValueError(f"{name} of item '{item.image[:80]}' take {size} bytes, Milvus holds {_MOST_TEXT}")
    # As they will be read: JSON makes texts of all names.
    fields = json.loads(details)[2]
    marks = {mark('field', name, value) for name, value in fields.items() if _is_scalar(value)}
    marks.add(mark('image', '', item.image))
    if len(marks) > _MOST_MARKS:
        raise ValueError(f"item '{item.image[:80]}' has {len(marks) - 1} fields, Milvus holds {_MOST_MARKS - 1}")
    return dict(id=int(number), category=item.category_id, image=item.image, details=details, marks=sorted(marks))


def from_row(row: dict) -> GalleryItem:
    """The item of a row."""
    box, landmarks, fields = json.loads(row['details'])
    return GalleryItem(row['image'], box, int(row['category']), landmarks, fields)


def batches(rows: list[dict]) -> Iterator[list[dict]]:
    """Rows in order, by number and by bytes."""
    batch, size = [], 0
    for row in rows:
        if batch and (len(batch) == _BATCH_ROWS or size + _size(row) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += _size(row)
    if batch:
        yield batch


def _size(row: dict) -> int:
    """Bytes of a row as it travels, nearly."""
    return 4 * (len(row['vector']) + len(row['embedding'])) + 8 * len(row['marks']) + 2 * len(row['details']) + 64


def mark(kind: str, name: str, value) -> int:
    """A number of 63 bits for a field's name and value.

    Searching by numbers leaves no text of a caller's in Milvus's filter language, so none can change its meaning.
    """
    text = json.dumps([kind, name, comparable(value)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big') >> 1


def comparable(value):
    """A text or number such that equal ones are of one form: True, 1 and 1.0 are.

    Raises:
        TypeError: Neither text nor number.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if not _is_scalar(value):
        raise TypeError(f'fields are searched by texts and numbers, got {value!r}')
    if isinstance(value, float) and not value.is_integer():
        return value
    return value if isinstance(value, str) else int(value)


def matches(item: GalleryItem, name: str, wanted: set) -> bool:
    """Whether a field, or by the name 'image' the image, is one of some comparable values; marks can collide."""
    value = item.image if name == 'image' else item.fields.get(name)
    return _is_scalar(value) and comparable(value) in wanted


def wanted_marks(name: str, values: Iterable) -> tuple[set, list[int]]:
    """The comparable values of a search by field, and their marks.

    Raises:
        TypeError: One text in place of a list, or values that are neither text nor number.
    """
    if isinstance(values, str):
        raise TypeError(f'values must be a list of those looked for, got the string {values!r}')
    wanted = {comparable(value) for value in values}
    kind = ('image', '') if name == 'image' else ('field', name)
    return wanted, sorted(mark(*kind, value) for value in wanted)


def _is_scalar(value) -> bool:
    return isinstance(value, str | int | float)

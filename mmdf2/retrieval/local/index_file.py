"""The file of a gallery's indexes, in the safetensors format: arrays and texts, from which nothing is executed.

    <category_id>.<array>    the arrays of a category's index, see the method ``arrays`` of the indexes
    <category_id>.kept       (places / 8,) uint8, a bit for each place: whether its item is still there

The file's metadata says what the indexes belong to ('similarity' and 'vectors'), and how each was built
('<category_id>', as JSON).
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from mmdf2.files import parse_json
from mmdf2.retrieval.local.graph import GraphSettings, NeighbourGraph
from mmdf2.retrieval.local.lists import InvertedLists, ListSettings
from mmdf2.retrieval.local.rows import ChunkedRows, as_rows
from mmdf2.retrieval.similarity import Similarity

_KINDS: dict[str, tuple] = {'lists': (ListSettings, InvertedLists), 'graph': (GraphSettings, NeighbourGraph)}
_TYPES = {'F32': np.float32, 'F64': np.float64, 'I32': np.int32, 'I64': np.int64, 'U8': np.uint8}
_LARGEST_SETTING = 1 << 40
_MEASURED = ('recall', 'shared_probes')  # what building found out, beside the settings


@dataclass(frozen=True, eq=False)
class SavedIndex:
    """An index of one category, and which rows of the category's embeddings its places are.

    Attributes:
        index: The index; it finds the places that are still there.
        rows: (places,) int64, the row of each place, -1 for a removed one; those that are there rise from 0.
    """

    index: InvertedLists | NeighbourGraph
    rows: np.ndarray


def write_indexes(path: Path, indexes: Mapping[int, SavedIndex], similarity: Similarity, vectors_sha256: str) -> None:
    """Writes the indexes of some categories.

    Args:
        path: The file.
        indexes: category_id -> index.
        similarity: The learned similarity that all of them serve.
        vectors_sha256: Hash of the file of embeddings whose rows they find.
    """
    metadata = {'similarity': similarity.fingerprint(), 'vectors': vectors_sha256}
    arrays: dict[str, ChunkedRows] = {}
    for category, saved in indexes.items():
        kind = next(name for name, (_, index_class) in _KINDS.items() if isinstance(saved.index, index_class))
        measured = {name: getattr(saved.index, name, None) for name in _MEASURED}
        metadata[str(category)] = json.dumps({'kind': kind, 'settings': asdict(saved.index.settings), **measured})
        for name, array in saved.index.arrays().items():
            arrays[f'{category}.{name}'] = as_rows(array)
        arrays[f'{category}.kept'] = ChunkedRows([np.packbits(saved.rows >= 0, bitorder='little')])
    _write(path, arrays, metadata)


def _write(path: Path, arrays: Mapping[str, ChunkedRows], metadata: Mapping[str, str]) -> None:
    """Writes a file part by part; the library's own function would hold all arrays in memory twice more."""
    names = {np.dtype(dtype): name for name, dtype in _TYPES.items()}
    header: dict = {'__metadata__': dict(metadata)}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.dtype.itemsize * math.prod(array.shape)
        header[name] = {'dtype': names[array.dtype], 'shape': list(array.shape), 'data_offsets': [begin, end]}
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for array in arrays.values():
            for part in array.contiguous_parts():
                file.write(part.data)


def read_indexes(
    path: Path, similarity: Similarity, vectors_sha256: str, counts: Iterable[int]
) -> dict[int, SavedIndex]:
    """Reads the indexes that ``write_indexes`` wrote: category_id -> index.

    Args:
        path: The file.
        similarity: The learned similarity of the gallery.
        vectors_sha256: Hash of the gallery's file of embeddings.
        counts: (13,) number of items of each category.

    Raises:
        ImportError: faiss is not installed.
        ValueError: The file is damaged, or it is of other embeddings, or of another similarity.
    """
    try:
        with safe_open(path, framework='np') as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: _StoredArray(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118 (no dict)
            for name, right in (('similarity', similarity.fingerprint()), ('vectors', vectors_sha256)):
                if metadata.pop(name, None) != right:
                    raise ValueError(f'it is the index of another gallery or of an earlier one: its {name} differ')
            return _read(metadata, arrays, similarity, list(counts))
    except (OSError, SafetensorError) as error:
        raise ValueError(f'it cannot be read: {error}') from error


def _read(metadata, arrays, similarity: Similarity, counts: list[int]) -> dict[int, SavedIndex]:
    found = {}
    categories = {str(number): count for number, count in enumerate(counts, start=1)}
    if not set(metadata) <= set(categories) or not {name.partition('.')[0] for name in arrays} <= set(metadata):
        raise ValueError(f'it has indexes of {sorted(metadata)}, which are no categories, or arrays of others')
    for category, text in metadata.items():
        own = {name.partition('.')[2]: array for name, array in arrays.items() if name.partition('.')[0] == category}
        try:
            settings, index_class, measured = _settings(text)
            bits = own.pop('kept')[:]
            index = index_class.from_arrays(similarity, settings, own).with_recall(measured['recall'])
            if isinstance(index, InvertedLists):
                index = index.with_shared_probes(measured['shared_probes'])
            found[int(category)] = _restricted(index, bits, categories[category])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'the index of category {category}: {error}') from error
    return found


def _settings(text: str) -> tuple:
    """The settings of an index from its metadata, its class, and what was measured when it was built."""
    entry = parse_json(text)
    if not isinstance(entry, dict) or entry.get('kind') not in _KINDS:
        raise ValueError(f'{text[:80]!r} names no kind of index that this mmdf2 knows; it knows {sorted(_KINDS)}')
    settings_class, index_class = _KINDS[entry['kind']]
    settings = settings_class(**entry['settings'])
    measured = {name: entry.get(name) for name in _MEASURED}
    recall = measured['recall']
    if recall is not None and (type(recall) is not float or not 0 <= recall <= 1):
        raise ValueError(f'recall must be a number from 0 to 1, got {recall!r}')
    for name, value in (*asdict(settings).items(), ('shared_probes', measured['shared_probes'])):
        if value is not None and (type(value) is not int or not 0 < value < _LARGEST_SETTING):
            raise ValueError(f'{name} must be a positive integer, got {value!r}')
    return settings, index_class, measured


def _restricted(index: InvertedLists | NeighbourGraph, bits: np.ndarray, count: int) -> SavedIndex:
    """An index without the places whose items were removed before it was saved."""
    if bits.dtype != np.uint8 or len(bits) != -(-index.places // 8):
        raise ValueError(f'{len(bits)} bytes of bits do not fit {index.places} places')
    kept = np.unpackbits(bits, count=index.places, bitorder='little').astype(bool)
    if kept.sum() > count:
        raise ValueError(f'it finds {kept.sum()} items, and the gallery has {count}')
    rows = np.where(kept, np.cumsum(kept) - 1, -1)
    return SavedIndex(index if kept.all() else index.restricted(kept), rows)


class _StoredArray:
    """An array of a file; slices of its rows are read when they are asked for."""

    def __init__(self, stored) -> None:
        self._stored = stored
        self.shape = tuple(stored.get_shape())
        self.dtype = np.dtype(_TYPES.get(stored.get_dtype(), object))

    def __getitem__(self, rows: slice) -> np.ndarray:
        if not self.shape:
            raise ValueError('it holds a number in the place of an array')
        begin, end, _ = rows.indices(self.shape[0])
        # The library refuses slices that are empty or go beyond the end.
        return self._stored[begin:end] if begin < end else np.zeros((0, *self.shape[1:]), self.dtype)

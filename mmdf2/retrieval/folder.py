"""A gallery on disk: a folder of data files and the manifest that names them.

``manifest.json`` says which files make the gallery, with their sizes and hashes. A gallery is saved by writing new data
files beside the old ones and then renaming a new manifest over the old one: a kill at any moment leaves the old gallery
or the new one. Whatever the manifest does not name is left over and is removed by the next save.

    manifest.json
    vectors-<digest>.npy      (n, D) float32, by category and then by id
    ids-<digest>.npy          (n,) int64
    items-<digest>.sqlite     table items
    similarity-<digest>.npy   (2, D + 1) float32: the match head's weight, and its bias in the last column
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.items import ItemTable
from mmdf2.retrieval.similarity import Similarity
from mmdf2.retrieval.stacked import Stacked

MANIFEST = 'manifest.json'
FORMAT, VERSION = 'mmdf2 gallery', 1
_ROLES = {'vectors': '.npy', 'ids': '.npy', 'items': '.sqlite', 'similarity': '.npy'}
_LARGEST_MANIFEST = 1 << 20
_ROWS_AT_ONCE = 16384


@dataclass
class Stored:
    """The content of a gallery's folder.

    Attributes:
        similarity: The match head's.
        vectors: (n, D) float32; memory-mapped when it was read.
        ids: (n,) int64, rising within a category.
        counts: (13,) items of each category, in the order of the rows.
        items: What is known of each.
        next_id: The first id that was never given.
        model: What the caller said of the model.
    """

    similarity: Similarity
    vectors: np.ndarray | Stacked
    ids: np.ndarray
    counts: np.ndarray
    items: ItemTable
    next_id: int
    model: str


def write_folder(folder, content: Stored) -> None:
    """Writes a gallery, in place of what the folder held.

    Raises:
        GalleryError: The folder holds other things than a gallery.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    strangers = [path.name for path in folder.iterdir() if path.name != MANIFEST and _role(path.name) is None]
    if strangers:
        raise GalleryError(f'{folder} holds {sorted(strangers)[0]}, which is of no gallery; give a folder of its own')
    weights = np.column_stack([content.similarity.weight, content.similarity.bias])
    writers = {
        'vectors': lambda path: _save_array(path, content.vectors),
        'ids': lambda path: _save_array(path, content.ids),
        'items': content.items.write,
        'similarity': lambda path: _save_array(path, weights),
    }
    files = {role: _write_file(folder, role, writer) for role, writer in writers.items()}
    manifest = {
        'format': FORMAT,
        'version': VERSION,
        'model': content.model,
        'similarity': content.similarity.fingerprint(),
        'counts': [int(count) for count in content.counts],
        'next_id': content.next_id,
        'files': files,
    }
    beside = folder / f'new-{os.getpid()}.tmp'
    with open(beside, 'w', encoding='utf-8') as file:
        file.write(json.dumps(manifest, indent=1) + '\n')
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, folder / MANIFEST)
    _sync_folder(folder)
    named = {entry['name'] for entry in files.values()}
    for path in folder.iterdir():
        if path.name != MANIFEST and path.name not in named:
            path.unlink(missing_ok=True)


def read_folder(folder, verify: bool = True) -> Stored:
    """Reads a gallery.

    Args:
        folder: Its folder.
        verify: Whether to hash the files, which reads them whole; sizes and shapes are always checked.

    Raises:
        GalleryError: No gallery, of another version, or a file that is missing, cut, changed or does not fit.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    paths = {role: _checked_file(folder, role, manifest['files'][role], verify) for role in _ROLES}
    weights = _load_array(paths['similarity'], np.float32, 2)
    if len(weights) != 2 or weights.shape[1] < 2:
        raise GalleryError(f'{paths["similarity"]} must be (2, D + 1), got {weights.shape}')
    try:
        similarity = Similarity(weights[:, :-1], weights[:, -1])
        items = ItemTable(paths['items'])
    except ValueError as error:
        raise GalleryError(f'{folder}: {error}') from error
    if similarity.fingerprint() != manifest['similarity']:
        raise GalleryError(f'{paths["similarity"]} holds another similarity than {folder / MANIFEST} says')
    vectors, ids = _load_array(paths['vectors'], np.float32, 2), _load_array(paths['ids'], np.int64, 1)
    counts = np.array(manifest['counts'])
    if vectors.shape != (len(ids), similarity.width) or counts.sum() != len(ids) or len(items) != len(ids):
        raise GalleryError(
            f'{folder}: {len(ids)} ids, vectors of shape {vectors.shape}, {counts.sum()} items by the manifest and '
            f'{len(items)} in the table do not fit together; build the gallery anew'
        )
    _check_ids(folder, ids, counts, manifest['next_id'])
    categories, known = items.ids_by_category()
    if not np.array_equal(known, ids) or not np.array_equal(np.bincount(categories, minlength=14)[1:], counts):
        raise GalleryError(f'{paths["items"]} has other items than {paths["ids"].name}; build the gallery anew')
    return Stored(similarity, vectors, np.array(ids), counts, items, manifest['next_id'], manifest['model'])


def _read_manifest(folder: Path) -> dict:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise GalleryError(f'{path} is larger than any manifest')
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise GalleryError(f'{folder} is no gallery: there is no {MANIFEST}; make one with Gallery.save') from None
    except (OSError, ValueError, RecursionError) as error:
        raise GalleryError(f'{path} cannot be read: {error}') from error
    if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
        raise GalleryError(f'{path} is not the manifest of a gallery')
    if manifest.get('version') != VERSION:
        raise GalleryError(f'{path} is of version {manifest.get("version")!r}, this mmdf2 reads {VERSION}')
    for name, fits in (
        ('model', lambda value: isinstance(value, str)),
        ('similarity', lambda value: isinstance(value, str)),
        ('counts', _is_counts),
        ('next_id', _is_count),
        ('files', lambda value: isinstance(value, dict) and set(value) == set(_ROLES)),
    ):
        if not fits(manifest.get(name)):
            raise GalleryError(f'{path}: {name} is {str(manifest.get(name))[:80]!r}, which is not what it should be')
    return manifest


def _is_count(value) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _is_counts(value) -> bool:
    return isinstance(value, list) and len(value) == NUM_CATEGORIES and all(map(_is_count, value))


def _checked_file(folder: Path, role: str, entry, verify: bool) -> Path:
    name = entry.get('name') if isinstance(entry, dict) else None
    if not isinstance(name, str) or _role(name) != role:
        raise GalleryError(f'{folder / MANIFEST}: the name of {role} is {str(name)[:80]!r}, no file of a gallery')
    path = folder / name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise GalleryError(f'{path} cannot be read: {error.strerror}; build the gallery anew') from error
    if size != entry.get('size'):
        raise GalleryError(f'{path} has {size} bytes, {entry.get("size")} by the manifest: it was cut or changed')
    if verify and _digest(path) != entry.get('sha256'):
        raise GalleryError(f'{path} has been changed: its hash is not that of the manifest')
    return path


def _check_ids(folder: Path, ids, counts, next_id: int) -> None:
    ends = np.cumsum(counts)
    for begin, end in zip(ends - counts, ends, strict=True):
        part = ids[begin:end]
        if len(part) and (part[0] < 0 or part[-1] >= next_id or (np.diff(part) <= 0).any()):
            raise GalleryError(f'{folder}: the ids of a category do not rise from 0 to below {next_id}')


def _role(name: str) -> str | None:
    """What a data file of a gallery is, by its name; 'new' for one that was left over; None for a stranger."""
    if name.startswith('new-'):  # also SQLite's own, such as a journal
        return 'new'
    stem, _, rest = name.partition('-')
    digest, dot, ending = rest.partition('.')
    plain = len(digest) == 16 and set(digest) <= set('0123456789abcdef')
    return stem if plain and _ROLES.get(stem) == dot + ending else None


def _write_file(folder: Path, role: str, writer) -> dict:
    beside = folder / f'new-{role}-{os.getpid()}.tmp'
    beside.unlink(missing_ok=True)
    writer(beside)
    with open(beside, 'rb+') as file:
        os.fsync(file.fileno())
    digest = _digest(beside)
    path = folder / f'{role}-{digest[:16]}{_ROLES[role]}'
    os.replace(beside, path)
    return {'name': path.name, 'size': path.stat().st_size, 'sha256': digest}


def _save_array(path: Path, array: np.ndarray | Stacked) -> None:
    header = {'descr': array.dtype.str, 'fortran_order': False, 'shape': array.shape}
    with open(path, 'wb') as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(array), _ROWS_AT_ONCE):
            file.write(np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).data)


def _load_array(path: Path, dtype, dimensions: int) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise GalleryError(f'{path} is no array: {error}') from error
    if array.dtype != np.dtype(dtype) or array.ndim != dimensions or not array.flags.c_contiguous:
        raise GalleryError(
            f'{path} must be a {np.dtype(dtype)} array of {dimensions} dimensions, got {array.dtype} {array.shape}'
        )
    return array


def _digest(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

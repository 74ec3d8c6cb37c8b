"""A gallery on disk, format version 1 or 2: a folder of data files and the manifest that names them.

``manifest.json`` says which files make the gallery, with their sizes and hashes. A gallery is saved by writing new data
files beside the old ones and then replacing the manifest: a kill at any moment leaves the old gallery or the new one.
Files that the manifest does not name are left over from a killed save, and the next save removes them.

One process at a time writes, which the lock's file stands for. Readers need no lock: the name of a data file says its
content, so a reader whose file was removed by a save in the meantime sees a new manifest and begins again.

    manifest.json             format, version, model, fingerprint of the similarity, counts, next_id, calibration, files
    vectors-<hash>.npy        (n, D) float32 embeddings, by category and then by id
    ids-<hash>.npy            (n,) int64
    items-<hash>.sqlite       the table ``items``
    similarity-<hash>.npy     (2, D + 1) float32: the match head's weights, and its bias in the last column
    index-<hash>.safetensors  the indexes of large categories, see mmdf2.retrieval.local.index_file; only in version 2
    lock                      empty; the process that writes has it locked

``<hash>`` is the first 16 digits of the SHA-256 of the file's content. A gallery without an index is of version 1,
which older releases of mmdf2 read, too.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.files import (
    flush_folder,
    is_unfinished,
    network_file_system,
    parse_json,
    sha256,
    write_json,
    write_named_by_hash,
)
from mmdf2.retrieval.calibration import Calibration
from mmdf2.retrieval.gallery import GalleryError, one_writer
from mmdf2.retrieval.items import ItemTable
from mmdf2.retrieval.local.index_file import SavedIndex, read_indexes, write_indexes
from mmdf2.retrieval.local.rows import ChunkedRows, as_rows
from mmdf2.retrieval.similarity import Similarity

MANIFEST, LOCK = 'manifest.json', 'lock'
FORMAT = 'mmdf2 gallery'
_ROLES = ('vectors', 'ids', 'items', 'similarity')  # of the files that every gallery has
_ROLES_OF_VERSION = {1: _ROLES, 2: (*_ROLES, 'index')}
_SUFFIXES = {
    'vectors': '.npy',
    'ids': '.npy',
    'items': '.sqlite',
    'similarity': '.npy',
    'index': '.safetensors',
}
_LARGEST_MANIFEST = 1 << 20  # bytes
_LARGEST_COUNT = 2**62
_MOST_READS = 20  # of a gallery that is saved anew during each of them


@dataclass
class GalleryContent:
    """The content of a gallery's folder.

    Attributes:
        similarity: The match head's similarity.
        model: What identifies the model, in the caller's words.
        vectors: (n, D) float32 embeddings; memory-mapped when they were read.
        ids: (n,) int64, rising within a category.
        counts: (13,) number of items of each category, in the order of the rows.
        items: What is known of each item.
        next_id: The smallest id that was never given.
        calibration: What the scores of hits mean, or None.
        indexes: category_id -> index, for those that have one.
        saved: The SHA-256 of the manifest that was read, hexadecimal; None when nothing was read.
    """

    similarity: Similarity
    model: str
    vectors: np.ndarray | ChunkedRows
    ids: np.ndarray
    counts: np.ndarray
    items: ItemTable
    next_id: int
    calibration: Calibration | None = None
    indexes: dict[int, SavedIndex] = field(default_factory=dict)
    saved: str | None = None


@contextlib.contextmanager
def writing(folder) -> Iterator[None]:
    """A block in which nobody else writes to a gallery's folder; it waits for another writer, and a log says so.

    Raises:
        GalleryError: The folder holds files that belong to no gallery, or it cannot be locked.
    """
    check_only_gallery(folder)
    with one_writer(Path(folder, LOCK), folder):
        yield


def check_only_gallery(folder) -> None:
    """GalleryError when a folder holds files that belong to no gallery; it need not exist."""
    folder = Path(folder)
    for name in sorted(path.name for path in folder.iterdir()) if folder.exists() else ():
        if name not in (MANIFEST, LOCK) and _role(name) is None and not _is_leftover(name):
            raise GalleryError(f'{folder} holds {name}, which is of no gallery; give the gallery a folder of its own')


def saved_state(folder) -> str | None:
    """The SHA-256 of a folder's manifest, which every change changes; None when none can be read."""
    try:
        with open(Path(folder, MANIFEST), 'rb') as file:
            return hashlib.sha256(file.read(_LARGEST_MANIFEST)).hexdigest()
    except OSError:
        return None


def write_folder(folder, content: GalleryContent) -> str | None:
    """Writes a gallery, in place of what the folder held, when no other process writes to it.

    Returns:
        The ``saved_state`` of the folder.

    Raises:
        GalleryError: The folder holds files that belong to no gallery, or it cannot be locked, or somebody changed it
            meanwhile without the lock.
    """
    folder = Path(folder)
    with writing(folder):
        return _write_locked(folder, content)


def _write_locked(folder: Path, content: GalleryContent) -> str | None:
    before = saved_state(folder)
    weights = np.column_stack([content.similarity.weight, content.similarity.bias])
    writers = {
        'vectors': lambda path: _save_array(path, content.vectors),
        'ids': lambda path: _save_array(path, content.ids),
        'items': content.items.write,
        'similarity': lambda path: _save_array(path, weights),
    }
    if content.indexes:
        # The embeddings are written before, so that their hash is known.
        writers['index'] = lambda path: write_indexes(
            path, content.indexes, content.similarity, files['vectors']['sha256']
        )
    files: dict[str, dict] = {}
    for role, writer in writers.items():
        path, digest = write_named_by_hash(folder / f'{role}{_SUFFIXES[role]}', writer)
        files[role] = {'name': path.name, 'size': path.stat().st_size, 'sha256': digest}
    # No manifest on the disk names a file that is not.
    flush_folder(folder)
    manifest = {
        'format': FORMAT,
        'version': 2 if 'index' in files else 1,
        'model': content.model,
        'similarity': content.similarity.fingerprint(),
        'counts': [int(count) for count in content.counts],
        'next_id': content.next_id,
        'calibration': content.calibration and content.calibration.to_json(),
        'files': files,
    }
    if saved_state(folder) != before:
        raise GalleryError(
            f'{folder} was changed while it was being saved, by a process that does not lock it, such as one of mmdf2 '
            '0.1; nothing was saved: end that process, then do the same again'
        )
    write_json(folder / MANIFEST, manifest)
    named = {MANIFEST, LOCK, *(entry['name'] for entry in files.values())}
    for path in folder.iterdir():
        if path.name not in named:
            path.unlink(missing_ok=True)
    return saved_state(folder)


def read_folder(folder, verify: bool = True, index: bool = True) -> GalleryContent:
    """Reads a gallery, as one save left it, also while other processes save it.

    Args:
        folder: The gallery's folder.
        verify: Whether to check the files' hashes, which reads them whole. Sizes and shapes are always checked.
        index: Whether to read the indexes, if there are some.

    Raises:
        GalleryError: There is no gallery, it is of another version, or one of its files is missing, cut, changed or
            does not fit the others.
    """
    folder = Path(folder)
    for attempt in range(_MOST_READS):
        state = saved_state(folder)
        with contextlib.ExitStack() as stack:
            if attempt:
                # A reader that is slower than the saves follow each other makes the writers wait, if it may.
                with contextlib.suppress(GalleryError):
                    stack.enter_context(writing(folder))
                    state = saved_state(folder)
            try:
                content = _read_once(folder, verify, index)
            except GalleryError:
                if saved_state(folder) == state:
                    raise
                continue
        if saved_state(folder) == state:
            content.saved = state
            return content
    raise GalleryError(f'{folder} is saved anew so often that it cannot be read; pause the process that changes it')


def _read_once(folder: Path, verify: bool, index: bool) -> GalleryContent:
    manifest = _read_manifest(folder)
    roles = [role for role in _ROLES_OF_VERSION[manifest['version']] if index or role != 'index']
    paths = {role: _checked_file(folder, role, manifest['files'][role], verify) for role in roles}
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
    counts, next_id = np.array(manifest['counts']), manifest['next_id']
    if vectors.shape != (len(ids), similarity.width) or counts.sum() != len(ids) or len(items) != len(ids):
        raise GalleryError(
            f'{folder}: {len(ids)} ids, vectors of shape {vectors.shape}, {counts.sum()} items by the manifest and '
            f'{len(items)} in the table do not fit together; build the gallery anew'
        )
    _check_ids(folder, ids, counts, next_id)
    categories, known = items.ids_by_category()
    if not np.array_equal(known, ids) or not np.array_equal(_counts_of(categories), counts):
        raise GalleryError(f'{paths["items"]} has other items than {paths["ids"].name}; build the gallery anew')
    indexes = {}
    if 'index' in paths:
        try:
            indexes = read_indexes(paths['index'], similarity, manifest['files']['vectors']['sha256'], counts.tolist())
        except ValueError as error:
            raise GalleryError(
                f'{paths["index"]}: {error}; open the gallery without its index (load with index=False, or '
                '`tools/gallery.py index` builds it anew)'
            ) from error
    return GalleryContent(
        similarity=similarity,
        model=manifest['model'],
        vectors=vectors,
        ids=np.array(ids),
        counts=counts,
        items=items,
        next_id=next_id,
        calibration=_calibration(folder, manifest.get('calibration')),
        indexes=indexes,
    )


def _calibration(folder: Path, value) -> Calibration | None:
    try:
        return None if value is None else Calibration.from_json(value)
    except (TypeError, ValueError) as error:
        raise GalleryError(f'{folder / MANIFEST}: {error}') from error


def _read_manifest(folder: Path) -> dict:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise GalleryError(f'{path} is larger than any manifest')
        manifest = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise GalleryError(
            f'{folder} is no gallery: there is no {MANIFEST}; build one with tools/gallery.py build'
        ) from None
    except (OSError, ValueError) as error:
        raise GalleryError(f'{path} cannot be read: {error}') from error
    if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
        raise GalleryError(f'{path} is not the manifest of a gallery')
    version = manifest.get('version')
    if type(version) is not int or version not in _ROLES_OF_VERSION:
        raise GalleryError(
            f'{path} is of version {version!r}, this mmdf2 reads {" and ".join(map(str, _ROLES_OF_VERSION))}: open the '
            'gallery with the mmdf2 that wrote it or a newer one, or build it anew with this one'
        )
    for name, fits in (
        ('model', lambda value: isinstance(value, str)),
        ('similarity', lambda value: isinstance(value, str)),
        ('counts', _is_counts),
        ('next_id', _is_count),
        ('files', lambda value: isinstance(value, dict) and set(value) == set(_ROLES_OF_VERSION[version])),
    ):
        if not fits(manifest.get(name)):
            raise GalleryError(f'{path}: {name} is {str(manifest.get(name))[:80]!r}, which is not what it should be')
    return manifest


def _is_count(value) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_COUNT


def _is_counts(value) -> bool:
    return isinstance(value, list) and len(value) == NUM_CATEGORIES and all(map(_is_count, value))


def _counts_of(categories: np.ndarray) -> np.ndarray:
    """(13,) number of items of each category from the items' category_ids (n,)."""
    return np.bincount(categories, minlength=NUM_CATEGORIES + 1)[1:]


def _checked_file(folder: Path, role: str, entry, verify: bool) -> Path:
    """The path of a data file that is what the manifest says of it."""
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
    if verify and sha256(path) != entry.get('sha256'):
        raise GalleryError(f'{path} has been changed: its hash is not that of the manifest')
    return path


def _check_ids(folder: Path, ids, counts, next_id: int) -> None:
    ends = np.cumsum(counts)
    for begin, end in zip(ends - counts, ends, strict=True):
        part = ids[begin:end]
        if len(part) and (part[0] < 0 or part[-1] >= next_id or (np.diff(part) <= 0).any()):
            raise GalleryError(f'{folder}: the ids of a category do not rise from 0 to below {next_id}')


def _role(name: str) -> str | None:
    """What a data file of a gallery holds, by its name; None when it is no data file."""
    stem, _, rest = name.partition('-')
    digest, dot, suffix = rest.partition('.')
    plain = len(digest) == 16 and set(digest) <= set('0123456789abcdef')
    return stem if plain and _SUFFIXES.get(stem) == dot + suffix else None


def _is_leftover(name: str) -> bool:
    """Whether a killed save left a file of this name, also one of SQLite's own such as a journal."""
    return is_unfinished(name) or name.startswith('new-')  # mmdf2 0.1.0 wrote new-vectors-<process>.tmp and the like


def _save_array(path: Path, array: np.ndarray | ChunkedRows) -> None:
    header = {'descr': array.dtype.str, 'fortran_order': False, 'shape': array.shape}
    with open(path, 'wb') as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in as_rows(array).contiguous_parts():
            file.write(part.data)


def _load_array(path: Path, dtype, dimensions: int) -> np.ndarray:
    # A mapped file that another machine removes from a network folder would end this process at the next access.
    mode: Literal['r'] | None = None if network_file_system(path) else 'r'
    try:
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise GalleryError(f'{path} is no array: {error}') from error
    if array.dtype != np.dtype(dtype) or array.ndim != dimensions or not array.flags.c_contiguous:
        raise GalleryError(
            f'{path} must be a {np.dtype(dtype)} array of {dimensions} dimensions, got {array.dtype} {array.shape}'
        )
    return array

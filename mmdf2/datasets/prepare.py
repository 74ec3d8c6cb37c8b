"""How a store is made from a split's JSON files and image headers: in parallel, resumable, and all or nothing.

The split is cut into parts of a few hundred images. Each part is read, checked, packed into columns and put on the
disk whole; then the parts are joined into the store's columns. :func:`open_or_prepare` and :func:`open_annotation` are
how everything else comes to a store.
"""

import contextlib
import hashlib
import json
import multiprocessing
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from mmdf2 import __version__
from mmdf2.datasets.annotation import TREATMENTS, AnnotationError, Problem, read_annotation
from mmdf2.datasets.listing import ImageFiles, Listing, files_digest, list_split, signature
from mmdf2.datasets.store import (
    IMAGE_COLUMNS,
    ITEM_COLUMNS,
    MANIFEST,
    OFFSETS_OF_COUNTS,
    PROBLEMS,
    ROW_COLUMNS,
    SHAPE_COLUMNS,
    STORED_COLUMNS,
    VERSION,
    Column,
    ImageRecord,
    Store,
    StoreError,
    is_store,
    read_manifest,
    remedy,
    write_manifest,
)
from mmdf2.files import AnyPath, locked, open_for_replacement, replace_folder, sha256, usable_cores, write_json
from mmdf2.images import image_size as size_of_image

IMAGES_PER_PART = 512


class PrepareError(RuntimeError):
    """A split of which no store can be made; the message says why."""


@dataclass(frozen=True)
class Report:
    """The outcome of ``prepare``.

    Attributes:
        folder: The store.
        made: False when the store was there and up to date.
        images: Number of images in the store.
        items: Number of items in the store.
        problems: Number of problems of each kind.
        examples: The first few problems of each kind; none when the store was up to date.
    """

    folder: Path
    made: bool
    images: int
    items: int
    problems: dict[str, int]
    examples: dict[str, list[str]]

    def __str__(self) -> str:
        lines = [f'{self.folder}: {self.images} images, {self.items} items' + ('' if self.made else ' (up to date)')]
        for kind, count in self.problems.items():
            lines.append(f'  {count} x {kind}: {TREATMENTS[kind]}')
            lines += [f'      {example}' for example in self.examples.get(kind, [])]
        if self.problems:
            lines.append(f'  all of them: {self.folder / PROBLEMS}')
        return '\n'.join(lines)


@dataclass(frozen=True)
class Part:
    """What one part is made from, and where it goes (``<path>.npz`` and ``<path>.json``)."""

    path: Path
    images: list[ImageFiles]


def open_or_prepare(root: AnyPath, split: str, store: AnyPath | None = None) -> Store:
    """Opens the store of a split, preparing it first when there is none.

    Args:
        root: The dataset's folder, with ``<split>/image`` and ``<split>/annos``.
        split: 'train' or 'validation'.
        store: Folder of the store; by default ``ROOT/<split>.store``.

    Raises:
        StoreError: The store is damaged, or stale: the split's files are not those that it was made from.
        FileNotFoundError: Neither a store nor the split's folders are there.
    """
    folder = store_folder(root, split, store)
    if not folder.exists():
        prepare(root, split, store)
    opened = Store.open(folder)
    check_fresh(opened.manifest, root, split, folder)
    return opened


def open_annotation(path: AnyPath, split: str = 'validation') -> tuple[Store, Path]:
    """Opens the annotation that a path means: a store, a split's folder or the dataset's folder.

    A store that is missing is prepared first.

    Args:
        path: The folder of a store; a split's folder, with ``image`` and ``annos`` in it; or the dataset's folder,
            with ``<split>`` or ``<split>.store`` in it.
        split: 'train' or 'validation', used only with the dataset's folder.

    Returns:
        The store, and the folder in which its images should be (which need not exist).

    Raises:
        FileNotFoundError: The path is none of the three.
        StoreError: The store is damaged or stale.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        return Store.open(path), path.parent / path.name.removesuffix('.store') / 'image'
    if (path / 'annos').is_dir():
        path = path.absolute()
        return open_or_prepare(path.parent, path.name), path / 'image'
    if (path / split).is_dir() or (path / f'{split}.store' / MANIFEST).is_file():
        return open_or_prepare(path, split), path / split / 'image'
    raise FileNotFoundError(
        f"{path} is neither a store (made by tools/prepare_deepfashion2.py), nor a split's folder with image/ and "
        f'annos/, nor a dataset with {split}/ in it'
    )


def store_folder(root: AnyPath, split: str, store: AnyPath | None = None) -> Path:
    """The folder of a split's store: ``store`` if given, else ``ROOT/<split>.store``."""
    return Path(store) if store is not None else Path(root, f'{split}.store')


def check_fresh(manifest: dict[str, Any], root: AnyPath, split: str, folder: AnyPath) -> None:
    """Refuses a store of other files than the split has now; without annotation files nothing can be compared.

    Raises:
        StoreError: The store is stale, or of another split.
    """
    if manifest['source'].get('split') != split:
        raise StoreError(f'store {folder} is of split {manifest["source"].get("split")!r}, not {split!r}')
    if not Path(root, split, 'annos').is_dir():
        return
    if manifest['source'].get('files') != files_digest(root, split):
        raise StoreError(
            f'store {folder} is stale: the files in {Path(root, split)} are not those that it was made from; '
            f'{remedy(folder)}'
        )


def prepare(
    root: AnyPath,
    split: str,
    store: AnyPath | None = None,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
) -> Report:
    """Makes the store of a split, or finds it up to date.

    A run that was killed goes on where it stopped when it is called again. Two calls at once wait for each other.

    Args:
        root: The dataset's folder, with ``<split>/image`` and ``<split>/annos``.
        split: 'train' or 'validation'.
        store: Folder of the store; by default ``ROOT/<split>.store``.
        workers: Number of processes; by default one per core.
        strict: Whether any problem at all is an error.
        force: Whether to make the store again even when there is one, be it damaged or of another version.

    Raises:
        FileNotFoundError: The split's folders are not there.
        PrepareError: Nothing usable was found, or with ``strict`` anything was wrong.
        StoreError: The store's folder holds something else.
    """
    folder = store_folder(root, split, store)
    listing = list_split(root, split)
    parts = _plan(listing, folder.with_name(f'.{folder.name}.parts'))
    with _locked(folder):
        if not parts:
            _fail(listing.problems, folder, f'{Path(root, split)} holds no image with an annotation')
        source = {'split': split, 'files': listing.digest, 'contents': _contents(parts)}
        if not force and folder.exists():
            manifest = read_manifest(folder)
            if manifest['source'] == source and not (strict and manifest['problems']):
                return Report(
                    folder=folder,
                    made=False,
                    images=manifest['images'],
                    items=manifest['items'],
                    problems=manifest['problems'],
                    examples={},
                )
        elif folder.exists() and not is_store(folder):
            raise StoreError(f'{folder} holds something else than a store; move it away first')
        parts[0].path.parent.mkdir(parents=True, exist_ok=True)
        _make_parts(parts, workers or usable_cores(), split)
        problems = listing.problems + [problem for part in parts for problem in _part_problems(part)]
        if strict and problems:
            _fail(problems, folder, f'{Path(root, split)} has problems, and strict was asked for')
        report = _finish(folder, parts, problems, source)
        shutil.rmtree(parts[0].path.parent)
        _failure_list(folder).unlink(missing_ok=True)
    return report


def image_size(path: AnyPath, whole: bool = False) -> tuple[int, int]:
    """(width, height) of an image file, upright; with ``whole``, the whole image is decoded, which finds any damage.

    Raises:
        AnnotationError: The file is missing or cannot be read as an image.
    """
    path = Path(path)
    try:
        return size_of_image(path, whole)
    except FileNotFoundError:
        raise AnnotationError(Problem('missing image', path.name, f'no file {path}')) from None
    except OSError as error:
        detail = str(error).replace(str(path), path.name)
        raise AnnotationError(Problem('unreadable image', path.name, detail)) from error


def make_part(part: Part) -> int:
    """Makes a part, unless it is already there, made by this version from the same files.

    Returns:
        Number of images that were read.
    """
    state = f'{VERSION} {__version__} {signature(part.images)}'
    if _state_on_disk(part) == state:
        return len(part.images)
    problems: list[Problem] = []
    records = []
    for files in part.images:
        try:
            records.append(_read_image_record(files, problems))
        except AnnotationError as error:
            problems.append(error.problem)
    columns: dict[str, Any] = {**pack(records)}
    with open_for_replacement(part.path.with_suffix('.npz'), 'wb') as file:
        np.savez(file, **columns)
    # The JSON file comes last: with it the part counts as made.
    found = {'state': state, 'problems': [asdict(problem) for problem in problems]}
    write_json(part.path.with_suffix('.json'), found, indent=None)
    return len(part.images)


def pack(images: list[ImageRecord]) -> dict[str, np.ndarray]:
    """Packs annotation into the columns of one part.

    Returns:
        Every column of ``IMAGE_COLUMNS``, ``ITEM_COLUMNS`` and ``SHAPE_COLUMNS``, counts included.
    """
    items = [(image, item) for image in images for item in image.items]
    columns = {}
    for name, column in IMAGE_COLUMNS.items():
        columns[name] = _rows(column, [column.content(image) for image in images])
    for name, column in ITEM_COLUMNS.items():
        columns[name] = _rows(column, [column.content(image, item) for image, item in items])
    for name, column in SHAPE_COLUMNS.items():
        rows_of_items = [column.content(image, item) for image, item in items]
        columns[name] = _rows(column, np.concatenate([_rows(column, []), *rows_of_items]))
    return columns


def join_parts(part_paths: list[Path], folder: Path) -> None:
    """Writes the store's ``.npy`` files from the parts, in their order, with one part in memory at a time.

    Args:
        part_paths: ``.npz`` files of what ``pack`` returns.
        folder: An existing folder.
    """
    lengths = dict.fromkeys(ROW_COLUMNS, 0)
    counts: dict[str, list[np.ndarray]] = {name: [np.zeros(1, '<i8')] for name in OFFSETS_OF_COUNTS}
    for part in _load(part_paths):
        for name in ROW_COLUMNS:
            lengths[name] += len(part[name])
        for name, found in counts.items():
            found.append(part[name])

    for name, offsets in OFFSETS_OF_COUNTS.items():
        np.save(folder / f'{offsets}.npy', np.cumsum(np.concatenate(counts[name])))
    files = {
        name: np.lib.format.open_memmap(
            folder / f'{name}.npy', 'w+', np.dtype(column.dtype), (lengths[name], *column.shape)
        )
        for name, column in ROW_COLUMNS.items()
    }
    starts = dict.fromkeys(ROW_COLUMNS, 0)
    for part in _load(part_paths):
        for name, file in files.items():
            rows = part[name]
            file[starts[name] : starts[name] + len(rows)] = rows
            starts[name] += len(rows)
    for file in files.values():
        file.flush()


def _plan(listing: Listing, folder: Path) -> list[Part]:
    starts = range(0, len(listing.images), IMAGES_PER_PART)
    return [
        Part(folder / f'part-{number:06d}', listing.images[start : start + IMAGES_PER_PART])
        for number, start in enumerate(starts)
    ]


def _contents(parts: list[Part]) -> str:
    return hashlib.sha256(''.join(signature(part.images) for part in parts).encode()).hexdigest()


def _make_parts(parts: list[Part], workers: int, split: str) -> None:
    total = sum(len(part.images) for part in parts)
    with tqdm(total=total, unit='image', desc=f'preparing {split}', disable=None) as progress:
        if workers == 1 or len(parts) == 1:
            for part in parts:
                progress.update(make_part(part))
            return
        # Spawned, since forking a process that has already started torch's threads can hang.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(min(workers, len(parts)), mp_context=context) as executor:
            futures = [executor.submit(make_part, part) for part in parts]
            try:
                for future in as_completed(futures):
                    progress.update(future.result())
            except BrokenProcessPool as error:
                raise PrepareError(
                    'a worker process was killed (out of memory?); what is done is kept: run it again, if need be with '
                    'fewer workers'
                ) from error
            except BaseException:
                executor.shutdown(cancel_futures=True)
                raise


def _read_image_record(files: ImageFiles, problems: list[Problem]) -> ImageRecord:
    width, height = image_size(files.image)
    annotation = read_annotation(files.annotation, (width, height), problems.append)
    return ImageRecord(
        image_id=files.image_id,
        file_name=files.image.name,
        width=width,
        height=height,
        source=annotation.source,
        pair_id=annotation.pair_id,
        items=annotation.items,
    )


def _part_problems(part: Part) -> list[Problem]:
    return [Problem(**problem) for problem in json.loads(part.path.with_suffix('.json').read_text())['problems']]


def _state_on_disk(part: Part) -> str | None:
    try:
        with np.load(part.path.with_suffix('.npz'), allow_pickle=False) as arrays:
            arrays['point_counts']
        return json.loads(part.path.with_suffix('.json').read_text())['state']
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _rows(column: Column, values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=column.dtype).reshape(-1, *column.shape)


def _load(paths: list[Path]) -> Iterator[Any]:
    for path in paths:
        with np.load(path, allow_pickle=False) as part:
            yield part


def _finish(folder: Path, parts: list[Part], problems: list[Problem], source: dict[str, str]) -> Report:
    beside = folder.with_name(f'.{folder.name}.making')
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    join_parts([part.path.with_suffix('.npz') for part in parts], beside)
    _write_problems(beside / PROBLEMS, problems)
    rows = {name: len(np.load(beside / f'{name}.npy', mmap_mode='r')) for name in STORED_COLUMNS}
    counts = dict(Counter(problem.kind for problem in problems))
    if not rows['image_ids']:
        shutil.rmtree(beside)
        _fail(problems, folder, 'not one image is usable')
    columns = {name: {'rows': rows[name], 'sha256': sha256(beside / f'{name}.npy')} for name in STORED_COLUMNS}
    manifest = {'images': rows['image_ids'], 'items': rows['item_ids'], 'problems': counts}
    write_manifest(beside, {**manifest, 'source': source, 'columns': columns})
    replace_folder(beside, folder)
    return Report(
        folder=folder,
        made=True,
        images=rows['image_ids'],
        items=rows['item_ids'],
        problems=counts,
        examples=_examples(problems),
    )


def _examples(problems: list[Problem], limit: int = 3) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {}
    for problem in problems:
        if len(examples.setdefault(problem.kind, [])) < limit:
            examples[problem.kind].append(str(problem))
    return examples


def _write_problems(path: Path, problems: list[Problem]) -> None:
    with open_for_replacement(path) as file:
        for problem in problems:
            file.write(json.dumps({**asdict(problem), 'treatment': TREATMENTS[problem.kind]}) + '\n')


def _failure_list(folder: Path) -> Path:
    return folder.with_name(f'{folder.name}.{PROBLEMS}')


def _fail(problems: list[Problem], folder: Path, reason: str) -> NoReturn:
    path = _failure_list(folder)
    lines = [reason]
    if problems:
        _write_problems(path, problems)
        for kind, examples in _examples(problems).items():
            lines += [f'  {sum(problem.kind == kind for problem in problems)} x {kind}, such as {examples[0]}']
        lines.append(f'  all of them: {path}')
    raise PrepareError('\n'.join(lines))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = locked(
        folder.with_name(f'.{folder.name}.lock'),
        on_wait=lambda: print(f'another process is preparing {folder}; waiting for it'),
    )
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except OSError as error:
            raise PrepareError(f'cannot write beside {folder} ({error}); name another place for the store') from error
        yield

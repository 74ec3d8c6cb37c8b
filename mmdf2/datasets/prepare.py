"""Makes a split's store from its JSON files and image headers: in parallel, resumable, and all or nothing."""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from mmdf2.datasets.columns import ALL_COLUMNS, join_parts
from mmdf2.datasets.listing import Listing, files_digest, list_split, signature
from mmdf2.datasets.manifest import (
    MANIFEST,
    PROBLEMS,
    StoreError,
    file_digest,
    is_store,
    read_manifest,
    remedy,
    write_manifest,
)
from mmdf2.datasets.part import Part, make_part, part_problems
from mmdf2.datasets.problems import TREATMENTS, Problem
from mmdf2.datasets.store import Store

IMAGES_PER_PART = 512


class PrepareError(RuntimeError):
    """A split of which no store can be made; the message says why."""


@dataclass(frozen=True)
class Report:
    """What ``prepare`` ended with.

    Attributes:
        folder: The store.
        made: False when it was there and up to date.
        images: Images in the store.
        items: Items in the store.
        problems: Number of problems of each kind.
        examples: The first few problems of each kind; none when the store was up to date.
    """

    folder: Path
    made: bool
    images: int
    items: int
    problems: dict[str, int]
    examples: dict[str, list[str]]

    def __str__(self):
        lines = [f'{self.folder}: {self.images} images, {self.items} items' + ('' if self.made else ' (up to date)')]
        for kind, count in self.problems.items():
            lines.append(f'  {count} x {kind}: {TREATMENTS[kind]}')
            lines += [f'      {example}' for example in self.examples.get(kind, [])]
        if self.problems:
            lines.append(f'  all of them: {self.folder / PROBLEMS}')
        return '\n'.join(lines)


def store_folder(root, split: str, store=None) -> Path:
    """Where a split's store lies: ``store`` if given, else ``ROOT/<split>.store``."""
    return Path(store) if store is not None else Path(root, f'{split}.store')


def prepare(
    root, split: str, store=None, workers: int | None = None, strict: bool = False, force: bool = False
) -> Report:
    """Makes the store of a split, or finds it up to date.

    A run that was killed goes on where it stopped when it is called again. Two calls at once wait for each other.

    Args:
        root: The dataset's folder, with ``<split>/image`` and ``<split>/annos``.
        split: 'train' or 'validation'.
        store: Folder of the store; by default ``ROOT/<split>.store``.
        workers: Processes; by default one a core.
        strict: Whether any problem at all is an error.
        force: Make it again, also when there is a damaged store or one of another version.

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
                return Report(folder, False, manifest['images'], manifest['items'], manifest['problems'], {})
        elif folder.exists() and not is_store(folder):
            raise StoreError(f'{folder} holds something else than a store; move it away first')
        parts[0].path.parent.mkdir(parents=True, exist_ok=True)
        _make_parts(parts, workers or _cores(), split)
        problems = listing.problems + [problem for part in parts for problem in part_problems(part)]
        if strict and problems:
            _fail(problems, folder, f'{Path(root, split)} has problems, and strict was asked for')
        report = _finish(folder, parts, problems, source)
        shutil.rmtree(parts[0].path.parent)
        _failure_list(folder).unlink(missing_ok=True)
    return report


def open_or_prepare(root, split: str, store=None) -> Store:
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


def open_annotation(path, split: str = 'validation') -> tuple[Store, Path]:
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


def check_fresh(manifest: dict, root, split: str, folder) -> None:
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


def _plan(listing: Listing, folder: Path) -> list[Part]:
    starts = range(0, len(listing.entries), IMAGES_PER_PART)
    return [
        Part(folder / f'part-{number:06d}', listing.entries[start : start + IMAGES_PER_PART])
        for number, start in enumerate(starts)
    ]


def _contents(parts: list[Part]) -> str:
    return hashlib.sha256(''.join(signature(part.entries) for part in parts).encode()).hexdigest()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _make_parts(parts: list[Part], workers: int, split: str) -> None:
    total = sum(len(part.entries) for part in parts)
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


def _finish(folder: Path, parts: list[Part], problems: list[Problem], source: dict) -> Report:
    beside = folder.with_name(f'.{folder.name}.making')
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    join_parts([part.path.with_suffix('.npz') for part in parts], beside)
    _write_problems(beside / PROBLEMS, problems)
    rows = {name: len(np.load(beside / f'{name}.npy', mmap_mode='r')) for name in ALL_COLUMNS}
    counts = dict(Counter(problem.kind for problem in problems))
    if not rows['image_ids']:
        shutil.rmtree(beside)
        _fail(problems, folder, 'not one image is usable')
    columns = {name: {'rows': rows[name], 'sha256': file_digest(beside / f'{name}.npy')} for name in ALL_COLUMNS}
    manifest = {'images': rows['image_ids'], 'items': rows['item_ids'], 'problems': counts}
    write_manifest(beside, {**manifest, 'source': source, 'columns': columns})
    if folder.exists():
        old = folder.with_name(f'.{folder.name}.old')
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(beside, folder)
        shutil.rmtree(old)
    else:
        os.replace(beside, folder)
    return Report(folder, True, rows['image_ids'], rows['item_ids'], counts, _examples(problems))


def _examples(problems: list[Problem], limit: int = 3) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {}
    for problem in problems:
        if len(examples.setdefault(problem.kind, [])) < limit:
            examples[problem.kind].append(str(problem))
    return examples


def _write_problems(path: Path, problems: list[Problem]) -> None:
    with open(path, 'w') as file:
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
    path = folder.with_name(f'.{folder.name}.lock')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise PrepareError(f'cannot write beside {folder} ({error}); name another place for the store') from error
    with open(path, 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'another process is preparing {folder}; waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

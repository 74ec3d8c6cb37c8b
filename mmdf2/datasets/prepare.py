"""How a store is made from a split's JSON files and image headers: in parallel, resumable, and all or nothing.

The split is cut into parts of a few hundred images. Each part is read, checked, packed into columns and put on the
disk whole; then the parts are joined into the store's columns. :func:`open_or_prepare` and :func:`open_annotation` are
how everything else comes to a store, and they refuse one that the split's files would no longer make.
"""

import contextlib
import hashlib
import json
import multiprocessing
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from mmdf2 import __version__
from mmdf2.datasets.annotation import TREATMENTS, AnnotationError, Problem, read_annotation
from mmdf2.datasets.freshness import differing_files, is_known, remember, unknown_parts
from mmdf2.datasets.listing import ImageFiles, Listing, list_split, signature, split_stamp
from mmdf2.datasets.store import (
    MANIFEST,
    PROBLEMS,
    STORED_COLUMNS,
    VERSION,
    ImageRecord,
    Store,
    StoreError,
    is_store,
    join_parts,
    pack,
    read_manifest,
    remedy,
    write_manifest,
)
from mmdf2.files import (
    AnyPath,
    lock_beside,
    locked,
    open_for_replacement,
    replace_folder,
    sha256,
    usable_cores,
    write_json,
)
from mmdf2.images import image_size as size_of_image

IMAGES_PER_PART = 512
# So many parts are compared sooner by one process than others are started.
FEW_PARTS = 4


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
    """What one part is made from, and where it goes (``<path>.npz`` and ``<path>.json``).

    Attributes:
        path: Path of the part's two files, without their suffixes.
        images: The files of the part's images.
        decode: Whether whole images are decoded, which finds any damage, or only headers are read.
    """

    path: Path
    images: list[ImageFiles]
    decode: bool = False


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
    return open_fresh(folder, root, split)


def open_annotation(path: AnyPath, split: str = 'validation') -> tuple[Store, Path]:
    """Opens the annotation that a path means: a store, a split's folder or the dataset's folder.

    A store that is missing is prepared first. One that is there is compared with the files of its split, if these are
    beside it or where they were when it was made.

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
        root, split = _origin(path)
        return open_fresh(path, root, split), Path(root, split, 'image')
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


def open_fresh(folder: AnyPath, root: AnyPath, split: str) -> Store:
    """Opens a store that the files of its split still make; without annotation files nothing can be compared.

    Files of other sizes or times than before are read and compared with the store's rows. If these are the same, the
    new times are kept for the next opening.

    Raises:
        StoreError: The store is damaged, stale, or of another split.
        FileNotFoundError: The split has annotation files but no folder of images.
    """
    store = Store.open(folder)
    if store.manifest['source'].get('split') != split:
        raise StoreError(f'store {folder} is of split {store.manifest["source"].get("split")!r}, not {split!r}')
    if not Path(root, split, 'annos').is_dir():
        return store
    if is_known(store, split_stamp(root, split)):
        return store
    listing = list_split(root, split)
    if store.manifest['source'].get('files') != listing.digest:
        raise StoreError(
            f'store {folder} is stale: the files in {Path(root, split)} are not those that it was made from; '
            f'{remedy(folder, (root, split))}'
        )
    with contextlib.ExitStack() as stack:
        # Processes that open the store together read the files once. Where no lock can be made, each reads them.
        with contextlib.suppress(PrepareError):
            stack.enter_context(_locked(Path(folder)))
        store = Store.open(folder)
        _compare(store, listing, root, split)
    return store


def _compare(store: Store, listing: Listing, root: AnyPath, split: str) -> None:
    """Compares files with a store; StoreError, which names one of them, when they would make other rows."""
    parts = _plan(listing, _parts_folder(store.folder))
    signatures = [signature(part.images) for part in parts]
    unknown = [parts[number] for number in unknown_parts(store, signatures)]
    compare = partial(_differing_in_part, store.folder)
    workers = usable_cores() if len(unknown) > FEW_PARTS else 1
    changed: list[str] = []
    for found in _map_parts(compare, unknown, workers, f'comparing {split} with its store'):
        changed += found
    if changed:
        others = f' and {len(changed) - 1} others were' if len(changed) > 1 else ' was'
        raise StoreError(
            f'store {store.folder} is stale: {Path(root, split, min(changed))}{others} changed after it was made; '
            f'{remedy(store.folder, (root, split))}'
        )
    try:
        remember(store.folder, listing.stamp, signatures)
    except OSError as error:
        print(f'{store.folder} cannot be written ({error}): the next opening will look at the files of the split again')


def _differing_in_part(folder: Path, part: Part) -> list[str]:
    return differing_files(folder, part.images, read_columns)


def _origin(folder: Path) -> tuple[Path, str]:
    """The dataset's folder and the split that a store was made from, as far as that can be told."""
    manifest = read_manifest(folder)
    split, recorded = manifest['source'].get('split'), manifest.get('root')
    if not isinstance(split, str):
        raise StoreError(f'{folder / MANIFEST} does not name the split; {remedy(folder)} --force')
    beside = [place.parent for place in (folder, folder.resolve()) if place.name == f'{split}.store']
    candidates = [*beside, *([Path(recorded)] if isinstance(recorded, str) else [])]
    found = [root for root in candidates if (root / split / 'annos').is_dir()]
    return (found or candidates or [folder.parent])[0], split


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
        strict: Whether any problem at all is an error. All images are decoded then, since damage behind the header is
            found in no other way.
        force: Whether to make the store again even when there is one, be it damaged or of another version.

    Raises:
        FileNotFoundError: The split's folders are not there.
        PrepareError: Nothing usable was found, or with ``strict`` anything was wrong.
        StoreError: The store's folder holds something else.
    """
    folder = store_folder(root, split, store)
    listing = list_split(root, split)
    parts = _plan(listing, _parts_folder(folder), decode=strict)
    signatures = [signature(part.images) for part in parts]
    with _locked(folder):
        if not parts:
            _fail(listing.problems, folder, f'{Path(root, split)} holds no image with an annotation')
        source = {'split': split, 'files': listing.digest, 'contents': _contents(signatures)}
        if not force and folder.exists():
            manifest = read_manifest(folder)
            sufficient = not strict or (manifest.get('decoded') and not manifest['problems'])
            if manifest['source'] == source and sufficient:
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
        for _ in _map_parts(make_part, parts, workers or usable_cores(), f'preparing {split}'):
            pass
        problems = listing.problems + [problem for part in parts for problem in _part_problems(part)]
        if strict and problems:
            _fail(problems, folder, f'{Path(root, split)} has problems, and strict was asked for')
        about: dict[str, Any] = {'source': source, 'stamp': listing.stamp, 'parts': signatures, 'decoded': strict}
        if folder.absolute() != store_folder(root, split).absolute():
            about['root'] = str(Path(root).absolute())
        report = _finish(folder, parts, problems, about)
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
    state = f'{VERSION} {__version__} {signature(part.images)}{" decoded" if part.decode else ""}'
    if _state_on_disk(part) == state:
        return len(part.images)
    problems: list[Problem] = []
    columns: dict[str, Any] = {**read_columns(part.images, problems, part.decode)}
    with open_for_replacement(part.path.with_suffix('.npz'), 'wb') as file:
        np.savez(file, **columns)
    # The JSON file comes last: with it the part counts as made.
    found = {'state': state, 'problems': [asdict(problem) for problem in problems]}
    write_json(part.path.with_suffix('.json'), found, indent=None)
    return len(part.images)


def read_columns(
    images: list[ImageFiles], problems: list[Problem] | None = None, decode: bool = False
) -> dict[str, np.ndarray]:
    """Reads the files of some images and packs what is usable.

    Args:
        images: The files.
        problems: Collects what is wrong with the rest.
        decode: Whether to decode whole images, or to read only their headers.
    """
    problems = [] if problems is None else problems
    records = []
    for files in images:
        try:
            records.append(_read_image_record(files, problems, decode))
        except AnnotationError as error:
            problems.append(error.problem)
    return pack(records)


def _plan(listing: Listing, folder: Path, decode: bool = False) -> list[Part]:
    starts = range(0, len(listing.images), IMAGES_PER_PART)
    return [
        Part(folder / f'part-{number:06d}', listing.images[start : start + IMAGES_PER_PART], decode)
        for number, start in enumerate(starts)
    ]


def _parts_folder(folder: Path) -> Path:
    return folder.with_name(f'.{folder.name}.parts')


def _contents(signatures: list[str]) -> str:
    return hashlib.sha256(''.join(signatures).encode()).hexdigest()


def _map_parts(function: Callable[[Part], Any], parts: list[Part], workers: int, description: str) -> Iterator[Any]:
    """Calls a function with each part and yields what it returns, in any order."""
    total = sum(len(part.images) for part in parts)
    with tqdm(total=total, unit='image', desc=description, disable=None) as progress:
        if workers == 1 or len(parts) == 1:
            for part in parts:
                yield function(part)
                progress.update(len(part.images))
            return
        # Spawned, since forking a process that has already started torch's threads can hang.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(min(workers, len(parts)), mp_context=context) as executor:
            futures = {executor.submit(function, part): len(part.images) for part in parts}
            try:
                for future in as_completed(futures):
                    yield future.result()
                    progress.update(futures[future])
            except BrokenProcessPool as error:
                raise PrepareError(
                    'a worker process was killed (out of memory?); what is done is kept: run it again, if need be with '
                    'fewer workers'
                ) from error
            except BaseException:
                executor.shutdown(cancel_futures=True)
                raise


def _read_image_record(files: ImageFiles, problems: list[Problem], decode: bool) -> ImageRecord:
    width, height = image_size(files.image, decode)
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


def _finish(folder: Path, parts: list[Part], problems: list[Problem], about: dict[str, Any]) -> Report:
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
    write_manifest(beside, {**manifest, **about, 'columns': columns})
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
        lock_beside(folder),
        on_wait=lambda: print(f'another process is preparing {folder}; waiting for it'),
    )
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except OSError as error:
            raise PrepareError(f'cannot write beside {folder} ({error}); name another place for the store') from error
        yield

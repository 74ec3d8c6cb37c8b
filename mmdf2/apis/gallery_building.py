"""From a folder of photos to a gallery, in one process or several, however often the work is interrupted.

What has been extracted is kept in a journal, which is a folder. ``job.json`` says what is to be done. Each pair of
``part-*.json`` and ``part-*.npy`` holds the garments of some images and their embeddings; the JSON file is written
last, so that a part without it does not count. Any number of processes may write parts. ``ids.json`` appears when the
items begin to enter the gallery and holds the id of the first one, and the images that others added meanwhile.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mmdf2 import files
from mmdf2.apis.inferencer import ClothesInferencer, ImageResult
from mmdf2.apis.inputs import check_batch_size, check_score_threshold
from mmdf2.apis.search import ExtractedItems, extracted_items, model_similarity
from mmdf2.faults import FaultsInARow
from mmdf2.retrieval.gallery import Gallery, GalleryError, one_writer
from mmdf2.retrieval.items import GalleryItem

_IMAGES_PER_PART = 64
_ITEMS_AT_ONCE = 10_000


@dataclass
class AddedImages:
    """What became of the images that were to be added.

    Attributes:
        images: Number of images given.
        items: Number of items added.
        present: Number of images that the gallery had before; they are left as they are.
        empty: Number of images without a garment.
        broken: Image -> why it could not be read.
        resumed: Number of images that an interrupted run had already extracted.
    """

    images: int = 0
    items: int = 0
    present: int = 0
    empty: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    resumed: int = 0


def add_images(
    gallery: Gallery | None,
    inferencer: ClothesInferencer,
    images: Iterable[str],
    journal_folder,
    fields: dict[str, dict] | None = None,
    score_threshold: float = 0.3,
    batch_size: int = 1,
    progress: bool = True,
) -> AddedImages | None:
    """Adds the garments of images to a gallery and saves it.

    What has been extracted is kept in a folder until the gallery is saved. After a kill, the same call continues the
    work, and no item is added twice. Where torch.distributed is initialised, the processes share the images.

    Args:
        gallery: The gallery, built with this model; its ``save`` knows its location. Only the first process needs it.
        inferencer: A model with a match head.
        images: Paths. The items of an image carry its ``photo_name``, so that it is never added under a second path.
        journal_folder: Where to keep what has been extracted; all processes need to see the same folder.
        fields: Image -> the caller's own fields of its items.
        score_threshold: Garments with a lower score are left out; 0 to 1.
        batch_size: Number of images per forward pass.
        progress: Whether to show a progress bar.

    Returns:
        What became of the images in the first process, which alone changes the gallery; None in all others.

    Raises:
        GalleryError: The folder holds another unfinished extraction, or the gallery holds other items under the ids
            that were reserved for this one.
        ValueError: ``score_threshold`` or ``batch_size`` is out of range.
    """
    check_score_threshold(score_threshold)
    check_batch_size(batch_size)
    rank, processes = process_rank()
    with adding(journal_folder) if rank == 0 else contextlib.nullcontext():
        if rank == 0:
            Journal.begin(journal_folder, _job(gallery, inferencer, images, score_threshold))
        _wait(processes)
        journal = Journal(journal_folder)
        done = journal.done()
        # The images are shared out by their place in the job, which no progress of another process changes.
        own = [image for image in journal.job.wanted[rank::processes] if image not in done]
        with tqdm(total=len(own), desc='garments', unit='image', disable=not progress or rank > 0) as bar:
            journal.extract(inferencer, own, batch_size, bar.update)
        _wait(processes)
        if rank > 0:
            return None
        added = AddedImages(len(journal.job.images), present=len(journal.job.present), resumed=len(done))
        added.broken = {files.printable(image): error for image, error in journal.done().items() if error is not None}
        with gallery.changing():
            _fill(gallery, journal, {photo_name(image): entry for image, entry in (fields or {}).items()}, added)
        journal.remove()
        return added


def adding(journal_folder) -> contextlib.AbstractContextManager[None]:
    """A block in which no other process builds a gallery or adds to it by this folder; it waits for another one.

    The gallery itself is not locked while the images are looked at, so that others may remove items meanwhile.

    Raises:
        GalleryError: The place of the folder cannot be locked.
    """
    folder = Path(journal_folder)
    return one_writer(files.lock_beside(folder), folder.with_suffix(''))


def photo_name(path) -> str:
    """The one name of a photo, whatever path leads to it: its absolute path, with links followed."""
    return os.path.realpath(path)


def photo_names(path) -> set[str]:
    """The names that the items of a photo may carry: its ``photo_name``, or a path as mmdf2 0.1 kept it."""
    name = photo_name(path)
    return {name, os.fspath(path), os.path.abspath(path), os.path.relpath(name), os.path.relpath(path)}


def _present(gallery: Gallery, names: dict[str, set[str]]) -> list[str]:
    """Returns those of the photos that the gallery has, in the given order.

    Args:
        gallery: The gallery.
        names: ``photo_name`` of each photo -> all names that its items may carry.
    """
    wanted = sorted(set().union(*names.values()))
    known = {item.image for item in gallery.items(gallery.ids_where('image', wanted)).values()}
    return [image for image, own in names.items() if not own.isdisjoint(known)]


def process_rank() -> tuple[int, int]:
    """The number of this process and how many there are."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _wait(processes: int) -> None:
    if processes > 1:
        torch.distributed.barrier()


@dataclass(frozen=True)
class Job:
    """What is to be extracted.

    Attributes:
        model: The ``model_identity`` of the model.
        similarity: Fingerprint of the model's similarity.
        score_threshold: Garments with a lower score are left out; 0 to 1.
        images: Paths of the images, each once.
        present: Those of the images that the gallery had when the job began; they are not extracted.
    """

    model: str
    similarity: str
    score_threshold: float
    images: list[str]
    present: list[str]

    @property
    def wanted(self) -> list[str]:
        """The images to be extracted."""
        present = set(self.present)
        return [image for image in self.images if image not in present]


def _job(gallery: Gallery, inferencer: ClothesInferencer, images: Iterable[str], score_threshold: float) -> Job:
    """What is to be done with images, whose paths may name a photo in several ways."""
    names: dict[str, set[str]] = {}
    for image in images:
        names.setdefault(photo_name(image), set()).update(photo_names(image))
    return Job(
        model=gallery.model,
        similarity=model_similarity(inferencer).fingerprint(),
        score_threshold=float(score_threshold),
        images=list(names),
        present=_present(gallery, names),
    )


class Journal:
    """What has been extracted of a job.

    Args:
        folder: A folder made by :meth:`begin`.

    Raises:
        GalleryError: The folder holds no job.
    """

    def __init__(self, folder) -> None:
        self.folder = Path(folder)
        path = self.folder / 'job.json'
        try:
            self.job = Job(**files.parse_json(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise GalleryError(
                f'{path} is not a job of an extraction ({error}); remove {self.folder} to begin anew'
            ) from error

    @classmethod
    def begin(cls, folder, job: Job) -> 'Journal':
        """Begins a job, or continues it where the folder holds it.

        Raises:
            GalleryError: The folder holds another job. (A job that differs only in ``present`` is the same job.)
        """
        path = Path(folder, 'job.json')
        if not path.exists():
            files.write_json(path, asdict(job), indent=None)
        journal = cls(folder)
        _check_same(path, journal.job, job)
        return journal

    def done(self) -> dict[str, str | None]:
        """The images that are done, each with None or with the reason why it could not be read."""
        return {entry['image']: entry['error'] for part in self._parts() for entry in _entries(part)}

    def extract(self, inferencer: ClothesInferencer, images: list[str], batch_size: int = 1, progress=None) -> None:
        """Extracts some images of the job; each part of them is kept as soon as it is complete.

        Args:
            inferencer: The model of the job.
            images: Images of the job that are not done.
            batch_size: Number of images per forward pass.
            progress: A function without arguments, called after each image.
        """
        faults = FaultsInARow()
        for start in range(0, len(images), _IMAGES_PER_PART):
            names = images[start : start + _IMAGES_PER_PART]
            entries, embeddings = [], []
            for name, result in zip(names, inferencer.predict(names, batch_size), strict=True):
                garments, error = [], result.error
                if error is None:
                    try:
                        garments, vectors = self._garments_of(result, name)
                        embeddings.append(vectors)
                        faults.passed()
                    except Exception as fault:
                        error = faults.failed(fault, 'extracting the garments')
                entries.append({'image': name, 'error': error, 'garments': garments})
                if progress is not None:
                    progress()
            self._write_part(entries, embeddings)

    def _garments_of(self, result: ImageResult, name: str) -> tuple[list[dict], np.ndarray]:
        """The garments of an image as rows of a part, and their embeddings; ValueError when a value is not finite."""
        found = extracted_items(result.data_sample.pred_instances, name, self.job.score_threshold)
        rows = [
            {'box': item.box, 'category_id': item.category_id, 'landmarks': item.landmarks, 'score': score}
            for item, score in zip(found.items, found.scores.tolist(), strict=True)
        ]
        json.dumps(rows, allow_nan=False)
        if not np.isfinite(found.embeddings).all():
            raise ValueError('the model gave embeddings that are not finite')
        return rows, found.embeddings

    def place(self, choose: Callable[[], tuple[int, list[str]]]) -> tuple[int, list[str]]:
        """The id of the job's first item in the gallery, and the images that others have added since the job began.

        Args:
            choose: Reserves the ids in the gallery and returns both; called only once per job.
        """
        path = self.folder / 'ids.json'
        if not path.exists():
            first, present = choose()
            files.write_json(path, {'first': first, 'present': present})
        try:
            place = files.parse_json(path.read_bytes())
            return int(place['first']), list(place.get('present', ()))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(path, error) from error

    def garments(self) -> dict[str, ExtractedItems]:
        """The garments of each wanted image that could be read, in the order of the job."""
        found = {}
        for part in self._parts():
            entries = _entries(part)
            embeddings, end = _embeddings(part, entries), 0
            for entry in entries:
                begin, end = end, end + len(entry['garments'])
                if entry['error'] is None:
                    items = [
                        GalleryItem(
                            image=entry['image'],
                            box=tuple(row['box']),
                            category_id=row['category_id'],
                            landmarks=row['landmarks'],
                        )
                        for row in entry['garments']
                    ]
                    scores = np.array([row['score'] for row in entry['garments']], dtype=np.float64)
                    found[entry['image']] = ExtractedItems(items, scores, embeddings[begin:end])
        return {image: found[image] for image in self.job.wanted if image in found}

    def remove(self) -> None:
        """Deletes the folder."""
        files.delete_folder(self.folder)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob('part-*.json'))

    def _write_part(self, entries: list[dict], embeddings: list[np.ndarray]) -> None:
        path = self.folder / f'part-{uuid.uuid4().hex}.json'
        rows = np.concatenate(embeddings) if embeddings else np.zeros((0, 1), np.float32)
        with files.open_for_replacement(path.with_suffix('.npy'), 'wb') as file:
            np.lib.format.write_array(file, rows, allow_pickle=False)
        files.write_json(path, entries, indent=None)


def _check_same(path: Path, found: Job, job: Job) -> None:
    for name in ('model', 'similarity', 'score_threshold', 'images'):
        own, wanted = getattr(found, name), getattr(job, name)
        if own != wanted:
            what = 'other images' if name == 'images' else f'{name} {own!r}, not {wanted!r}'
            raise GalleryError(
                f'{path.parent} holds an unfinished extraction with {what}; finish that with the same arguments, or '
                'remove the folder to begin anew'
            )


def _entries(part: Path) -> list[dict]:
    """What is known of the images of a part; GalleryError when its file is damaged."""
    try:
        entries = files.parse_json(part.read_bytes())
        if not all(set(entry) == {'image', 'error', 'garments'} for entry in entries):
            raise ValueError('an entry is not that of an image')
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(part, error) from error
    return entries


def _embeddings(part: Path, entries: list[dict]) -> np.ndarray:
    """(n, D) embeddings of a part's garments, memory-mapped; GalleryError when their file is damaged."""
    path, count = part.with_suffix('.npy'), sum(len(entry['garments']) for entry in entries)
    try:
        rows = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, error) from error
    if rows.ndim != 2 or len(rows) != count:
        raise _damaged(path, f'it holds {rows.shape} numbers, and the part {count} garments')
    return rows


def _damaged(path: Path, reason: object) -> GalleryError:
    return GalleryError(f'{path} is damaged ({reason}); remove {path.parent} to begin the extraction anew')


def _fill(gallery: Gallery, journal: Journal, fields: dict[str, dict], added: AddedImages) -> None:
    """Puts everything that was extracted into the gallery and counts it in ``added``."""
    found = journal.garments()

    def choose() -> tuple[int, list[str]]:
        present = _present(gallery, {image: photo_names(image) for image in found})
        left = set(found) - set(present)
        return gallery.reserve(sum(len(found[image].items) for image in left)), present

    first, present = journal.place(choose)
    for image in present:
        found.pop(image, None)
    added.present += len(present)
    added.items = sum(len(garments.items) for garments in found.values())
    items, embeddings = [], []
    for image, garments in found.items():
        added.empty += not garments.items
        items += [replace(item, fields=fields.get(image, {})) for item in garments.items]
        if garments.items:
            embeddings.append(np.asarray(garments.embeddings))
        if len(items) >= _ITEMS_AT_ONCE:
            first = _put_missing(gallery, journal.folder, first, np.concatenate(embeddings), items)
            items, embeddings = [], []
    if items:
        _put_missing(gallery, journal.folder, first, np.concatenate(embeddings), items)


def _put_missing(gallery: Gallery, folder, first: int, embeddings: np.ndarray, items: list[GalleryItem]) -> int:
    """Puts those items that an interrupted run did not put; returns the id after the last one."""
    ids = range(first, first + len(items))
    there = gallery.items(ids)
    for number, item in zip(ids, items, strict=True):
        if number in there and replace(there[number], fields={}) != replace(item, fields={}):
            raise GalleryError(
                f'item {number} of the gallery is of {there[number].image}, not of {item.image}: others were added '
                f'after the extraction was interrupted; remove {folder} to begin anew'
            )
    rows = [row for row, number in enumerate(ids) if there.get(number) != items[row]]
    gallery.put([ids[row] for row in rows], embeddings[rows], [items[row] for row in rows])
    return ids.stop

"""The garments of many images, extracted once, however often the work is interrupted.

A journal is a folder: ``job.json`` says what is to be done, and each ``part-*.json`` with the ``part-*.npy`` of its
embeddings holds some images that are done. Both are written beside and renamed, the JSON last; any number of processes
may write parts. Once the garments are on their way into the gallery, ``ids.json`` has the id of the first.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmdf2.apis.embedded_garments import EmbeddedGarments, embedded_garments
from mmdf2.apis.inferencer import ClothesInferencer
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.items import GalleryItem

_IMAGES_OF_PART = 64


@dataclass(frozen=True)
class Job:
    """What is to be extracted.

    Attributes:
        model: What tells the model apart.
        similarity: Fingerprint of its similarity.
        score_threshold: Garments with a lower score are left out.
        images: Paths, each once.
        present: Those that the gallery had when the job began; they are left alone.
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


class Journal:
    """What has been extracted of a job.

    Args:
        folder: Made by ``begin``.

    Raises:
        GalleryError: It holds no job.
    """

    def __init__(self, folder) -> None:
        self.folder = Path(folder)
        path = self.folder / 'job.json'
        try:
            self.job = Job(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise GalleryError(
                f'{path} is no job of an extraction ({error}); remove {self.folder} to begin anew'
            ) from error

    @classmethod
    def begin(cls, folder, job: Job) -> 'Journal':
        """Begins a job, or goes on with it where the folder holds it.

        Raises:
            GalleryError: The folder holds another job; which images were present does not make it another.
        """
        path = Path(folder, 'job.json')
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, json.dumps(asdict(job)).encode())
        journal = cls(folder)
        _check_same(path, journal.job, job)
        return journal

    def done(self) -> dict[str, str | None]:
        """Image -> None, or why it could not be read, of those that are done."""
        return {entry['image']: entry['error'] for part in self._parts() for entry in _entries(part)}

    def extract(self, inferencer: ClothesInferencer, images: list[str], batch_size: int = 1, progress=None) -> None:
        """Extracts some images of the job, those of each part to last together.

        Args:
            inferencer: The model of the job.
            images: Of the job, not done.
            batch_size: Images at a time.
            progress: Called after each image.
        """
        for start in range(0, len(images), _IMAGES_OF_PART):
            names = images[start : start + _IMAGES_OF_PART]
            entries, embeddings = [], []
            for name, result in zip(names, inferencer.predict(names, batch_size), strict=True):
                entry = {'image': name, 'error': result.error, 'garments': []}
                if result.error is None:
                    instances = result.data_sample.pred_instances
                    garments = embedded_garments(instances, name, self.job.score_threshold)
                    entry['garments'] = [
                        {'box': item.box, 'category_id': item.category_id, 'landmarks': item.landmarks, 'score': score}
                        for item, score in zip(garments.items, garments.scores.tolist(), strict=True)
                    ]
                    embeddings.append(garments.embeddings)
                entries.append(entry)
                if progress is not None:
                    progress()
            self._write_part(entries, embeddings)

    def first_id(self, reserve: Callable[[], int]) -> int:
        """The id that the first garment has or will have in the gallery; reserved at the first call of all."""
        path = self.folder / 'ids.json'
        if not path.exists():
            _write(path, json.dumps({'first': reserve()}).encode())
        return int(json.loads(path.read_bytes())['first'])

    def garments(self) -> dict[str, EmbeddedGarments]:
        """Image -> its garments, of all images of the job that could be read, in the job's order."""
        found = {}
        for part in self._parts():
            embeddings, end = np.load(part.with_suffix('.npy'), mmap_mode='r', allow_pickle=False), 0
            for entry in _entries(part):
                begin, end = end, end + len(entry['garments'])
                if entry['error'] is None:
                    items = [
                        GalleryItem(entry['image'], tuple(row['box']), row['category_id'], row['landmarks'])
                        for row in entry['garments']
                    ]
                    scores = np.array([row['score'] for row in entry['garments']], dtype=np.float64)
                    found[entry['image']] = EmbeddedGarments(items, scores, embeddings[begin:end])
        return {image: found[image] for image in self.job.images if image in found}

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob('part-*.json'))

    def _write_part(self, entries: list[dict], embeddings: list[np.ndarray]) -> None:
        path = self.folder / f'part-{uuid.uuid4().hex}.json'
        rows = np.concatenate(embeddings) if embeddings else np.zeros((0, 1), np.float32)
        beside = path.with_suffix('.npy.tmp')
        with open(beside, 'wb') as file:
            np.lib.format.write_array(file, rows, allow_pickle=False)
        os.replace(beside, path.with_suffix('.npy'))
        _write(path, json.dumps(entries, allow_nan=False).encode())


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
    return json.loads(part.read_bytes())


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    beside.write_bytes(content)
    os.replace(beside, path)

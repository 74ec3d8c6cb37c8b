"""From a folder of photos to a gallery, in one process or several."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from tqdm import tqdm

from mmdf2.apis.embedded_garments import model_similarity
from mmdf2.apis.extraction import Job, Journal
from mmdf2.apis.inferencer import ClothesInferencer
from mmdf2.retrieval.gallery import Gallery, GalleryError
from mmdf2.retrieval.items import GalleryItem

_ITEMS_AT_ONCE = 10_000


@dataclass
class AddedImages:
    """What became of the images that were to be added.

    Attributes:
        images: How many were looked at.
        items: Garments added.
        present: Images that the gallery had already; they are left as they are.
        empty: Images without a garment.
        broken: Image -> why it could not be read.
        resumed: Images that an interrupted run had done.
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

    What has been extracted is kept in a folder until the gallery is saved: after a kill, the same call goes on, and
    nothing comes in twice. Where torch.distributed is initialised, the processes share the images.

    Args:
        gallery: Of this model; its ``save`` knows where to. Only the first process needs it.
        inferencer: With a match head.
        images: Paths; each is the name of its items' image.
        journal_folder: Where to keep what has been extracted; the processes share it.
        fields: Image -> the caller's own fields of its items.
        score_threshold: Garments with a lower score are left out; 0 to 1.
        batch_size: Images at a time.
        progress: Whether to show a bar.

    Returns:
        What became of them; None in all processes but the first, which alone changes the gallery.

    Raises:
        GalleryError: The folder holds another unfinished extraction, or the gallery other items under its ids.
    """
    rank, processes = process_rank()
    if rank == 0:
        similarity = model_similarity(inferencer).fingerprint()
        images = list(dict.fromkeys(images))
        present = _present(gallery, images)
        Journal.begin(journal_folder, Job(gallery.model, similarity, float(score_threshold), images, present))
    _wait(processes)
    journal = Journal(journal_folder)
    done = journal.done()
    # By place in the job, which is the same however much another process has done already.
    own = [image for image in journal.job.wanted[rank::processes] if image not in done]
    with tqdm(total=len(own), desc='garments', unit='image', disable=not progress or rank > 0) as bar:
        journal.extract(inferencer, own, batch_size, bar.update)
    _wait(processes)
    if rank > 0:
        return None
    added = AddedImages(len(journal.job.images), present=len(journal.job.present), resumed=len(done))
    added.broken = {image: error for image, error in journal.done().items() if error is not None}
    _fill(gallery, journal, fields or {}, added)
    gallery.save()
    journal.remove()
    return added


def _present(gallery: Gallery, images: list[str]) -> list[str]:
    """Those images that the gallery has, in order."""
    known = {item.image for item in gallery.items(gallery.ids_where('image', images)).values()}
    return [image for image in images if image in known]


def start_processes() -> None:
    """Joins the processes that torchrun has started; a GPU each where there are GPUs."""
    # One process may have more to do than another: no usual limit of waiting.
    torch.distributed.init_process_group('gloo', timeout=datetime.timedelta(days=7))


def process_rank() -> tuple[int, int]:
    """The number of this process and how many there are."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _wait(processes: int) -> None:
    if processes > 1:
        torch.distributed.barrier()


def _fill(gallery: Gallery, journal: Journal, fields: dict[str, dict], added: AddedImages) -> None:
    found = journal.garments()
    added.items = sum(len(garments.items) for garments in found.values())
    first = journal.first_id(lambda: gallery.reserve(added.items))
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
    """Puts those items that an interrupted run did not; returns the id after the last."""
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

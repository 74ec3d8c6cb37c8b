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
from mmdf2.retrieval.gallery import Gallery

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
    gallery: Gallery,
    inferencer: ClothesInferencer,
    images: Iterable[str],
    journal_folder,
    fields: dict[str, dict] | None = None,
    score_threshold: float = 0.3,
    batch_size: int = 1,
    progress: bool = True,
) -> AddedImages | None:
    """Adds the garments of images to a gallery and saves it.

    What has been extracted is kept in a folder until the gallery is saved: after a kill, the same call goes on. Where
    torch.distributed is initialised, the processes share the images.

    Args:
        gallery: Of this model; its ``save`` knows where to.
        inferencer: With a match head.
        images: Paths; each is the name of its items' image.
        journal_folder: Where to keep what has been extracted.
        fields: Image -> the caller's own fields of its items.
        score_threshold: Garments with a lower score are left out; 0 to 1.
        batch_size: Images at a time.
        progress: Whether to show a bar.

    Returns:
        What became of them; None in all processes but the first, which alone changes the gallery.

    Raises:
        GalleryError: The folder holds another unfinished extraction.
    """
    images = list(dict.fromkeys(images))
    known = gallery.items(gallery.ids_where('image', images))
    present = {item.image for item in known.values()}
    job = Job(
        gallery.model,
        model_similarity(inferencer).fingerprint(),
        float(score_threshold),
        [image for image in images if image not in present],
    )
    journal = Journal(journal_folder, job)
    done = journal.done()
    rank, processes = _processes()
    own = [image for image in job.images if image not in done][rank::processes]
    with tqdm(total=len(own), desc='garments', unit='image', disable=not progress or rank > 0) as bar:
        journal.extract(inferencer, own, batch_size, bar.update)
    if processes > 1:
        torch.distributed.barrier()
    if rank > 0:
        return None
    added = AddedImages(len(images), present=len(present), resumed=len(done))
    added.broken = {image: error for image, error in journal.done().items() if error is not None}
    _fill(gallery, journal, fields or {}, added)
    gallery.save()
    journal.remove()
    return added


def start_processes() -> None:
    """Joins the processes that torchrun has started; a GPU each where there are GPUs."""
    # One process may have more to do than another: no usual limit of waiting.
    torch.distributed.init_process_group('gloo', timeout=datetime.timedelta(days=7))


def _processes() -> tuple[int, int]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _fill(gallery: Gallery, journal: Journal, fields: dict[str, dict], added: AddedImages) -> None:
    items, embeddings = [], []
    for image, garments in journal.garments().items():
        added.empty += not garments.items
        if not garments.items:
            continue
        items += [replace(item, fields=fields.get(image, {})) for item in garments.items]
        embeddings.append(np.asarray(garments.embeddings))
        if len(items) >= _ITEMS_AT_ONCE:
            added.items += len(gallery.add(np.concatenate(embeddings), items))
            items, embeddings = [], []
    if items:
        added.items += len(gallery.add(np.concatenate(embeddings), items))

"""Copying a gallery and its calibration, batch by batch. A copy that was killed continues where it stopped."""

from collections.abc import Callable

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.retrieval.gallery import Gallery, GalleryError, check_similarity
from mmdf2.retrieval.local.gallery import FaissGallery

_BATCH = 5000  # items


def transfer(source: FaissGallery, target: Gallery, progress: Callable[[int, int], None] | None = None) -> int:
    """Copies all items, each under its own id.

    An item that the target has already is compared with the source's and not written again. So nothing is there twice,
    whenever an earlier transfer was killed, and afterwards the target holds the source's items and no other.

    Args:
        source: The gallery to copy, which nobody may change meanwhile.
        target: The gallery to write to: an empty one, or one that an earlier transfer of this source left.
        progress: Called after each batch with the number of items that are done and the number of all items.

    Returns:
        How many items were written. Those that were there already do not count.

    Raises:
        GalleryError: The target is of another model, or holds an item that is not the source's.
    """
    with target.changing():
        count = _transfer(source, target, progress)
        if target.calibration is None and source.calibration is not None:
            target.set_calibration(source.calibration)
        return count


def _transfer(source: FaissGallery, target: Gallery, progress: Callable[[int, int], None] | None) -> int:
    check_similarity('the target of the transfer', target.model, target.similarity, source.similarity)
    parts = [source.partition_arrays(category) for category in range(1, NUM_CATEGORIES + 1)]
    categories = np.repeat(np.arange(NUM_CATEGORIES), [len(ids) for _, ids in parts])
    rows = np.concatenate([np.arange(len(ids)) for _, ids in parts])
    ids = np.concatenate([ids for _, ids in parts])
    order, written = np.argsort(ids), 0
    empty = len(target) == 0
    if not empty:
        _refuse_strangers(target, ids)
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        embeddings = np.stack([parts[categories[place]][0][rows[place]] for place in chosen])
        written += _transfer_batch(source, target, ids[chosen].tolist(), embeddings, empty)
        if progress is not None:
            progress(min(start + _BATCH, len(order)), len(order))
    return written


def _transfer_batch(source: FaissGallery, target: Gallery, ids: list[int], embeddings: np.ndarray, empty: bool) -> int:
    """Copies the items of some ids and their embeddings (n, D); returns how many were written.

    ``empty`` says that the target had no items before the transfer, and needs no questions.
    """
    items = source.items(ids)
    there, vectors = ({}, {}) if empty else (target.items(ids), target.embeddings(ids))
    missing = [row for row, number in enumerate(ids) if number not in there]
    for row, number in enumerate(ids):
        if number in there and not (
            there[number] == items[number] and np.array_equal(vectors[number], embeddings[row])
        ):
            raise GalleryError(
                f'item {number} of the target is not that of the source ({there[number].image!r} and '
                f'{items[number].image!r}): transfer into an empty gallery'
            )
    target.put([ids[row] for row in missing], embeddings[missing], [items[ids[row]] for row in missing])
    return len(missing)


def _refuse_strangers(target: Gallery, ids: np.ndarray) -> None:
    """GalleryError when the target holds an id that the source does not have."""
    known = 0
    for start in range(0, len(ids), 10 * _BATCH):
        known += len(target.present(ids[start : start + 10 * _BATCH].tolist()))
    if known != len(target):
        raise GalleryError(
            f'the target holds {len(target) - known} items that the source does not have: use an empty gallery'
        )

"""Whether a store still is what the files of its split make: by sizes and times, and by contents where these differ.

Looking at all sizes and times takes a fraction of a second. Where they differ (a file was changed, or the dataset was
copied), the files are read again and compared with the store's rows. If nothing differs, the new times are kept in the
store's folder, so that the next opening is quick again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmdf2.datasets.listing import ImageFiles
from mmdf2.datasets.store import MANIFEST, Store
from mmdf2.files import AnyPath, parse_json, sha256, write_json

# The file of the store's folder that keeps the times of a later check.
CHECKED = 'checked.json'

# Makes the columns of some images from their files, as ``mmdf2.datasets.prepare.read_columns`` does.
ReadColumns = Callable[[list[ImageFiles]], dict[str, np.ndarray]]


def is_known(store: Store, stamp: str) -> bool:
    """Whether all files of the split have the sizes and times with which the store was made or last checked.

    Args:
        store: The split's store.
        stamp: What ``mmdf2.datasets.listing.split_stamp`` makes of the split.
    """
    return stamp in (store.manifest.get('stamp'), _checked(store.folder).get('stamp'))


def unknown_parts(store: Store, signatures: list[str]) -> list[int]:
    """Finds the parts of a split whose files have other sizes or times than when the store was made or last checked.

    Args:
        store: The split's store.
        signatures: Of each part of the split, in order, what ``mmdf2.datasets.listing.signature`` makes of its files.

    Returns:
        Numbers of the parts, rising.
    """
    made, checked = store.manifest.get('parts'), _checked(store.folder).get('parts')
    return [
        number
        for number, found in enumerate(signatures)
        if found not in (_entry(made, number), _entry(checked, number))
    ]


def remember(folder: AnyPath, stamp: str, signatures: list[str]) -> None:
    """Keeps the sizes and times of the files of a split that were found to make the store in ``folder``.

    Args:
        folder: The folder of the store.
        stamp: What ``is_known`` is given for all files.
        signatures: What ``unknown_parts`` is given for each part.

    Raises:
        OSError: The folder cannot be written.
    """
    # A store that takes this one's place has another manifest, for which these do not count.
    write_json(Path(folder, CHECKED), {'manifest': sha256(Path(folder, MANIFEST)), 'stamp': stamp, 'parts': signatures})


def differing_files(folder: AnyPath, images: list[ImageFiles], read: ReadColumns) -> list[str]:
    """Compares the files of some images with the rows of a store.

    Args:
        folder: The folder of the store.
        images: The files, by rising image id.
        read: Makes columns from files.

    Returns:
        One name of a file for each image that the store has otherwise, such as 'annos/000001.json'.
    """
    store = Store.open(folder)
    if _same(store, images, read(images)):
        return []
    return [_culprit(store, files, columns) for files in images if not _same(store, [files], columns := read([files]))]


def _same(store: Store, images: list[ImageFiles], columns: dict[str, np.ndarray]) -> bool:
    first = np.searchsorted(store.image_ids, images[0].image_id)
    last = np.searchsorted(store.image_ids, images[-1].image_id, side='right')
    stored = store.columns(int(first), int(last))
    return all(np.array_equal(columns[name], rows) for name, rows in stored.items())


def _culprit(store: Store, files: ImageFiles, columns: dict[str, np.ndarray]) -> str:
    """The image, if its size is not the one that the store has, else the annotation; both, where neither is sure."""
    image, annotation = f'image/{files.image.name}', f'annos/{files.annotation.name}'
    row = int(np.searchsorted(store.image_ids, files.image_id))
    known = row < len(store) and store.image_ids[row] == files.image_id
    # One side has no row: a file cannot be used now, or it could not be when the store was made.
    if not known or not len(columns['widths']):
        return f'{image} or {annotation}'
    stored = store.columns(row, row + 1)
    return image if any(columns[name] != stored[name] for name in ('widths', 'heights')) else annotation


def _checked(folder: Path) -> dict[str, Any]:
    """The contents of ``checked.json``; empty when it is missing, damaged or of another store."""
    try:
        contents = parse_json((folder / CHECKED).read_bytes())
        return contents if contents['manifest'] == sha256(folder / MANIFEST) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _entry(parts: Any, number: int) -> Any:
    return parts[number] if isinstance(parts, list) and number < len(parts) else None

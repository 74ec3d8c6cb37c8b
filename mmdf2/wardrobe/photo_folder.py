"""Folders of a user's photos that a wardrobe is drawn with: photos of places, and photos of cloth."""

import hashlib
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from mmdf2.files import sha256
from mmdf2.images import READABLE_SUFFIXES, read_image

LONGER_SIDE = 1024
KEPT = 48  # photos that are kept in memory


@lru_cache(maxsize=8)
def photos_in(folder: str) -> tuple[Path, ...]:
    """Lists the images of a folder and of the folders in it, sorted by name."""
    paths = (path for path in Path(folder).rglob('*') if path.suffix.lower() in READABLE_SUFFIXES and path.is_file())
    return tuple(sorted(paths, key=lambda path: path.relative_to(folder).as_posix()))


def nth_photo(folder: str, number: int) -> np.ndarray:
    """Reads a photo of a folder; numbers beyond the last photo start again with the first.

    Returns:
        (H, W, 3) uint8 BGR; a large photo is reduced to a longer side of 1024 pixels.
    """
    photos = photos_in(folder)
    path = photos[number % len(photos)]
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=KEPT)
def _read(path: Path, modified: int) -> np.ndarray:
    """Reads a photo that was ``modified`` at this time, so that a replaced file is read again."""
    photo = np.ascontiguousarray(read_image(path)[..., ::-1])
    factor = LONGER_SIDE / max(photo.shape[:2])
    return cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else photo


def fingerprint(folder: str, what: str) -> str:
    """Reads every photo of a folder, and returns a hash of their names and contents.

    Raises:
        ValueError: There is no such folder, or it holds no image, or one that cannot be read.
    """
    if not Path(folder).is_dir():
        raise ValueError(f'{what} {folder}: there is no such folder; correct the path')
    photos_in.cache_clear()  # the folder may have changed since an earlier wardrobe of this process
    digest = hashlib.sha256()
    for path in photos_in(folder):
        try:
            read_image(path)
        except OSError as error:
            raise ValueError(f'{what} {folder}: {error}; remove it from the folder') from error
        digest.update(f'{path.relative_to(folder).as_posix()}\n{sha256(path)}\n'.encode())
    if not photos_in(folder):
        raise ValueError(f'{what} {folder}: the folder holds no image ({", ".join(sorted(READABLE_SUFFIXES))})')
    return digest.hexdigest()

"""Folders of a user's photos that a wardrobe is drawn with: photos of places, and photos of cloth."""

import hashlib
from functools import lru_cache
from pathlib import Path

from mmdf2.files import sha256
from mmdf2.images import READABLE_SUFFIXES, read_image


@lru_cache(maxsize=8)
def photos_in(folder: str) -> tuple[Path, ...]:
    """Lists the images of a folder and of the folders in it, sorted by name."""
    paths = (path for path in Path(folder).rglob('*') if path.suffix.lower() in READABLE_SUFFIXES and path.is_file())
    return tuple(sorted(paths, key=lambda path: path.relative_to(folder).as_posix()))


def nth_photo(folder: str, number: int) -> Path:
    """Path of a photo of a folder; numbers beyond the last photo start again with the first."""
    photos = photos_in(folder)
    return photos[number % len(photos)]


def fingerprint(folder: str, what: str) -> str:
    """Reads every photo of a folder, and returns a hash of their names and contents.

    Raises:
        ValueError: There is no such folder, or it holds no image, or one that cannot be read.
    """
    if not Path(folder).is_dir():
        raise ValueError(f'{what} {folder}: there is no such folder; correct the path')
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

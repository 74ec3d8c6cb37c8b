"""The images that a user hands over (files, folders, arrays), each with a name that no other has."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdf2.files import printable
from mmdf2.images import READABLE_SUFFIXES, read_image


@dataclass(frozen=True)
class ImageInput:
    """An image that has not been read yet.

    Attributes:
        name: Name of the image, which no other image of the same call has.
        source: Path of the image's file, or the image as an array.
    """

    name: str
    source: Path | np.ndarray

    @property
    def path(self) -> str | None:
        """Path of the image's file as text that can be printed and stored, or None for an array."""
        return None if isinstance(self.source, np.ndarray) else printable(self.source)

    def read(self) -> np.ndarray:
        """Reads the image.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            OSError: The file cannot be read as an image.
            ValueError: The array does not have this shape or type, or the name of the file is not UTF-8: such a name
                cannot stand in JSON and in galleries.
        """
        if not isinstance(self.source, np.ndarray):
            if self.path != str(self.source):
                raise ValueError(f'{self.path}: the name is not UTF-8; rename the file or its folder')
            return read_image(self.source)
        shape, dtype = self.source.shape, self.source.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f'an image must be (H, W, 3) uint8 RGB, got {shape} {dtype}')
        return self.source


def list_inputs(images) -> tuple[list[ImageInput], list[Path]]:
    """Lists the images of a path, a folder (with the folders in it), an array, or any iterable of those.

    Returns:
        The images, those of a folder in alphabetical order, and the files of the folders that do not have the suffix of
        an image.

    Raises:
        TypeError: ``images`` is something else.
        FileNotFoundError: ``images`` is a single path that does not exist. (A missing path in a list counts as an image
            that cannot be read.)
    """
    if isinstance(images, (str, Path)) and not Path(images).expanduser().exists():
        raise FileNotFoundError(f'{images}: there is no such image or folder')
    found, others, taken = [], [], {}
    for source, name in _sources(images):
        if isinstance(source, Path) and source.is_dir():
            for path in sorted(path for path in source.rglob('*') if path.is_file() or _leads_nowhere(path)):
                if path.suffix.lower() not in READABLE_SUFFIXES:
                    others.append(path)
                else:
                    relative = path.relative_to(source).with_suffix('')
                    found.append(ImageInput(_unique(printable('_'.join(relative.parts)), taken), path))
        else:
            found.append(ImageInput(_unique(printable(name), taken), source))
    return found, others


def check_score_threshold(score_threshold: float) -> None:
    """ValueError when the lowest score that detections may have is not 0 to 1, where it would leave out all or none."""
    if not 0 <= score_threshold <= 1:
        raise ValueError(f'score_threshold must be 0 to 1, as scores are, got {score_threshold}')


def check_batch_size(batch_size: int) -> None:
    """ValueError when the number of images per forward pass is below 1."""
    if batch_size < 1:
        raise ValueError(f'batch_size must be 1 or more, got {batch_size}')


def _sources(images) -> Iterator[tuple[Path | np.ndarray, str]]:
    if isinstance(images, np.ndarray):
        yield images, 'image'
    elif isinstance(images, (str, Path)):
        path = Path(images).expanduser()
        yield path, path.stem
    elif isinstance(images, Iterable):
        for image in images:
            yield from _sources(image)
    else:
        raise TypeError(f'images must be a path, a folder, an array or a list of those, got {type(images).__name__}')


def _leads_nowhere(path: Path) -> bool:
    """Whether a path is a link to a file that does not exist, which counts as an image that cannot be read."""
    return path.is_symlink() and not path.exists()


def _unique(name: str, taken: dict[str, int]) -> str:
    """Returns ``name``, with a number appended if it is taken.

    Names that differ only in case count as equal, because some file systems do not distinguish them.
    """
    candidate = name
    while candidate.lower() in taken:
        taken[name.lower()] += 1
        candidate = f'{name}-{taken[name.lower()]}'
    taken[candidate.lower()] = 1
    return candidate

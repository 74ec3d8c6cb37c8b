"""The files of a split: which annotation belongs to which image, and whether either has changed."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mmdf2.datasets.annotation import Problem
from mmdf2.files import AnyPath

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image of a split.

    Attributes:
        image_id: The number that is the files' name.
        image: Path of the image.
        annotation: Path of its annotation.
    """

    image_id: int
    image: Path
    annotation: Path


@dataclass(frozen=True)
class Listing:
    """A split's files.

    Attributes:
        images: The images that have an annotation, by rising image id.
        problems: What is wrong with the other files.
        digest: Hash of all file names, by which a store made from other files is recognised.
    """

    images: list[ImageFiles]
    problems: list[Problem]
    digest: str


def list_split(root: AnyPath, split: str) -> Listing:
    """Lists ``ROOT/<split>/image`` and ``ROOT/<split>/annos``.

    Raises:
        FileNotFoundError: A folder is missing.
    """
    image_names, annotation_names = _names(root, split)
    problems: list[Problem] = []
    images = _by_id(image_names, IMAGE_SUFFIXES, 'image', problems)
    annotations = _by_id(annotation_names, ('.json',), 'annos', problems)
    for image_id in sorted(images.keys() - annotations.keys()):
        name = images[image_id]
        problems.append(Problem('missing annotation', f'image/{name}', f'there is no annos/{Path(name).stem}.json'))
    for image_id in sorted(annotations.keys() - images.keys()):
        name = annotations[image_id]
        problems.append(Problem('missing image', f'annos/{name}', f'there is no image/{Path(name).stem}.jpg'))
    usable = [
        ImageFiles(
            image_id=image_id,
            image=Path(root, split, 'image', images[image_id]),
            annotation=Path(root, split, 'annos', annotations[image_id]),
        )
        for image_id in sorted(images.keys() & annotations.keys())
    ]
    return Listing(usable, problems, _digest(image_names, annotation_names))


def files_digest(root: AnyPath, split: str) -> str:
    """Computes only the ``digest`` of a split's ``Listing``, at a tenth of the cost.

    Raises:
        FileNotFoundError: A folder is missing.
    """
    return _digest(*_names(root, split))


def signature(images: list[ImageFiles]) -> str:
    """Hash of names, sizes and modification times, which changes when a file does; a missing file counts as missing."""
    lines = []
    for files in images:
        for path in (files.image, files.annotation):
            try:
                status = path.stat()
                lines.append(f'{path.name} {status.st_size} {status.st_mtime_ns}')
            except OSError:
                lines.append(f'{path.name} missing')
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def _digest(image_names: list[str], annotation_names: list[str]) -> str:
    text = '\0'.join([*image_names, '', *annotation_names])
    return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()


def _names(root: AnyPath, split: str) -> tuple[list[str], list[str]]:
    return _names_in(Path(root, split, 'image')), _names_in(Path(root, split, 'annos'))


def _names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in found)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f'no folder {folder}; DeepFashion2 is laid out as ROOT/train/image/000001.jpg with '
            'ROOT/train/annos/000001.json, and the same for validation'
        ) from None


def _by_id(names: list[str], suffixes: tuple[str, ...], folder: str, problems: list[Problem]) -> dict[int, str]:
    found: dict[int, str] = {}
    for name in names:
        match = re.fullmatch(r'(\d{1,18})(\.\w+)', name, flags=re.ASCII)
        if not match or match[2].lower() not in suffixes:
            expected = f'digits and {" or ".join(suffixes)}, as 000001{suffixes[0]}'
            problems.append(Problem('bad file name', f'{folder}/{name!a}'.replace("'", ''), f'must be {expected}'))
        elif int(match[1]) in found:
            detail = f'{found[int(match[1])]} has image id {int(match[1])} too'
            problems.append(Problem('duplicate image id', f'{folder}/{name}', detail))
        else:
            found[int(match[1])] = name
    return found

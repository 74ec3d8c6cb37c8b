"""The files of a split: which annotation belongs to which image, and whether either has changed."""

import hashlib
import os
import re
from collections.abc import Iterable
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
        stamps: Name, size in bytes and times of the last change (ns) of the image and of the annotation, as one text
            each; a link that leads nowhere has 'missing' for size and times.
    """

    image_id: int
    image: Path
    annotation: Path
    stamps: tuple[str, str]


@dataclass(frozen=True)
class Listing:
    """A split's files.

    Attributes:
        images: The images that have an annotation, by rising image id.
        problems: What is wrong with the other files.
        digest: Hash of all file names, by which a store made from other files is recognised.
        stamp: Hash of the names, sizes and times of all files.
    """

    images: list[ImageFiles]
    problems: list[Problem]
    digest: str
    stamp: str


def list_split(root: AnyPath, split: str) -> Listing:
    """Lists ``ROOT/<split>/image`` and ``ROOT/<split>/annos``.

    Raises:
        FileNotFoundError: A folder is missing.
    """
    image_folder, annotation_folder = Path(root, split, 'image'), Path(root, split, 'annos')
    image_stamps, annotation_stamps = _stamps_in(image_folder), _stamps_in(annotation_folder)
    problems: list[Problem] = []
    images = _by_id(list(image_stamps), IMAGE_SUFFIXES, 'image', problems)
    annotations = _by_id(list(annotation_stamps), ('.json',), 'annos', problems)
    for image_id in sorted(images.keys() - annotations.keys()):
        name = images[image_id]
        problems.append(Problem('missing annotation', f'image/{name}', f'there is no annos/{Path(name).stem}.json'))
    for image_id in sorted(annotations.keys() - images.keys()):
        name = annotations[image_id]
        problems.append(Problem('missing image', f'annos/{name}', f'there is no image/{Path(name).stem}.jpg'))
    usable = [
        ImageFiles(
            image_id=image_id,
            image=image_folder / images[image_id],
            annotation=annotation_folder / annotations[image_id],
            stamps=(image_stamps[images[image_id]], annotation_stamps[annotations[image_id]]),
        )
        for image_id in sorted(images.keys() & annotations.keys())
    ]
    return Listing(
        images=usable,
        problems=problems,
        digest=_digest(image_stamps.keys(), annotation_stamps.keys()),
        stamp=_digest(image_stamps.values(), annotation_stamps.values()),
    )


def split_stamp(root: AnyPath, split: str) -> str:
    """Computes only the ``stamp`` of a split's ``Listing``, in a third of the time.

    Raises:
        FileNotFoundError: A folder is missing.
    """
    return _digest(*(_stamps_in(Path(root, split, folder)).values() for folder in ('image', 'annos')))


def signature(images: list[ImageFiles]) -> str:
    """Hash of the files' names, sizes and times as they were listed, which changes when a file does."""
    return hashlib.sha256('\n'.join(stamp for files in images for stamp in files.stamps).encode()).hexdigest()


def _digest(of_images: Iterable[str], of_annotations: Iterable[str]) -> str:
    text = '\0'.join([*of_images, '', *of_annotations])
    return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()


def _stamps_in(folder: Path) -> dict[str, str]:
    """Name -> stamp of what is in a folder, in the order of the names."""
    stamps = {}
    try:
        with os.scandir(folder) as found:
            for entry in found:
                try:
                    # Unpacking an archive sets the time of the contents, but not that of the status.
                    status = entry.stat()
                    stamps[entry.name] = f'{entry.name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}'
                except OSError:
                    stamps[entry.name] = f'{entry.name} missing'
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f'no folder {folder}; DeepFashion2 is laid out as ROOT/train/image/000001.jpg with '
            'ROOT/train/annos/000001.json, and the same for validation'
        ) from None
    return dict(sorted(stamps.items()))


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

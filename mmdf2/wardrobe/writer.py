"""Writing a wardrobe to disk, in DeepFashion2's own layout."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from mmdf2.datasets.annotation import to_json_dict
from mmdf2.files import is_unfinished, lock_beside, locked, parse_json, usable_cores, write_bytes
from mmdf2.wardrobe.photo_folder import fingerprint
from mmdf2.wardrobe.picture import take
from mmdf2.wardrobe.plan import MAX_IDENTITIES, SPLITS, Shot, plan_pairs, plan_shots
from mmdf2.wardrobe.version import CURRENT_VERSION, Version

# Manifests of version 1 named the drawing by this number, before wardrobes had versions.
DRAWING_OF_VERSION_1 = 4
JPEG_QUALITY = 92
MIN_SIZE, MAX_SIZE = 64, 4096


def make_wardrobe(
    out,
    identities: int,
    seed: int = 0,
    *,
    validation_identities: int = 0,
    split: str = 'train',
    size: int = 400,
    images_per_identity: tuple[int, int] = (2, 3),
    version: Version = CURRENT_VERSION,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Draws a dataset in DeepFashion2's layout: ``out/<split>/{image/000001.jpg, annos/000001.json}``.

    The same arguments give the same bytes, whatever the number of ``workers``. A split that was interrupted is
    completed, and a finished one is left as it is. No identity (pair_id, style) is in both splits.

    Args:
        out: The dataset's folder, created if it is missing.
        identities: Number of identities in ``split``.
        seed: Seed of everything that is drawn, 0 or more.
        validation_identities: Number of identities in the split 'validation', which is drawn in addition to ``split``
            'train'; 0 to draw no such split.
        split: 'train' or 'validation'.
        size: Longer side of the images in pixels, 64 to 4096.
        images_per_identity: Numbers of (shop, user) images made of each identity; further images may show it too.
        version: How the wardrobe is drawn.
        workers: Number of processes; by default one per core that this process may use.
        progress: Whether to show a progress bar.

    Returns:
        ``out``.

    Raises:
        ValueError: An argument is out of range, a folder of photos cannot be used, or a split of ``out`` was made with
            other arguments.
    """
    out = Path(out)
    wanted = {split: identities}
    if validation_identities:
        if split == 'validation':
            raise ValueError("validation_identities goes with split='train'; with 'validation' give identities alone")
        wanted['validation'] = validation_identities
    _check(wanted, seed, size, images_per_identity, workers)
    photos = {
        f'{what}_sha256': fingerprint(folder, what)
        for what, folder in (('backgrounds', version.backgrounds), ('textures', version.textures))
        if folder
    }
    for name, count in wanted.items():
        recipe = {
            'version': version.number,
            **({'without': sorted(version.without)} if version.without else {}),
            **photos,
            'split': name,
            'identities': count,
            'seed': seed,
            'size': size,
            'images_per_identity': list(images_per_identity),
        }
        _make_split(out / name, recipe, version, workers or usable_cores(), progress)
    return out


def _check(wanted, seed, size, images_per_identity, workers) -> None:
    for name, count in wanted.items():
        if name not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, got {name!r}')
        if not 1 <= count <= MAX_IDENTITIES:
            raise ValueError(f'identities of {name!r} must be 1 to {MAX_IDENTITIES}, got {count}')
    if seed < 0:
        raise ValueError(f'seed must be 0 or more, got {seed}')
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f'size must be {MIN_SIZE} to {MAX_SIZE} pixels, got {size}')
    if len(images_per_identity) != 2 or min(images_per_identity) < 0 or not sum(images_per_identity):
        raise ValueError(f'images_per_identity must be (shop, user) counts, not both 0, got {images_per_identity}')
    if workers is not None and workers < 1:
        raise ValueError(f'workers must be 1 or more, got {workers}')


def _make_split(folder: Path, recipe: dict, version: Version, workers: int, progress: bool) -> None:
    with locked(lock_beside(folder), lambda: print(f'another process is drawing {folder}; waiting for it')):
        if not _claim(folder, recipe):
            _draw_missing(folder, recipe, version, workers, progress)


def _draw_missing(folder: Path, recipe: dict, version: Version, workers: int, progress: bool) -> None:
    split, seed = recipe['split'], recipe['seed']
    pairs = plan_pairs(split, recipe['identities'], seed, version)
    shots = plan_shots(split, pairs, recipe['images_per_identity'], seed, version)
    missing = [shot for shot in shots if not _annotation_path(folder, shot.image_id).exists()]
    draw = partial(write_shot, folder, recipe['size'])
    bar = tqdm(
        total=len(shots),
        initial=len(shots) - len(missing),
        desc=f'wardrobe {split}',
        unit='image',
        mininterval=1,
        disable=not progress,
    )
    with bar, _mapper(workers, len(missing)) as mapped:
        for _ in mapped(draw, missing):
            bar.update()
    write_bytes(folder / 'wardrobe.json', json.dumps(recipe | {'finished': True}, indent=1).encode())


def _claim(folder: Path, recipe: dict) -> bool:
    """Writes the recipe into the folder, or compares it with the one that is there.

    Returns:
        Whether the folder holds the whole wardrobe of this recipe.
    """
    path = folder / 'wardrobe.json'
    for name in ('image', 'annos'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if path.exists():
        try:
            found = parse_json(path.read_bytes())
            finished = found.pop('finished')
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path} is damaged ({error!r}): remove {folder} to draw it anew, or choose another folder'
            ) from error
        if found.pop('drawing', None) == DRAWING_OF_VERSION_1:
            found = {'version': 1, **found}
        if found != recipe:
            raise ValueError(
                f'{folder} holds a wardrobe made by {found}, not by {recipe}: choose another folder, or remove that one'
            )
        if not finished:
            _remove_leftovers(folder)
        return finished
    if any((folder / 'annos').iterdir()) or any((folder / 'image').iterdir()):
        raise ValueError(f'{folder} holds images or annotation that are no wardrobe: choose another folder')
    write_bytes(path, json.dumps(recipe | {'finished': False}, indent=1).encode())
    return False


def _remove_leftovers(folder: Path) -> None:
    """Deletes what a killed run was writing, which would count as files of the dataset."""
    for path in [*(folder / 'image').iterdir(), *(folder / 'annos').iterdir()]:
        if is_unfinished(path.name):
            path.unlink()


@contextmanager
def _mapper(workers: int, tasks: int):
    """Gives a lazy ``map`` that runs in this process, or in several."""
    if workers == 1 or tasks < 8:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield map
        finally:
            cv2.setNumThreads(threads)
        return
    # Spawned, not forked: a caller with threads (torch's, OpenCV's) would pass on locks that no thread of the child
    # releases.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        yield partial(pool.map, chunksize=8)


def write_shot(folder: Path, size: int, shot: Shot) -> None:
    """Draws and writes one image. The annotation is written last: where it exists, the image is complete."""
    image, annotation = take(shot, size)
    _, jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    write_bytes(folder / 'image' / f'{shot.image_id:06d}.jpg', jpeg.tobytes(), durable=False)
    content = json.dumps(to_json_dict(annotation)).encode()
    write_bytes(_annotation_path(folder, shot.image_id), content, durable=False)


def _annotation_path(folder: Path, image_id: int) -> Path:
    return folder / 'annos' / f'{image_id:06d}.json'

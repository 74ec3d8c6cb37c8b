"""The store: the annotation of a split as memory-mapped columns, made once from the dataset's own files.

A store is a folder (``ROOT/<split>.store``) of ``.npy`` columns, ``manifest.json`` and ``problems.jsonl``. Opening it
reads no row, and reading it executes nothing that is in it. ``mmdf2.datasets.prepare`` makes stores.

Images, items, polygons and points are four levels; the ``*_offsets`` of a level say where the rows of the next level
begin.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmdf2.categories import SOURCE_NAMES, identity_code
from mmdf2.datasets.annotation import Item
from mmdf2.files import AnyPath, parse_json, sha256, write_json

MANIFEST = 'manifest.json'
PROBLEMS = 'problems.jsonl'
FORMAT = 'mmdf2-store'
VERSION = 1


class StoreError(RuntimeError):
    """A store that is missing, damaged, stale or not a store; the message says what to run."""


@dataclass(frozen=True)
class ImageRecord:
    """One image of a split.

    Attributes:
        image_id: The number that is its file name.
        file_name: ASCII name in the split's ``image`` folder.
        width: In pixels, with the image's orientation tag applied.
        height: In pixels, with the image's orientation tag applied.
        source: 'user' or 'shop'.
        pair_id: The number that its items share.
        items: Its items.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    source: str
    pair_id: int
    items: list[Item]


@dataclass(frozen=True)
class Column:
    """One column of a store.

    Attributes:
        dtype: NumPy's name of the type.
        content: What the column holds of an image, or of an image and one of its items.
        shape: Shape of one row.
    """

    dtype: str
    content: Callable[..., Any]
    shape: tuple[int, ...] = ()


def _points(item: Item) -> np.ndarray:
    return np.concatenate([np.zeros((0, 2)), *item.segmentation])


# Columns with one row per image: the row of an image.
IMAGE_COLUMNS = {
    'image_ids': Column('<i8', lambda image: image.image_id),
    'file_names': Column('S32', lambda image: image.file_name.encode('ascii')),
    'widths': Column('<i4', lambda image: image.width),
    'heights': Column('<i4', lambda image: image.height),
    'sources': Column('u1', lambda image: SOURCE_NAMES.index(image.source)),
    'pair_ids': Column('<i8', lambda image: image.pair_id),
    'item_counts': Column('<i8', lambda image: len(image.items)),
}
# Columns with one row per item: the row of an item.
ITEM_COLUMNS = {
    'item_ids': Column('<i4', lambda image, item: item.item_id),
    'category_ids': Column('<i4', lambda image, item: item.category_id),
    'styles': Column('<i4', lambda image, item: item.style),
    'bboxes': Column('<f4', lambda image, item: item.bbox, shape=(4,)),
    'scales': Column('<i4', lambda image, item: item.scale),
    'occlusions': Column('<i4', lambda image, item: item.occlusion),
    'zoom_ins': Column('<i4', lambda image, item: item.zoom_in),
    'viewpoints': Column('<i4', lambda image, item: item.viewpoint),
    'identities': Column('<i8', lambda image, item: identity_code(image.pair_id, item.style)),
    'landmark_counts': Column('<i8', lambda image, item: len(item.landmarks)),
    'polygon_counts': Column('<i8', lambda image, item: len(item.segmentation)),
}
# Columns with any number of rows per item: all rows of an item.
SHAPE_COLUMNS = {
    'landmarks': Column('<f4', lambda image, item: item.landmarks, shape=(3,)),
    'points': Column('<f4', lambda image, item: _points(item), shape=(2,)),
    'point_counts': Column('<i8', lambda image, item: [len(polygon) for polygon in item.segmentation]),
}
# In place of these counts, a store keeps their running sums from 0.
OFFSETS_OF_COUNTS = {
    'item_counts': 'item_offsets',
    'landmark_counts': 'landmark_offsets',
    'polygon_counts': 'polygon_offsets',
    'point_counts': 'point_offsets',
}
_COLUMNS = IMAGE_COLUMNS | ITEM_COLUMNS | SHAPE_COLUMNS
ROW_COLUMNS = {name: column for name, column in _COLUMNS.items() if name not in OFFSETS_OF_COUNTS}
# Every column of a store.
STORED_COLUMNS = ROW_COLUMNS | {offsets: _COLUMNS[counts] for counts, offsets in OFFSETS_OF_COUNTS.items()}


class Store:
    """The annotation of one split, n images and m items, as read-only arrays.

    Coordinates are kept to a thousandth of a pixel.

    Args:
        folder: The store's folder.

    Attributes:
        folder: The store's folder.
        manifest: What ``manifest.json`` says: counts, source, problems, and each column's rows and SHA-256.
        image_ids: (n,) int64, rising.
        file_names: (n,) bytes, names in the split's ``image`` folder.
        widths: (n,) int32, pixels, with the image's orientation tag applied.
        heights: (n,) int32, pixels, with the image's orientation tag applied.
        sources: (n,) uint8, codes of ``mmdf2.categories.Source``: 0 user and 1 shop.
        pair_ids: (n,) int64.
        item_offsets: (n + 1,) int64; the items of image i are rows ``item_offsets[i]:item_offsets[i + 1]``.
        item_ids: (m,) int32, N of the key ``itemN``.
        category_ids: (m,) int32, 1 to 13.
        styles: (m,) int32, 0 for no identity.
        bboxes: (m, 4) float32, x1, y1, x2, y2 in pixels, within the image.
        scales: (m,) int32, 1 to 3, or 0 when unknown.
        occlusions: (m,) int32, 1 to 3, or 0 when unknown.
        zoom_ins: (m,) int32, 1 to 3, or 0 when unknown.
        viewpoints: (m,) int32, 1 to 3, or 0 when unknown.
        identities: (m,) int64, ``identity_code`` of each item, -1 for none.
        landmark_offsets: (m + 1,) int64; the landmarks of item j are rows
            ``landmark_offsets[j]:landmark_offsets[j + 1]`` of ``landmarks``.
        landmarks: (l, 3) float32 rows x, y, v.
        polygon_offsets: (m + 1,) int64; the polygons of item j are numbers
            ``polygon_offsets[j]:polygon_offsets[j + 1]``.
        point_offsets: (polygons + 1,) int64; the points of polygon k are rows
            ``point_offsets[k]:point_offsets[k + 1]`` of ``points``.
        points: (p, 2) float32 x, y.

    Raises:
        StoreError: The folder is missing or damaged, holds a store of another version, or is not a store.
    """

    image_ids: np.ndarray
    file_names: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    sources: np.ndarray
    pair_ids: np.ndarray
    item_offsets: np.ndarray
    item_ids: np.ndarray
    category_ids: np.ndarray
    styles: np.ndarray
    bboxes: np.ndarray
    scales: np.ndarray
    occlusions: np.ndarray
    zoom_ins: np.ndarray
    viewpoints: np.ndarray
    identities: np.ndarray
    landmark_offsets: np.ndarray
    landmarks: np.ndarray
    polygon_offsets: np.ndarray
    point_offsets: np.ndarray
    points: np.ndarray

    def __init__(self, folder: AnyPath) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        for name, column in STORED_COLUMNS.items():
            setattr(self, name, self._open_column(name, column))

    @classmethod
    def open(cls, folder: AnyPath) -> 'Store':
        """Opens the store in ``folder``; StoreError when it cannot be used."""
        return cls(folder)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"Store('{self.folder}', {len(self)} images, {len(self.item_ids)} items)"

    # Worker processes map the columns again instead of receiving a copy of them.
    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return Store, (self.folder,)

    @cached_property
    def item_images(self) -> np.ndarray:
        """(m,) int64: the row of each item's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.item_offsets))

    def image(self, index: int) -> ImageRecord:
        """The record of row ``index``; IndexError outside 0 to n - 1."""
        if not 0 <= index < len(self):
            raise IndexError(f'image {index} of a store of {len(self)} images')
        start, end = self.item_offsets[index : index + 2].tolist()
        return ImageRecord(
            image_id=int(self.image_ids[index]),
            file_name=self.file_names[index].decode('ascii'),
            width=int(self.widths[index]),
            height=int(self.heights[index]),
            source=SOURCE_NAMES[self.sources[index]],
            pair_id=int(self.pair_ids[index]),
            items=[self.item(row) for row in range(start, end)],
        )

    def item(self, row: int) -> Item:
        """The item of row ``row``, 0 to m - 1."""
        first, last = self.landmark_offsets[row : row + 2].tolist()
        return Item(
            item_id=int(self.item_ids[row]),
            category_id=int(self.category_ids[row]),
            style=int(self.styles[row]),
            bbox=tuple(_exact(self.bboxes[row]).tolist()),
            landmarks=self.landmarks[first:last].copy(),
            segmentation=self.polygons(row),
            scale=int(self.scales[row]),
            occlusion=int(self.occlusions[row]),
            zoom_in=int(self.zoom_ins[row]),
            viewpoint=int(self.viewpoints[row]),
        )

    def polygons(self, row: int) -> list[np.ndarray]:
        """The polygons of item ``row``: arrays (P, 2) of float64."""
        first, last = self.polygon_offsets[row : row + 2].tolist()
        bounds = self.point_offsets[first : last + 1].tolist()
        points = _exact(self.points[bounds[0] : bounds[-1]])
        return [points[a - bounds[0] : b - bounds[0]] for a, b in pairwise(bounds)]

    def columns(self, first: int, last: int) -> dict[str, np.ndarray]:
        """The columns of the images of rows ``first`` to ``last - 1``, with counts in place of offsets.

        These are the columns that :func:`pack` makes of the same images.
        """
        items = slice(*self.item_offsets[[first, last]].tolist())
        landmarks = slice(*self.landmark_offsets[[items.start, items.stop]].tolist())
        polygons = slice(*self.polygon_offsets[[items.start, items.stop]].tolist())
        points = slice(*self.point_offsets[[polygons.start, polygons.stop]].tolist())
        own = {'landmarks': landmarks, 'points': points}
        levels = {'item_counts': slice(first, last), 'point_counts': polygons}
        rows: dict[str, np.ndarray] = {}
        for name in _COLUMNS:
            if name in OFFSETS_OF_COUNTS:
                level = levels.get(name, items)
                rows[name] = np.diff(getattr(self, OFFSETS_OF_COUNTS[name])[level.start : level.stop + 1])
            else:
                rows[name] = getattr(self, name)[slice(first, last) if name in IMAGE_COLUMNS else own.get(name, items)]
        return rows

    def verify(self) -> None:
        """Compares every column with the hash in the manifest; StoreError at the first that differs."""
        for name in STORED_COLUMNS:
            if sha256(self.folder / f'{name}.npy') != self.manifest['columns'][name]['sha256']:
                raise StoreError(
                    f'{self.folder / name}.npy was changed after it was made; {remedy(self.folder)} --force'
                )

    def _open_column(self, name: str, column: Column) -> np.ndarray:
        path = self.folder / f'{name}.npy'
        shape = (self.manifest['columns'].get(name, {}).get('rows'), *column.shape)
        try:
            rows = np.load(path, mmap_mode='r', allow_pickle=False)
        except Exception as error:  # a damaged file can fail in any way; an empty one is an EOFError
            raise StoreError(f'{path} is missing or damaged ({error}); {remedy(self.folder)} --force') from error
        if rows.dtype != np.dtype(column.dtype) or rows.shape != shape:
            raise StoreError(
                f'{path} holds {rows.dtype} {rows.shape}, the manifest says {np.dtype(column.dtype)} {shape}; '
                f'{remedy(self.folder)} --force'
            )
        return rows.view(np.ndarray)


def pack(images: list[ImageRecord]) -> dict[str, np.ndarray]:
    """Packs annotation into the columns of one part.

    Returns:
        Every column of ``IMAGE_COLUMNS``, ``ITEM_COLUMNS`` and ``SHAPE_COLUMNS``, counts included.
    """
    items = [(image, item) for image in images for item in image.items]
    columns = {}
    for name, column in IMAGE_COLUMNS.items():
        columns[name] = _rows(column, [column.content(image) for image in images])
    for name, column in ITEM_COLUMNS.items():
        columns[name] = _rows(column, [column.content(image, item) for image, item in items])
    for name, column in SHAPE_COLUMNS.items():
        rows_of_items = [column.content(image, item) for image, item in items]
        columns[name] = _rows(column, np.concatenate([_rows(column, []), *rows_of_items]))
    return columns


def join_parts(part_paths: list[Path], folder: Path) -> None:
    """Writes the store's ``.npy`` files from the parts, in their order, with one part in memory at a time.

    Args:
        part_paths: ``.npz`` files of what ``pack`` returns.
        folder: An existing folder.
    """
    lengths = dict.fromkeys(ROW_COLUMNS, 0)
    counts: dict[str, list[np.ndarray]] = {name: [np.zeros(1, '<i8')] for name in OFFSETS_OF_COUNTS}
    for part in _load(part_paths):
        for name in ROW_COLUMNS:
            lengths[name] += len(part[name])
        for name, found in counts.items():
            found.append(part[name])

    for name, offsets in OFFSETS_OF_COUNTS.items():
        np.save(folder / f'{offsets}.npy', np.cumsum(np.concatenate(counts[name])))
    files = {
        name: np.lib.format.open_memmap(
            folder / f'{name}.npy', 'w+', np.dtype(column.dtype), (lengths[name], *column.shape)
        )
        for name, column in ROW_COLUMNS.items()
    }
    starts = dict.fromkeys(ROW_COLUMNS, 0)
    for part in _load(part_paths):
        for name, file in files.items():
            rows = part[name]
            file[starts[name] : starts[name] + len(rows)] = rows
            starts[name] += len(rows)
    for file in files.values():
        file.flush()


def remedy(folder: AnyPath, origin: tuple[AnyPath, str] | None = None) -> str:
    """The command that makes the store in ``folder``, whose place by default is ``ROOT/<split>.store``.

    Args:
        folder: The folder of the store.
        origin: The dataset's folder and the split, where they are known.
    """
    folder = Path(folder)
    if origin is not None:
        root, split = origin
        place = '' if folder.resolve() == Path(root, f'{split}.store').resolve() else f' --store {folder}'
        return f'run: python tools/prepare_deepfashion2.py {root} --split {split}{place}'
    split = folder.name.removesuffix('.store')
    if folder.name != split and (folder.parent / split).is_dir():
        return f'run: python tools/prepare_deepfashion2.py {folder.parent} --split {split}'
    return f'run: python tools/prepare_deepfashion2.py ROOT --split SPLIT --store {folder}'


def write_manifest(folder: AnyPath, contents: dict[str, Any]) -> None:
    """Writes ``manifest.json``, the last file of a store to be written.

    Args:
        folder: The store's folder.
        contents: JSON object; format and version are added.
    """
    write_json(Path(folder, MANIFEST), {'format': FORMAT, 'version': VERSION, **contents})


def read_manifest(folder: AnyPath) -> dict[str, Any]:
    """Reads and checks ``manifest.json``.

    Raises:
        StoreError: There is no such folder or no manifest in it, or the manifest is not JSON, is not that of a store,
            or is of another version.
    """
    path = Path(folder, MANIFEST)
    try:
        manifest = parse_json(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        found = 'has no manifest.json, so it is no store' if Path(folder).exists() else 'does not exist'
        raise StoreError(f'store {folder} {found}; {remedy(folder)}') from None
    except (ValueError, OSError) as error:
        raise StoreError(f'{path} cannot be read ({error}); {remedy(folder)} --force') from error
    if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
        raise StoreError(f"{path} is not an mmdf2 store's manifest; move {folder} away, then {remedy(folder)}")
    if manifest.get('version') != VERSION:
        raise StoreError(
            f'store {folder} has version {manifest.get("version")!r}, this mmdf2 reads {VERSION}; '
            f'{remedy(folder)} --force'
        )
    if not all(isinstance(manifest.get(key), dict) for key in ('columns', 'source', 'problems')):
        raise StoreError(f'{path} is incomplete; {remedy(folder)} --force')
    return manifest


def is_store(folder: AnyPath) -> bool:
    """Whether a folder is a store, even a damaged one or one of another version: one that may be replaced."""
    try:
        named = f'"format": "{FORMAT}"' in Path(folder, MANIFEST).read_text(errors='replace')
    except OSError:
        return False
    # A manifest can be empty, as after a failed copy; then the columns tell.
    return named or all(Path(folder, f'{name}.npy').is_file() for name in STORED_COLUMNS)


def _exact(coordinates: np.ndarray) -> np.ndarray:
    # Rounding in float64 gives back the decimals that float32 could not hold.
    return np.round(coordinates.astype(np.float64), 3)


def _rows(column: Column, values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=column.dtype).reshape(-1, *column.shape)


def _load(paths: list[Path]) -> Iterator[Any]:
    for path in paths:
        with np.load(path, allow_pickle=False) as part:
            yield part

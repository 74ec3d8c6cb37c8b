"""The store: all annotation of a split as memory-mapped columns, made once from the dataset's own files.

A store is a folder (``ROOT/<split>.store``) of ``.npy`` columns, ``manifest.json`` and ``problems.jsonl``. Opening it
reads no row. Nothing in it is executed when it is read.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from mmdf2.categories import SOURCE_NAMES
from mmdf2.datasets.annotation import Item
from mmdf2.datasets.columns import ALL_COLUMNS
from mmdf2.datasets.manifest import StoreError, file_digest, read_manifest, remedy

__all__ = ['ImageRecord', 'Store', 'StoreError']


@dataclass(frozen=True)
class ImageRecord:
    """One image of a store: its id, file name, size in pixels, source ('user' or 'shop'), pair_id and items."""

    image_id: int
    file_name: str
    width: int
    height: int
    source: str
    pair_id: int
    items: list[Item]


class Store:
    """The annotation of one split, n images and m items, as read-only arrays.

    Coordinates are kept to a thousandth of a pixel.

    Args:
        folder: The store's folder.

    Attributes:
        image_ids: (n,) int64, rising.
        file_names: (n,) bytes, names in the split's ``image`` folder.
        widths: (n,) int32, pixels, with the image's orientation tag applied.
        heights: (n,) int32.
        sources: (n,) uint8, 0 user and 1 shop.
        pair_ids: (n,) int64.
        item_offsets: (n + 1,) int64, the items of image i are rows ``item_offsets[i]:item_offsets[i + 1]``.
        item_ids: (m,) int32, N of the key ``itemN``.
        category_ids: (m,) int32, 1 to 13.
        styles: (m,) int32, 0 for no identity.
        bboxes: (m, 4) float32, x1, y1, x2, y2 in pixels, within the image.
        scales: (m,) int32, 1 to 3, or 0 where unknown; so are ``occlusions``, ``zoom_ins`` and ``viewpoints``.
        identities: (m,) int64, ``identity_code`` of each item, -1 for none.
        landmark_offsets: (m + 1,) int64 into ``landmarks``.
        landmarks: (l, 3) float32 rows x, y, v.
        polygon_offsets: (m + 1,) int64 into ``point_offsets``, a row for each polygon.
        point_offsets: (polygons + 1,) int64 into ``points``.
        points: (p, 2) float32 x, y.

    Raises:
        StoreError: Missing, damaged, of another version, or not a store.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        for name, (dtype, shape) in ALL_COLUMNS.items():
            setattr(self, name, self._open_column(name, np.dtype(dtype), shape))

    @classmethod
    def open(cls, folder) -> 'Store':
        """Opens the store in ``folder``; StoreError when it cannot be used."""
        return cls(folder)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"Store('{self.folder}', {len(self)} images, {len(self.item_ids)} items)"

    # Worker processes map the columns again instead of receiving a copy of them.
    def __reduce__(self):
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
            int(self.image_ids[index]),
            self.file_names[index].decode('ascii'),
            int(self.widths[index]),
            int(self.heights[index]),
            SOURCE_NAMES[self.sources[index]],
            int(self.pair_ids[index]),
            [self.item(row) for row in range(start, end)],
        )

    def item(self, row: int) -> Item:
        """The item of row ``row``, 0 to m - 1."""
        first, last = self.landmark_offsets[row : row + 2].tolist()
        return Item(
            int(self.item_ids[row]),
            int(self.category_ids[row]),
            int(self.styles[row]),
            tuple(_exact(self.bboxes[row]).tolist()),
            self.landmarks[first:last].copy(),
            self.polygons(row),
            int(self.scales[row]),
            int(self.occlusions[row]),
            int(self.zoom_ins[row]),
            int(self.viewpoints[row]),
        )

    def polygons(self, row: int) -> list[np.ndarray]:
        """The polygons of item ``row``: arrays (P, 2) of float64."""
        first, last = self.polygon_offsets[row : row + 2].tolist()
        bounds = self.point_offsets[first : last + 1].tolist()
        points = _exact(self.points[bounds[0] : bounds[-1]])
        return [points[a - bounds[0] : b - bounds[0]] for a, b in pairwise(bounds)]

    def verify(self) -> None:
        """Compares every column with the hash in the manifest; StoreError at the first that differs."""
        for name in ALL_COLUMNS:
            if file_digest(self.folder / f'{name}.npy') != self.manifest['columns'][name]['sha256']:
                raise StoreError(
                    f'{self.folder / name}.npy was changed after it was made; {remedy(self.folder)} --force'
                )

    def _open_column(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / f'{name}.npy'
        expected = self.manifest['columns'].get(name, {}).get('rows')
        try:
            column = np.load(path, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(f'{path} is missing or damaged ({error}); {remedy(self.folder)} --force') from error
        if column.dtype != dtype or column.shape != (expected, *shape):
            raise StoreError(
                f'{path} holds {column.dtype} {column.shape}, the manifest says {dtype} {(expected, *shape)}; '
                f'{remedy(self.folder)} --force'
            )
        return column.view(np.ndarray)


def _exact(coordinates: np.ndarray) -> np.ndarray:
    # Rounding in float64 gives back the decimals that float32 could not hold.
    return np.round(coordinates.astype(np.float64), 3)

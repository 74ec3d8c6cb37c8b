"""The columns of a store, and how annotation is packed into them.

Images, items, polygons and points are four levels; each level's ``*_offsets`` say where the next one's rows begin.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mmdf2.categories import SOURCE_NAMES, identity_code
from mmdf2.datasets.annotation import ImageAnnotation

# Name -> (dtype, shape of one row).
IMAGE_COLUMNS = {
    'image_ids': ('<i8', ()),
    'file_names': ('S32', ()),
    'widths': ('<i4', ()),
    'heights': ('<i4', ()),
    'sources': ('u1', ()),
    'pair_ids': ('<i8', ()),
}
ITEM_COLUMNS = {
    'item_ids': ('<i4', ()),
    'category_ids': ('<i4', ()),
    'styles': ('<i4', ()),
    'bboxes': ('<f4', (4,)),
    'scales': ('<i4', ()),
    'occlusions': ('<i4', ()),
    'zoom_ins': ('<i4', ()),
    'viewpoints': ('<i4', ()),
    'identities': ('<i8', ()),
}
POINT_COLUMNS = {'landmarks': ('<f4', (3,)), 'points': ('<f4', (2,))}
# Offsets are built when the parts are joined; a part keeps the counts they are summed from.
OFFSET_COLUMNS = {
    'item_offsets': 'item_counts',
    'landmark_offsets': 'landmark_counts',
    'polygon_offsets': 'polygon_counts',
    'point_offsets': 'point_counts',
}
ROW_COLUMNS = {**IMAGE_COLUMNS, **ITEM_COLUMNS, **POINT_COLUMNS}
ALL_COLUMNS = {**ROW_COLUMNS, **dict.fromkeys(OFFSET_COLUMNS, ('<i8', ()))}


def pack(images: Iterable[tuple[int, str, tuple[int, int], ImageAnnotation]]) -> dict[str, np.ndarray]:
    """Packs annotation into the columns of one part.

    Args:
        images: (image_id, file_name, (width, height), annotation) of each image.

    Returns:
        Every column of ``ROW_COLUMNS``, and the counts that ``OFFSET_COLUMNS`` names.
    """
    images = list(images)
    items = [(annotation, item) for *_, annotation in images for item in annotation.items]
    polygons = [polygon for _, item in items for polygon in item.segmentation]
    rows = {
        'image_ids': [image[0] for image in images],
        'file_names': [image[1].encode('ascii') for image in images],
        'widths': [image[2][0] for image in images],
        'heights': [image[2][1] for image in images],
        'sources': [SOURCE_NAMES.index(image[3].source) for image in images],
        'pair_ids': [image[3].pair_id for image in images],
        'item_ids': [item.item_id for _, item in items],
        'category_ids': [item.category_id for _, item in items],
        'styles': [item.style for _, item in items],
        'bboxes': [item.bbox for _, item in items],
        'scales': [item.scale for _, item in items],
        'occlusions': [item.occlusion for _, item in items],
        'zoom_ins': [item.zoom_in for _, item in items],
        'viewpoints': [item.viewpoint for _, item in items],
        'identities': [identity_code(annotation.pair_id, item.style) for annotation, item in items],
        'landmarks': np.concatenate([item.landmarks for _, item in items]) if items else [],
        'points': np.concatenate(polygons) if polygons else [],
    }
    columns = {
        name: np.asarray(values, dtype=ROW_COLUMNS[name][0]).reshape(-1, *ROW_COLUMNS[name][1])
        for name, values in rows.items()
    }
    counts = {
        'item_counts': [len(image[3].items) for image in images],
        'landmark_counts': [len(item.landmarks) for _, item in items],
        'polygon_counts': [len(item.segmentation) for _, item in items],
        'point_counts': [len(polygon) for polygon in polygons],
    }
    return columns | {name: np.asarray(values, dtype='<i8') for name, values in counts.items()}


def join_parts(part_paths: list[Path], folder: Path) -> None:
    """Writes the store's ``.npy`` files from the parts, in their order, a part at a time.

    Args:
        part_paths: ``.npz`` files of what ``pack`` returns.
        folder: An existing folder.
    """
    lengths = dict.fromkeys(ROW_COLUMNS, 0)
    counts = {name: [] for name in OFFSET_COLUMNS.values()}
    for part in _load(part_paths):
        for name in ROW_COLUMNS:
            lengths[name] += len(part[name])
        for name, found in counts.items():
            found.append(part[name])

    for offsets, name in OFFSET_COLUMNS.items():
        np.save(
            folder / f'{offsets}.npy', np.concatenate([np.zeros(1, '<i8'), np.cumsum(np.concatenate(counts[name]))])
        )
    columns = {
        name: np.lib.format.open_memmap(folder / f'{name}.npy', 'w+', np.dtype(dtype), (lengths[name], *shape))
        for name, (dtype, shape) in ROW_COLUMNS.items()
    }
    starts = dict.fromkeys(ROW_COLUMNS, 0)
    for part in _load(part_paths):
        for name, column in columns.items():
            rows = part[name]
            column[starts[name] : starts[name] + len(rows)] = rows
            starts[name] += len(rows)
    for column in columns.values():
        column.flush()


def _load(paths: list[Path]) -> Iterator[np.lib.npyio.NpzFile]:
    for path in paths:
        with np.load(path, allow_pickle=False) as part:
            yield part

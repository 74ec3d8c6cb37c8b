"""DeepFashion2 as a dataset of MMDetection, which is read lazily from its store."""

import copy
import logging
from pathlib import Path

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmengine.dataset import force_full_init
from mmengine.logging import print_log

from mmdf2.categories import CATEGORY_NAMES, PALETTE, identity_code
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.datasets.store import Store
from mmdf2.faults import FaultsInARow
from mmdf2.registry import DATASETS

# So many images in a row that fail are taken for a fault of the dataset's folder or of the program.
MOST_FAILURES = 50
# The options of ``filter_cfg`` and their defaults.
FILTERS = {'filter_empty_gt': False, 'min_size': 0}


@DATASETS.register_module()
class DeepFashion2Dataset(BaseDetDataset):
    """Images of one split, with boxes, masks, landmarks and identities.

    The annotation stays in the memory-mapped store: constructing the dataset copies no row, and worker processes share
    one copy of the annotation. A missing store is prepared first.

    Each ``data_info`` has ``img_path``, ``img_id``, ``height``, ``width``, ``source`` ('user' or 'shop'), ``pair_id``
    and ``instances``. An instance is a dict of ``bbox`` [x1, y1, x2, y2], ``bbox_label`` 0 to 12, ``mask`` (a list of
    flat polygons), ``ignore_flag`` 0, ``landmarks`` (K, 3) float32 rows x, y, v, ``identity`` (see ``identity_code``)
    and ``item_id``. Coordinates are in pixels.

    An image on which the pipeline fails, such as one that cannot be read, is named in the log with the reason. In
    training another image takes its place. In testing its data sample has ``unreadable``, the reason, and a small
    white image for the model; mmdf2's metrics leave it out and say so. The error of the 50th image in a row that fails
    in one process, or of as many as the dataset has, is raised.

    Args:
        data_root: Folder with ``<split>/image`` and ``<split>/annos``.
        split: 'train' or 'validation'.
        store: Folder of the store; by default ``<data_root>/<split>.store``.
        pipeline: Transforms that turn a ``data_info`` into the inputs of a model.
        test_mode: Whether the dataset is for testing; then no image is filtered out.
        filter_cfg: ``filter_empty_gt`` leaves out images without items, ``min_size`` leaves out images whose shorter
            side has fewer pixels.
        indices: The number of images to take from the beginning, or the numbers of the images to take, counted after
            filtering.
        metainfo: Extra meta information; its ``classes``, if given, must be the dataset's own.
        lazy_init: Whether to leave opening the store to ``full_init``.
        max_refetch: How many other images are tried in training when the pipeline gives up an image.

    Raises:
        ValueError: ``filter_cfg`` has an unknown option, or ``metainfo`` has other classes.
        StoreError: The store is damaged or stale; the message says what to run.
        FileNotFoundError: There is neither a store nor the split's folders.
    """

    METAINFO = {'classes': CATEGORY_NAMES, 'palette': list(PALETTE)}  # noqa: RUF012

    def __init__(
        self,
        data_root,
        split: str = 'train',
        store=None,
        pipeline=(),
        test_mode: bool = False,
        filter_cfg: dict | None = None,
        indices=None,
        metainfo: dict | None = None,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ):
        unknown = set(filter_cfg or {}) - set(FILTERS)
        if unknown:
            raise ValueError(f'filter_cfg knows {sorted(FILTERS)}, got {sorted(unknown)}')
        if metainfo and tuple(metainfo.get('classes', CATEGORY_NAMES)) != CATEGORY_NAMES:
            raise ValueError(
                f'metainfo.classes cannot be changed, since landmarks depend on the category: {CATEGORY_NAMES}'
            )
        self.split = split
        self.store_folder = store
        self._failed, self._faults = 0, FaultsInARow(MOST_FAILURES)
        super().__init__(
            data_root=str(data_root),
            data_prefix={},
            pipeline=list(pipeline),
            test_mode=test_mode,
            filter_cfg=filter_cfg,
            indices=indices,
            metainfo=metainfo,
            lazy_init=lazy_init,
            max_refetch=max_refetch,
            serialize_data=False,
        )

    def full_init(self) -> None:
        """Opens the store and selects its rows; a second call does nothing."""
        if self._fully_initialized:
            return
        self.store: Store = open_or_prepare(self.data_root, self.split, self.store_folder)
        self.image_folder = str(Path(self.data_root, self.split, 'image'))
        rows = np.arange(len(self.store)) if self.test_mode else self._filtered_rows()
        self.rows = _take(rows, self._indices)
        self._fully_initialized = True

    @force_full_init
    def __len__(self) -> int:
        return len(self.rows)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Makes the ``data_info`` of image ``idx``, a new dict at each call; IndexError beyond the dataset."""
        image = self.store.image(int(self.rows[idx]))
        return {
            'img_path': f'{self.image_folder}/{image.file_name}',
            'img_id': image.image_id,
            'height': image.height,
            'width': image.width,
            'source': image.source,
            'pair_id': image.pair_id,
            'instances': [_instance(image.pair_id, item) for item in image.items],
            'sample_idx': idx if idx >= 0 else len(self) + idx,
        }

    def prepare_data(self, idx: int) -> dict | None:
        """Runs the pipeline on image ``idx``; None in training when it fails or gives up the image."""
        try:
            data = super().prepare_data(idx)
        except Exception as error:
            reason = self._name_failure(self.get_data_info(idx)['img_path'], error)
            if not self.test_mode:
                return None
            return self.pipeline({**self.get_data_info(idx), 'unreadable': reason})
        self._faults.passed()
        return data

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels (0 to 12) of the items of image ``idx``."""
        return (self.store.category_ids[self._items(idx)] - 1).tolist()

    @force_full_init
    def sources(self) -> np.ndarray:
        """(n,) uint8: 0 for a user image, 1 for a shop image."""
        return self.store.sources[self.rows]

    @force_full_init
    def identity_table(self) -> tuple[np.ndarray, np.ndarray]:
        """Tells which identities are in which images.

        Returns:
            Two int64 arrays with one entry per item that has an identity: the index of its image in this dataset, and
            the identity.
        """
        counts = np.diff(self.store.item_offsets)[self.rows]
        images = np.repeat(np.arange(len(self.rows)), counts)
        firsts = self.store.item_offsets[self.rows] - (np.cumsum(counts) - counts)
        identities = self.store.identities[np.arange(len(images)) + np.repeat(firsts, counts)]
        return images[identities >= 0], identities[identities >= 0]

    @force_full_init
    def get_subset_(self, indices) -> None:
        """Keeps only some images of this dataset.

        Args:
            indices: The number of images to take from the beginning, or the numbers of the images to take.
        """
        self.rows = _take(self.rows, indices)

    @force_full_init
    def get_subset(self, indices) -> 'DeepFashion2Dataset':
        """Makes a dataset of some images of this one, on the same store.

        Args:
            indices: The number of images to take from the beginning, or the numbers of the images to take.
        """
        subset = copy.copy(self)
        subset.rows = _take(self.rows, indices)
        return subset

    def _name_failure(self, path: str, error: Exception) -> str:
        """Logs the image on which the pipeline failed; returns a sentence that names it and says why."""
        self._faults.limit = min(MOST_FAILURES, len(self))
        reason = f'{path}: {self._faults.failed(error, "the pipeline")}'
        if isinstance(error, OSError) and path in str(error):
            reason = str(error)
        self._failed += 1
        instead = 'it is left out of the figures' if self.test_mode else 'another image takes its place'
        print_log(f'{reason}; {instead} ({self._failed} images so far in this process)', 'current', logging.WARNING)
        return reason

    def _items(self, idx: int) -> slice:
        row = self.rows[idx]
        return slice(self.store.item_offsets[row], self.store.item_offsets[row + 1])

    def _filtered_rows(self) -> np.ndarray:
        wanted = {**FILTERS, **(self.filter_cfg or {})}
        keep = np.minimum(self.store.widths, self.store.heights) >= wanted['min_size']
        if wanted['filter_empty_gt']:
            keep &= np.diff(self.store.item_offsets) > 0
        if not keep.all():
            print_log(
                f'{(~keep).sum()} of {len(keep)} images of {self.split} left out by filter_cfg {self.filter_cfg}',
                logger='current',
                level=logging.INFO,
            )
        return np.flatnonzero(keep)


def _take(rows: np.ndarray, indices) -> np.ndarray:
    if indices is None:
        return rows
    return rows[:indices] if isinstance(indices, int) else rows[np.asarray(indices, dtype=np.int64)]


def _instance(pair_id: int, item) -> dict:
    return {
        'bbox': list(item.bbox),
        'bbox_label': item.label,
        'mask': [polygon.reshape(-1).tolist() for polygon in item.segmentation],
        'ignore_flag': 0,
        'landmarks': item.landmarks,
        'identity': identity_code(pair_id, item.style),
        'item_id': item.item_id,
    }

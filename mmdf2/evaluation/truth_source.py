"""Where ground truth comes from: a DeepFashion2 folder, a store of mmdf2, or a JSON file in COCO's format."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdf2.datasets.prepare import open_annotation
from mmdf2.datasets.store import Store
from mmdf2.evaluation.from_store import ground_truth
from mmdf2.evaluation.records import EvaluationError, GroundTruth
from mmdf2.evaluation.truth_files import read_coco_truth


@dataclass(frozen=True)
class TruthSource:
    """Ground truth, and what result files are checked against.

    Attributes:
        ground_truth: The items.
        sizes: Image id -> (height, width).
        store: The store that they are from, or None.
    """

    ground_truth: GroundTruth
    sizes: dict[int, tuple[int, int]]
    store: Store | None = None

    @property
    def has_occluded_landmarks(self) -> bool:
        """Whether occluded landmarks (v == 1) are kept: the official files of visible landmarks hold none."""
        return self.store is not None or bool((self.ground_truth.landmarks[..., 2] == 1).any())

    def bare(self) -> frozenset[tuple[int, int]]:
        """(image id, label) of items without a visible landmark."""
        truth = self.ground_truth
        rows = np.flatnonzero(~(truth.landmarks[..., 2] == 2).any(axis=1))
        return frozenset(zip(truth.item_image_ids[rows].tolist(), truth.labels[rows].tolist(), strict=True))


def open_truth(path, split: str = 'validation', masks: bool = True, landmarks: bool = True) -> TruthSource:
    """Opens ground truth of any kind.

    Args:
        path: A folder in DeepFashion2's layout (its store is made when missing) or one of its splits' folders; the
            folder of a store; or a JSON file in COCO's format.
        split: Of the folder.
        masks: Whether masks are needed.
        landmarks: Whether landmarks are needed.

    Raises:
        EvaluationError: None of these, or a file that is not of the format.
        StoreError: A store that is damaged or stale.
    """
    path = Path(path)
    if path.is_file():
        return TruthSource(*read_coco_truth(path, masks, landmarks))
    try:
        store, _ = open_annotation(path, split)
    except FileNotFoundError as error:
        raise EvaluationError(
            f'{path} is no ground truth: a JSON file in COCO format, the folder of a store, or a folder with '
            f'{split}/annos and {split}/image is needed ({error})'
        ) from error
    shapes = zip(store.heights.tolist(), store.widths.tolist(), strict=True)
    sizes = dict(zip(store.image_ids.tolist(), shapes, strict=True))
    return TruthSource(ground_truth(store, masks=masks), sizes, store)

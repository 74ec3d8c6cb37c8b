"""What both metrics do with the data samples of single images: arrays, one result per image, coverage of the split."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.logging import print_log
from numpy.typing import DTypeLike

from mmdf2.datasets.store import Store


def to_array(values: Any, dtype: DTypeLike) -> np.ndarray:
    """A NumPy array from a tensor on any device and of any float type, or from anything that NumPy takes."""
    if hasattr(values, 'detach'):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.float()
    return np.asarray(values, dtype=dtype)


def image_id(data_sample: dict) -> int:
    """The ``img_id`` of a data sample; KeyError that names the remedy when the pipeline did not pack it."""
    if 'img_id' not in data_sample:
        raise KeyError("a data sample has no 'img_id': name it in meta_keys of the test pipeline's packing transform")
    return int(data_sample['img_id'])


def one_per_image(results: list[dict], name: str) -> list[dict]:
    """Keeps the first result of each image, by rising image id; logs how many repeated results are left out.

    Samplers repeat images so that every process has the same number. MMEngine removes the repeats only where they come
    last.
    """
    first: dict[int, dict] = {}
    for result in results:
        first.setdefault(result['img_id'], result)
    if len(first) < len(results):
        print_log(
            f'{name}: {len(results) - len(first)} results repeat an image and are left out', 'current', logging.WARNING
        )
    return [first[key] for key in sorted(first)]


def warn_of_coverage(store: Store, image_ids: np.ndarray, name: str) -> None:
    """Warns when not all images of the split were predicted: the figures are then of the predicted images only."""
    if len(image_ids) < len(store):
        print_log(
            f'{name}: {len(image_ids)} of the {len(store)} images of {store.folder} were predicted; '
            'THE FIGURES ARE OF THESE IMAGES ALONE, not of the split',
            'current',
            logging.WARNING,
        )


def common_fields(results: list[dict], fields: Sequence[str]) -> list[str]:
    """Finds the fields that the results have; ValueError when some results have a field and others lack it."""
    present = []
    for field in fields:
        having = sum(field in result for result in results)
        if having not in (0, len(results)):
            raise ValueError(f"{having} of {len(results)} images were predicted with '{field}', the others without it")
        if having:
            present.append(field)
    return present

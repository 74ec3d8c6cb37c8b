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


def unreadable_result(data_sample: dict) -> dict | None:
    """The result of an image that could not be used, which :func:`one_per_image` leaves out; None for other images."""
    if 'unreadable' not in data_sample:
        return None
    return {'img_id': image_id(data_sample), 'unreadable': data_sample['unreadable']}


def usable(results: list[dict]) -> list[dict]:
    """The results of the images that could be used."""
    return [result for result in results if 'unreadable' not in result]


def one_per_image(results: list[dict], name: str) -> list[dict]:
    """Keeps the first result of each image that could be used, by rising image id; logs which others are left out.

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
    in_order = [first[key] for key in sorted(first)]
    failed = [result['unreadable'] for result in in_order if 'unreadable' in result]
    if failed:
        text = f'{name}: {len(failed)} of {len(first)} images could not be used and are left out of the figures:'
        print_log('\n  '.join([text, *failed]), 'current', logging.WARNING)
    return usable(in_order)


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

"""Which detections may match which ground-truth items: those of the same image, within one category.

Ragged groups of all images lie in flat arrays, so that what follows is vectorised over images.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Candidates:
    """Pairs of one category, d detections and m items of all images; positions, not ids.

    Attributes:
        detections: (d,) rows of the detections, by image and then by falling score, cut to ``max_detections`` an image.
        ranks: (d,) place of each among its image's, from 0.
        truths: (m,) rows of the ground truth, by image.
        first_truths: (d,) where the items of the detection's image begin in ``truths``.
        num_truths: (d,) how many they are.
        first_pairs: (d,) where the detection's pairs begin: one with each of its image's items, in order.
        pair_detections: (p,) rows of the detections.
        pair_truths: (p,) rows of the ground truth.
    """

    detections: np.ndarray
    ranks: np.ndarray
    truths: np.ndarray
    first_truths: np.ndarray
    num_truths: np.ndarray
    first_pairs: np.ndarray
    pair_detections: np.ndarray
    pair_truths: np.ndarray


def make_candidates(detection_images, scores, truth_images, max_detections: int) -> Candidates:
    """Pairs the detections of each image with its items.

    Args:
        detection_images: (d,) image id of each detection.
        scores: (d,) ties rank in the order given.
        truth_images: (m,) image id of each item.
        max_detections: Detections kept in an image.
    """
    detections = np.lexsort((-scores, detection_images))
    images = detection_images[detections]
    ranks = np.arange(len(images)) - np.searchsorted(images, images)
    kept = ranks < max_detections
    detections, images, ranks = detections[kept], images[kept], ranks[kept]
    truths = np.argsort(truth_images, kind='stable')
    first, count, members = join(images, truth_images[truths])
    return Candidates(
        detections,
        ranks,
        truths,
        first,
        count,
        np.cumsum(count) - count,
        np.repeat(detections, count),
        truths[members],
    )


def join(keys, sorted_keys) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds each key's run of equal values in a sorted array.

    Args:
        keys: (a,) values.
        sorted_keys: (b,) rising values.

    Returns:
        (a,) start of each run, (a,) its length, and (sum of the lengths,) the positions of all runs one after another.
    """
    first = np.searchsorted(sorted_keys, keys, side='left')
    count = np.searchsorted(sorted_keys, keys, side='right') - first
    members = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return first, count, members

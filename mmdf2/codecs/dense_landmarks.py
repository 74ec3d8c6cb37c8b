"""Conversion between a category's own landmarks and the dense vector of 294 landmarks of the exchange formats."""

import numpy as np
from numpy.typing import ArrayLike

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, TOTAL_LANDMARKS


def to_dense(landmarks: ArrayLike, label: int) -> np.ndarray:
    """Puts the landmarks of one garment, or of several of one category, into the columns of the category.

    Args:
        landmarks: (..., K, C) landmarks of the category, K its number of landmarks or more (padding is left out); the C
            values of a landmark are usually x, y and visibility.
        label: 0 to 12.

    Returns:
        (..., 294, C) float64, zeros in the columns of other categories.
    """
    landmarks = np.asarray(landmarks)
    category = CATEGORIES[label]
    *garments, _, values = landmarks.shape
    dense = np.zeros((*garments, TOTAL_LANDMARKS, values))
    dense[..., category.dense_slice, :] = landmarks[..., : category.num_landmarks, :]
    return dense


def from_dense(dense: ArrayLike, label: int) -> np.ndarray:
    """Takes the landmarks of one category out of a dense vector.

    Args:
        dense: (294, C) values.
        label: 0 to 12.

    Returns:
        (39, C) float64, padded with zeros.
    """
    dense = np.asarray(dense)
    category = CATEGORIES[label]
    landmarks = np.zeros((MAX_LANDMARKS, dense.shape[1]))
    landmarks[: category.num_landmarks] = dense[category.dense_slice]
    return landmarks

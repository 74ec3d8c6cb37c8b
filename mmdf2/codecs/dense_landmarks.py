"""The dense vector of 294 landmarks of the exchange formats, made from a category's own landmarks.

For the way back, ``Category.dense_slice`` names the columns of a category: readers of large files cut them out of the
decoded lists, which is several times as fast as making an array of each vector.
"""

import numpy as np
from numpy.typing import ArrayLike

from mmdf2.categories import CATEGORIES, TOTAL_LANDMARKS


def to_dense(landmarks: ArrayLike, label: int) -> np.ndarray:
    """Puts the landmarks of one garment, or of several of one category, into the columns of the category.

    Args:
        landmarks: (..., K, C) landmarks of the category, K its number of landmarks or more (padding is left out); the C
            values of a landmark are usually x, y and visibility.
        label: The category, 0 to 12.

    Returns:
        (..., 294, C) float64, with zeros in the columns of other categories.
    """
    landmarks = np.asarray(landmarks)
    category = CATEGORIES[label]
    *garments, _, values = landmarks.shape
    dense = np.zeros((*garments, TOTAL_LANDMARKS, values))
    dense[..., category.dense_slice, :] = landmarks[..., : category.num_landmarks, :]
    return dense

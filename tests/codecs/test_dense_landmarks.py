"""The dense vector of the exchange formats, made from a category's own landmarks."""

import numpy as np
import pytest

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, TOTAL_LANDMARKS
from mmdf2.codecs.dense_landmarks import to_dense


@pytest.mark.parametrize('label', range(13))
def test_landmarks_stand_in_the_columns_of_their_category(label):
    landmarks = np.random.default_rng(label).uniform(1, 9, (MAX_LANDMARKS, 3))
    count, offset = CATEGORIES[label].num_landmarks, CATEGORIES[label].offset
    dense = to_dense(landmarks, label)
    assert dense.shape == (TOTAL_LANDMARKS, 3)
    np.testing.assert_array_equal(dense[offset : offset + count], landmarks[:count])
    assert (dense != 0).any(axis=1).sum() == count
    np.testing.assert_array_equal(dense[CATEGORIES[label].dense_slice], landmarks[:count])


def test_garments_of_one_category_at_once():
    landmarks = np.random.default_rng(0).uniform(1, 9, (2, 5, MAX_LANDMARKS, 2))
    dense = to_dense(landmarks, 7)
    assert dense.shape == (2, 5, TOTAL_LANDMARKS, 2)
    for row in np.ndindex(2, 5):
        np.testing.assert_array_equal(dense[row], to_dense(landmarks[row], 7))
    assert to_dense(landmarks[:, :0], 7).shape == (2, 0, TOTAL_LANDMARKS, 2)

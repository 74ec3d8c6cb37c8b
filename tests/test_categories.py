import json

import numpy as np
import pytest

from mmdf2.categories import (
    CATEGORIES,
    FLIP_PERMUTATIONS,
    LANDMARK_COUNTS,
    LANDMARK_OFFSETS,
    MAX_LANDMARKS,
    OKS_SIGMAS,
    TOTAL_LANDMARKS,
    category_by_id,
)


def test_the_table_is_the_published_one(sample_root):
    published = json.loads((sample_root.parent / 'reference' / 'deepfashion2_categories.json').read_text())[
        'categories'
    ]
    assert len(published) == len(CATEGORIES) == 13
    for ours, theirs in zip(CATEGORIES, published, strict=True):
        assert (ours.id, ours.name, ours.offset) == (theirs['id'], theirs['name'], theirs['offset'])
        assert ours.num_landmarks == theirs['num_landmarks']
        assert {(a + 1, b + 1) for a, b in ours.flip_pairs} == {tuple(pair) for pair in theirs['flip_pairs']}
        assert {(a + 1, b + 1) for a, b in ours.skeleton} == {tuple(pair) for pair in theirs['skeleton']}
        assert ours.oks_sigmas == tuple(theirs['oks_sigmas'])


def test_slices_tile_the_dense_vector():
    columns = np.concatenate([np.arange(TOTAL_LANDMARKS)[category.dense_slice] for category in CATEGORIES])
    assert columns.tolist() == list(range(294))
    assert MAX_LANDMARKS == 39
    assert (np.cumsum(LANDMARK_COUNTS)[:-1] == LANDMARK_OFFSETS[1:]).all()


@pytest.mark.parametrize('category', CATEGORIES, ids=lambda category: category.name)
def test_each_category_is_mirror_symmetric(category):
    order = FLIP_PERMUTATIONS[category.label]
    count = category.num_landmarks
    assert (order[order] == np.arange(MAX_LANDMARKS)).all()
    assert (order[count:] == np.arange(count, MAX_LANDMARKS)).all()
    edges = {frozenset(edge) for edge in category.skeleton}
    mirrored = {frozenset((int(order[a]), int(order[b]))) for a, b in category.skeleton}
    assert edges == mirrored
    assert all(0 <= landmark < count for edge in edges for landmark in edge)
    numbers = [landmark for pair in category.flip_pairs for landmark in pair]
    assert len(numbers) == len(set(numbers))


def test_sigmas_are_padded_with_nan():
    for category in CATEGORIES:
        row = OKS_SIGMAS[category.label]
        assert (row[: category.num_landmarks] > 0).all()
        assert np.isnan(row[category.num_landmarks :]).all()


@pytest.mark.parametrize('bad', [0, 14, -1, 1.5, None])
def test_unknown_category_is_refused(bad):
    with pytest.raises(ValueError, match='category_id must be 1 to 13'):
        category_by_id(bad)

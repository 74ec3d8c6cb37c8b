"""The category table against facts that are written down apart from it, and against the published figure."""

import json
from pathlib import Path

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

FACTS = Path(__file__).parent / 'data' / 'deepfashion2_categories.json'
# Read off the published figure of landmark definitions: per category, its last landmark.
LAST_LANDMARKS = {
    'short sleeve top': 25,
    'long sleeve top': 33,
    'short sleeve outwear': 31,
    'long sleeve outwear': 39,
    'vest': 15,
    'sling': 15,
    'shorts': 10,
    'trousers': 14,
    'skirt': 8,
    'short sleeve dress': 29,
    'long sleeve dress': 37,
    'vest dress': 19,
    'sling dress': 19,
}
# Read off the figure: landmarks on the axis of symmetry, and some pairs of left and right, both numbered from 1. The
# figure's labels 2 and 4 of 'short sleeve outwear' are exchanged here; the table's note says why.
ON_THE_AXIS = {
    'short sleeve top': {1, 4, 16},
    'long sleeve top': {1, 4, 20},
    'short sleeve outwear': {1},
    'long sleeve outwear': {1},
    'vest': {1, 4, 11},
    'sling': {1, 4, 11},
    'shorts': {2, 7},
    'trousers': {2, 9},
    'skirt': {2, 6},
    'short sleeve dress': {1, 4, 18},
    'long sleeve dress': {1, 4, 22},
    'vest dress': {1, 4, 13},
    'sling dress': {1, 4, 13},
}
PAIRS = {
    'short sleeve top': [(2, 6), (7, 25), (9, 23), (12, 20), (15, 17)],
    'long sleeve top': [(2, 6), (7, 33), (12, 28), (16, 24), (19, 21)],
    'short sleeve outwear': [(2, 6), (4, 26), (12, 20), (30, 27), (15, 17), (16, 29)],
    'long sleeve outwear': [(2, 6), (4, 34), (16, 24), (38, 35), (19, 21), (20, 37)],
    'vest': [(2, 6), (7, 15), (9, 13), (10, 12)],
    'sling': [(2, 6), (7, 15), (9, 13), (10, 12)],
    'shorts': [(1, 3), (4, 10), (5, 9), (6, 8)],
    'trousers': [(1, 3), (4, 14), (6, 12), (7, 11), (8, 10)],
    'skirt': [(1, 3), (4, 8), (5, 7)],
    'short sleeve dress': [(2, 6), (9, 27), (12, 24), (17, 19)],
    'long sleeve dress': [(2, 6), (12, 32), (15, 29), (16, 28), (21, 23)],
    'vest dress': [(2, 6), (7, 19), (11, 15), (12, 14)],
    'sling dress': [(2, 6), (7, 19), (11, 15), (12, 14)],
}
# Sums of the sigmas, added up from the official evaluation's list.
SIGMA_SUMS = (
    0.8325, 1.4715, 0.8510, 1.5403, 0.4881, 0.7217, 0.4235, 0.5362, 0.3228, 1.2272, 1.5509, 0.6556, 0.8977,
)  # fmt: skip


def test_the_table_is_the_published_one():
    published = json.loads(FACTS.read_text())['categories']
    assert len(published) == len(CATEGORIES) == 13
    for ours, theirs in zip(CATEGORIES, published, strict=True):
        assert (ours.id, ours.name, ours.offset) == (theirs['id'], theirs['name'], theirs['offset'])
        assert ours.num_landmarks == theirs['num_landmarks']
        assert {(a + 1, b + 1) for a, b in ours.flip_pairs} == {tuple(pair) for pair in theirs['flip_pairs']}
        assert {(a + 1, b + 1) for a, b in ours.skeleton} == {tuple(pair) for pair in theirs['skeleton']}
        assert ours.oks_sigmas == tuple(theirs['oks_sigmas'])


def test_the_table_is_that_of_the_published_figure():
    assert {category.name: category.num_landmarks for category in CATEGORIES} == LAST_LANDMARKS
    assert sum(LAST_LANDMARKS.values()) == TOTAL_LANDMARKS == 294
    for category in CATEGORIES:
        partner = {a + 1: b + 1 for a, b in category.flip_pairs} | {b + 1: a + 1 for a, b in category.flip_pairs}
        assert set(range(1, category.num_landmarks + 1)) - set(partner) == ON_THE_AXIS[category.name]
        assert all(partner[left] == right for left, right in PAIRS[category.name])
        # An outline has as many edges as corners; above the front neckline runs the back one, to one more landmark.
        has_neck = category.name not in ('shorts', 'trousers', 'skirt')
        assert len(category.skeleton) == category.num_landmarks + has_neck


def test_sigmas_add_up_to_the_published_sums():
    assert [round(sum(category.oks_sigmas), 4) for category in CATEGORIES] == list(SIGMA_SUMS)


def test_one_pair_of_sigmas_is_not_mirror_symmetric():
    """So it is in the official evaluation; see the table's note."""
    differing = [
        (category.name, left + 1, right + 1, category.oks_sigmas[left], category.oks_sigmas[right])
        for category in CATEGORIES
        for left, right in category.flip_pairs
        if category.oks_sigmas[left] != category.oks_sigmas[right]
    ]
    assert differing == [('long sleeve dress', 15, 29, 0.0455, 0.0486)]


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

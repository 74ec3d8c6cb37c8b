"""Contours through landmarks: order (compared with the table's symmetry and skeleton), shapes and coverage."""

import numpy as np
import pytest

from mmdf2.categories import CATEGORIES
from mmdf2.codecs.contour import coverage, landmark_contour, seen_from_behind

LABELS = range(13)
# Landmarks that are on no front contour: the back of the neck and the tips of straps.
NOT_IN_FRONT = {label: set() if label in (6, 7, 8) else {0} for label in LABELS}
NOT_IN_FRONT[5] |= {6, 14}
NOT_IN_FRONT[12] |= {6, 18}


def edges(runs):
    """Undirected edges of closed runs."""
    return {frozenset(pair) for run in runs for pair in zip(run, (*run[1:], run[0]), strict=True)}


@pytest.mark.parametrize('label', LABELS)
def test_contours_go_through_each_landmark_once(label):
    category = CATEGORIES[label]
    for runs in (category.contour, category.back_contour):
        places = [place for run in runs for place in run]
        assert len(set(places)) == len(places) and set(places) <= set(range(category.num_landmarks))
    assert set(range(category.num_landmarks)) - {p for run in category.contour for p in run} == NOT_IN_FRONT[label]


@pytest.mark.parametrize('label', LABELS)
def test_contours_are_those_of_the_mirrored_garment(label):
    category = CATEGORIES[label]
    mirror = {place: place for place in range(category.num_landmarks)}
    for a, b in category.flip_pairs:
        mirror[a], mirror[b] = b, a
    for runs in (category.contour, category.back_contour):
        assert edges(runs) == edges([tuple(mirror[place] for place in run) for run in runs])


@pytest.mark.parametrize('label', LABELS)
def test_edges_are_those_of_the_official_skeleton_except_where_outwear_closes(label):
    category = CATEGORIES[label]
    skeleton = {frozenset(pair) for pair in category.skeleton}
    assert edges(category.contour) <= skeleton
    extra = edges(category.back_contour) - skeleton
    # Outwear seen from behind is closed at the hem, between its two fronts.
    assert len(extra) == (1 if 'outwear' in category.name else 0)


def square(label):
    landmarks = np.zeros((CATEGORIES[label].num_landmarks, 3))
    landmarks[:, 0] = np.arange(len(landmarks))
    landmarks[:, 1] = np.arange(len(landmarks)) ** 2
    landmarks[:, 2] = 2
    return landmarks


def test_landmarks_that_are_not_labelled_are_skipped():
    landmarks = square(8)
    whole = landmark_contour(landmarks, 8)
    assert [polygon.tolist() for polygon in whole] == [landmarks[list(CATEGORIES[8].contour[0]), :2].tolist()]
    landmarks[2] = 0
    (polygon,) = landmark_contour(landmarks, 8)
    assert len(polygon) == len(whole[0]) - 1 and [2, 4] not in polygon.tolist()
    landmarks[2:] = 0
    assert landmark_contour(landmarks, 8) == []


def test_outwear_has_two_sides_in_front_and_one_piece_behind():
    for label in (2, 3):
        assert len(landmark_contour(square(label), label)) == 2
        assert len(landmark_contour(square(label), label, from_behind=True)) == 1


def test_seen_from_behind():
    landmarks = square(0)
    assert not seen_from_behind(landmarks, 0, viewpoint=2)
    assert seen_from_behind(landmarks, 0, viewpoint=1)
    landmarks[[2, 3, 4], 2] = 1
    assert seen_from_behind(landmarks, 0, viewpoint=3)
    landmarks[0, 2] = 1
    assert not seen_from_behind(landmarks, 0, viewpoint=3)
    assert not seen_from_behind(square(8), 8, viewpoint=1)


def test_refusals():
    with pytest.raises(ValueError, match='label must be 0 to 12, got 13'):
        landmark_contour(square(0), 13)
    with pytest.raises(ValueError, match=r"'short sleeve top' needs \(25, 3\) landmarks, got \(8, 3\)"):
        landmark_contour(square(8), 0)
    landmarks = square(8)
    landmarks[1, 0] = np.nan
    with pytest.raises(ValueError, match='must be finite where v > 0'):
        landmark_contour(landmarks, 8)
    landmarks[1, 2] = 0
    landmark_contour(landmarks, 8)
    with pytest.raises(ValueError, match=r'one shape, got \(2, 3\) and \(3, 2\)'):
        coverage(np.ones((2, 3), bool), np.ones((3, 2), bool))


def test_coverage_by_counting():
    one, two = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    one[:, :3], two[:, 1:] = True, True
    found = coverage(one, two)
    assert (found.inside, found.iou) == (8 / 16, 8 / 20)
    empty = coverage(one, np.zeros((4, 5), bool))
    assert np.isnan(empty.inside) and empty.iou == 0
    assert np.isnan(coverage(np.zeros((1, 1), bool), np.zeros((1, 1), bool)).iou)

"""Landmarks of drawn garments: order as in the published figure, left and right sides, and the flip table."""

import numpy as np
import pytest

from mmdf2.categories import CATEGORIES
from mmdf2.wardrobe.garments.cut import BOTTOMS, LONG_SLEEVED, OUTWEAR, SHORT_SLEEVED, SHORTS, SKIRT, sample_cut
from mmdf2.wardrobe.people.body import SIDES, View, sample_body
from mmdf2.wardrobe.scene import dress

IDS = [category.name for category in CATEGORIES]


def dressed(category_id, view=None, count=12, poses=None):
    """Garments of a category, on different wearers."""
    for seed in range(count):
        rng = np.random.default_rng([category_id, seed])
        body = sample_body(rng, view or View(), poses or {'hanging': 1.0})
        yield dress(sample_cut(rng, category_id), body), body


@pytest.mark.parametrize('category', CATEGORIES, ids=IDS)
def test_every_landmark_is_placed_on_a_panel(category):
    for view in (View(), View(yaw=0.9), View(yaw=-0.9), View(back=True), View(worn=False)):
        for garment, _ in dressed(category.id, view, 4, {'hip': 1, 'across': 1, 'phone': 1, 'raised': 1}):
            assert garment.landmarks.shape == (category.num_landmarks, 2)
            assert np.isfinite(garment.landmarks).all()
            roles = {panel.role for panel in garment.panels}
            for number, allowed in enumerate(garment.roles, 1):
                assert roles & set(allowed), f'landmark {number} lies on {allowed}, the garment has {roles}'


@pytest.mark.parametrize('category', CATEGORIES, ids=IDS)
def test_left_member_of_a_flip_pair_is_on_the_image_left(category):
    for garment, _ in dressed(category.id):
        x = garment.landmarks[:, 0]
        for left, right in category.flip_pairs:
            # The figure numbers from the left neckline (2) down the left side: the smaller number is on the left,
            # except at the front edges of outwear, where 4 (left) pairs with 26 or 34 and so on.
            if category.id in OUTWEAR and (left, right) in {(26, 29), (27, 30), (34, 37), (35, 38)}:
                left, right = right, left
            assert x[left] < x[right] + 0.01, f'landmarks {left + 1} and {right + 1}'


@pytest.mark.parametrize('category', CATEGORIES, ids=IDS)
def test_unpaired_landmarks_are_in_the_middle(category):
    paired = {index for pair in category.flip_pairs for index in pair}
    for garment, _ in dressed(category.id):
        for index in set(range(category.num_landmarks)) - paired:
            assert abs(garment.landmarks[index, 0]) < 6, f'landmark {index + 1}'


@pytest.mark.parametrize('category', CATEGORIES, ids=IDS)
def test_mirrored_wearer_gives_the_flip_tables_permutation(category):
    """Dressing a mirrored wearer gives the mirrored landmarks, renumbered by the table."""
    for garment, body in dressed(category.id, View(yaw=0.2), 4, {'hip': 1, 'across': 1}):
        mirrored = mirror_body(body)
        expected = garment.landmarks * (-1, 1)
        permutation = np.arange(category.num_landmarks)
        for left, right in category.flip_pairs:
            permutation[[left, right]] = right, left
        np.testing.assert_allclose(dress(garment.cut, mirrored).landmarks, expected[permutation], atol=1e-6)


def mirror_body(body):
    from dataclasses import replace

    arms = tuple(
        replace(arm, side=side, joints=arm.joints * (-1, 1)) for side, arm in zip(SIDES, body.arms[::-1], strict=True)
    )
    return replace(
        body,
        view=replace(body.view, yaw=-body.view.yaw),
        arms=arms,
        feet=tuple(-x for x in body.feet[::-1]),
        knees=tuple(-x for x in body.knees[::-1]),
    )


@pytest.mark.parametrize('category', [c for c in CATEGORIES if c.id not in BOTTOMS], ids=lambda c: c.name)
def test_upper_garments_from_neck_to_hem(category):
    for garment, _ in dressed(category.id):
        y = garment.landmarks[:, 1]
        assert y[3] > max(y[1], y[5]), 'the middle of the front neckline (4) hangs below its ends (2 and 6)'
        assert y[1] <= y[2] <= y[3], 'the neckline falls from 2 over 3 to 4'
        assert y[1] <= y[0] < y[3] + 0.5 or category.name.startswith('sling'), 'the back neckline (1) is above 4'
        sides = {1: (12, 13, 14), 2: (16, 17, 18), 10: (12, 13, 14, 15, 16), 11: (16, 17, 18, 19, 20), 5: (7, 8, 9)}
        for upper, lower in zip(sides.get(category.id, ()), sides.get(category.id, ())[1:], strict=False):
            assert y[upper] < y[lower], f'the side runs down from {upper + 1} to {lower + 1}'


@pytest.mark.parametrize(
    'category', [c for c in CATEGORIES if c.id in LONG_SLEEVED + SHORT_SLEEVED], ids=lambda c: c.name
)
def test_sleeves_run_down_outside_and_up_inside(category):
    count = 4 if category.id in LONG_SLEEVED else 2
    for garment, body in dressed(category.id, poses={'away': 1}):
        points = garment.landmarks
        outer, inner = points[6 : 7 + count], points[7 + count : 8 + 2 * count]
        assert (np.diff(outer[:, 1]) > 0).all(), 'down the outer edge from the shoulder (7)'
        assert (np.diff(inner[:, 1]) < 0).all(), 'up the inner edge to the armpit'
        assert np.linalg.norm(outer[-1] - inner[0]) < 20, 'the end of the sleeve joins both'
        for edge, side in ((outer[-1], -1), (inner[0], 1)):
            bone = body.arms[0].joints[:2] if count == 2 else body.arms[0].joints[1:]
            (dx, dy), (px, py) = bone[1] - bone[0], edge - bone[0]
            assert np.sign(dx * py - dy * px) == -side, 'outer and inner end lie on either side of the left arm'


def test_bottoms_from_waist_to_hem():
    for category_id in BOTTOMS:
        for garment, _ in dressed(category_id):
            points = garment.landmarks
            assert points[:3, 1].max() < points[3:, 1].min(), 'the waist (1, 2, 3) is on top'
            assert (np.diff(points[:3, 0]) > 0).all()
            if category_id == SKIRT:
                assert (np.diff(points[4:7, 0]) > 0).all(), 'the hem runs 5, 6, 7 from left to right'
                continue
            crotch, hem = (6, (4, 5, 7, 8)) if category_id == SHORTS else (8, (5, 6, 10, 11))
            assert points[crotch, 1] < points[list(hem), 1].min(), 'the crotch is above the hems'
            assert (np.diff(points[list(hem), 0]) > -0.5).all(), 'hem: outer left, inner left, inner right, outer right'


def test_front_neckline_and_opening_are_hidden_from_behind():
    for category in CATEGORIES:
        for garment, _ in dressed(category.id, View(back=True), 2):
            hidden = set(np.flatnonzero(garment.hidden) + 1)
            if category.id in BOTTOMS:
                assert not hidden
            elif category.id in OUTWEAR:
                assert {3, 4, 5} <= hidden and 1 not in hidden and len(hidden) == 10
            else:
                assert hidden == {3, 4, 5}

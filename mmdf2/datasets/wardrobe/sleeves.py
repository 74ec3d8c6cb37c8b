"""Sleeves: cloth around an arm, from the armhole to the sleeve's end, and their landmarks."""

from dataclasses import dataclass

import numpy as np

from mmdf2.datasets.wardrobe.body import FOREARM, UPPER_ARM, Arm
from mmdf2.datasets.wardrobe.cut import Cut
from mmdf2.datasets.wardrobe.garment import Panel, Stroke
from mmdf2.datasets.wardrobe.geometry import affine, along, ellipse, spline

ARM_HALF_WIDTHS = (4.9, 4.0, 2.8)  # at the shoulder, elbow and wrist


@dataclass(frozen=True)
class Sleeve:
    """A sleeve's panels and its landmarks in the order of the published figure.

    Attributes:
        panels: One for each bone that it covers.
        outer: Landmarks down the outer edge without the shoulder, the last one at the sleeve's end.
        inner: Landmarks up the inner edge from the sleeve's end, without the armpit.
    """

    panels: list[Panel]
    outer: np.ndarray
    inner: np.ndarray


def arm_frame(start, end, side: int) -> np.ndarray:
    """(2, 3) map that turns cloth made for a hanging arm along the bone from ``start`` to ``end``."""
    dx, dy = np.asarray(end) - start
    angle = np.arctan2(-dx, dy)
    return affine(1.0, angle, np.asarray(start) - affine(1.0, angle)[:, :2] @ (side * 16.5, 4.0))


def outward(start, end, side: int) -> np.ndarray:
    """Unit normal of a bone on the arm's outer side."""
    dx, dy = np.asarray(end) - start
    return side * np.array([dy, -dx]) / max(np.hypot(dx, dy), 1e-6)


def short_sleeve(cut: Cut, arm: Arm, tip, armpit) -> Sleeve:
    """A sleeve that ends above the elbow.

    Args:
        cut: The garment's measures.
        arm: The arm in it.
        tip: Where the sleeve meets the shoulder.
        armpit: Where it meets the trunk's side.
    """
    shoulder, elbow, _ = arm.joints
    normal, down = outward(shoulder, elbow, arm.side), (elbow - shoulder) / UPPER_ARM
    length = cut.sleeve * (UPPER_ARM + FOREARM)
    extra = ARM_HALF_WIDTHS[1] * (cut.sleeve_width - 1)
    end = shoulder + down * length
    outer_end = end + normal * (ARM_HALF_WIDTHS[1] + 1.3 * extra)
    inner_end = end - normal * (ARM_HALF_WIDTHS[1] + 0.6 * extra) + down * 0.8
    cap = shoulder + down * length * 0.45 + normal * (ARM_HALF_WIDTHS[0] + 0.7 * extra)
    outer = spline([tip, cap, outer_end])
    inner = np.stack([armpit, inner_end])
    hem = spline([outer_end, (outer_end + inner_end) / 2 + down * 0.9, inner_end])
    outline = np.concatenate([outer, hem[1:], inner[:1]])
    strokes = [Stroke(hem - down * 1.6, 'dark', 0.25), Stroke(np.stack([tip, (tip + armpit) / 2 + normal * -1.2, armpit]), 'dark', 0.35)]  # fmt: skip
    panel = Panel(f'sleeve{arm.side}', outline, arm_frame(shoulder, elbow, arm.side), strokes)
    return Sleeve([panel], np.stack([along(outer, 0.52)[0], outer_end]), np.stack([inner_end, inner.mean(axis=0)]))


def long_sleeve(cut: Cut, arm: Arm, tip, armpit) -> Sleeve:
    """A sleeve that ends near the wrist; arguments as for ``short_sleeve``."""
    shoulder, elbow, wrist = arm.joints
    role = f'sleeve{arm.side}'
    upper, lower = outward(shoulder, elbow, arm.side), outward(elbow, wrist, arm.side)
    bend = upper + lower
    bend = bend / np.hypot(*bend) if np.hypot(*bend) > 0.3 else upper
    share = np.clip((cut.sleeve * (UPPER_ARM + FOREARM) - UPPER_ARM) / FOREARM, 0.3, 1.0)
    end = elbow + (wrist - elbow) * share
    wide = ARM_HALF_WIDTHS[1] * (0.6 + 0.4 * cut.sleeve_width)
    narrow = ARM_HALF_WIDTHS[2] * (1.25 if cut.cuff else cut.sleeve_width)
    outer_elbow, inner_elbow = elbow + bend * wide, elbow - bend * wide
    outer_end, inner_end = end + lower * narrow, end - lower * narrow
    cap = shoulder + (elbow - shoulder) * 0.33 + upper * (ARM_HALF_WIDTHS[0] + 0.3 * wide)
    outer = spline([tip, cap, elbow + upper * wide])
    upper_outline = np.concatenate(
        [outer, _cap(elbow, wrist - elbow, wide), (elbow - upper * wide)[None], armpit[None]]
    )
    lower_outline = np.concatenate(
        [[elbow + lower * wide], [outer_end, inner_end], [elbow - lower * wide], _cap(elbow, shoulder - elbow, wide)]
    )
    down = (wrist - elbow) / max(np.hypot(*(wrist - elbow)), 1e-6)
    cuff = np.stack([outer_end, inner_end]) - down * (4.0 if cut.cuff else 1.5)
    seam = Stroke(np.stack([tip, (tip + armpit) / 2 - upper * 1.2, armpit]), 'dark', 0.35)
    panels = [
        Panel(role, upper_outline, arm_frame(shoulder, elbow, arm.side), [seam]),
        Panel(role, _wound(lower_outline), arm_frame(elbow, wrist, arm.side), [Stroke(cuff, 'dark', 0.35)]),
    ]
    outer_landmarks = [along(outer, 0.55)[0], outer_elbow, (elbow + lower * wide + outer_end) / 2, outer_end]
    inner_landmarks = [inner_end, (elbow - lower * wide + inner_end) / 2, inner_elbow, (inner_elbow + armpit) / 2]
    return Sleeve(panels, np.stack(outer_landmarks), np.stack(inner_landmarks))


def _cap(joint, direction, radius) -> np.ndarray:
    """Half circle around a joint on the side of ``direction``, from its left to its right when looking that way."""
    angle = np.arctan2(direction[1], direction[0])
    t = angle + np.linspace(-np.pi / 2, np.pi / 2, 7)
    return np.asarray(joint) + radius * np.stack([np.cos(t), np.sin(t)], axis=1)


def _wound(points) -> np.ndarray:
    """The convex outline through the points, whatever their order."""
    center = points.mean(axis=0)
    return points[np.argsort(np.arctan2(*(points - center).T[::-1]), kind='stable')]


def bare_arm(arm: Arm) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outlines of an uncovered upper arm, forearm and hand."""
    shoulder, elbow, wrist = arm.joints
    first, second, third = ARM_HALF_WIDTHS
    upper, lower = outward(shoulder, elbow, arm.side), outward(elbow, wrist, arm.side)
    upper_outline = [*_cap(shoulder, shoulder - elbow, first), *_cap(elbow, elbow - shoulder, second)]
    lower_outline = [elbow + lower * second, wrist + lower * third, wrist - lower * third, elbow - lower * second]
    direction = (wrist - elbow) / max(np.hypot(*(wrist - elbow)), 1e-6)
    hand = ellipse(wrist + direction * 6.5, (8.0, 3.6), np.arctan2(direction[1], direction[0]))
    forearm = np.concatenate([lower_outline, _cap(elbow, elbow - wrist, second)])
    return np.array(upper_outline), _wound(forearm), hand

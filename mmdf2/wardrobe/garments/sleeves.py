"""Sleeves: cloth around an arm, from the armhole to the sleeve's end, and their landmarks."""

from dataclasses import dataclass

import numpy as np

from mmdf2.wardrobe.garments.cut import Cut
from mmdf2.wardrobe.garments.garment import Panel, Stroke
from mmdf2.wardrobe.geometry import affine, along, band, ellipse, hull, polygon_of, spline
from mmdf2.wardrobe.people.body import FOREARM, SHOULDER, UPPER_ARM, Arm

STRAIGHT = 0.7  # a sleeve is one piece if the cosine of the bend at the elbow is larger
ARM_HALF_WIDTHS = (4.4, 3.8, 2.8)  # at the shoulder, elbow and wrist


@dataclass(frozen=True)
class Sleeve:
    """A sleeve's panels and its landmarks in the order of the published figure.

    Attributes:
        panels: The pieces of cloth: one, or for a bent arm one along the upper arm and one along the forearm.
        outer: (P, 2) landmarks down the outer edge without the shoulder; the last one is at the sleeve's end.
        inner: (P, 2) landmarks up the inner edge from the sleeve's end, without the armpit.
    """

    panels: list[Panel]
    outer: np.ndarray
    inner: np.ndarray


def arm_frame(start, end, side: int) -> np.ndarray:
    """Makes the (2, 3) map that rotates the cloth of a hanging arm to the bone from ``start`` to ``end``."""
    dx, dy = np.asarray(end) - start
    angle = np.arctan2(-dx, dy)
    return affine(1.0, angle, np.asarray(start) - affine(1.0, angle)[:, :2] @ (side * SHOULDER[0], SHOULDER[1]))


def outward(start, end, side: int) -> np.ndarray:
    """Unit normal of a bone on the arm's outer side."""
    dx, dy = np.asarray(end) - start
    return side * np.array([dy, -dx]) / max(np.hypot(dx, dy), 1e-6)


def short_sleeve(cut: Cut, arm: Arm, tip, armpit) -> Sleeve:
    """Makes a sleeve that ends above the elbow.

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
    cap = shoulder + down * length * 0.45 + normal * (ARM_HALF_WIDTHS[0] + 0.9 + 0.7 * extra)
    outer = spline([tip, _shoulder_cap(shoulder, tip, down, normal), cap, outer_end])
    inner = np.stack([armpit, inner_end])
    hem = spline([outer_end, (outer_end + inner_end) / 2 + down * 0.9, inner_end])
    outline = np.concatenate([outer, hem[1:], inner[:1]])
    strokes = [
        Stroke(hem - down * 1.6, 'dark', 0.25),
        Stroke(np.stack([tip, (tip + armpit) / 2 + normal * -1.2, armpit]), 'dark', 0.35),
    ]
    panel = Panel(
        role=f'sleeve{arm.side}', outline=outline, frame=arm_frame(shoulder, elbow, arm.side), strokes=strokes
    )
    return Sleeve([panel], np.stack([along(outer, 0.52)[0], outer_end]), np.stack([inner_end, inner.mean(axis=0)]))


def long_sleeve(cut: Cut, arm: Arm, tip, armpit) -> Sleeve:
    """Makes a sleeve that ends near the wrist; the arguments are those of ``short_sleeve``."""
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
    down = (elbow - shoulder) / UPPER_ARM
    outer = spline([tip, _shoulder_cap(shoulder, tip, down, upper), cap, elbow + upper * wide])
    forearm = (wrist - elbow) / max(np.hypot(*(wrist - elbow)), 1e-6)
    seam = Stroke(np.stack([tip, (tip + armpit) / 2 - upper * 1.2, armpit]), 'dark', 0.35)
    cuff = Stroke(np.stack([outer_end, inner_end]) - forearm * (4.0 if cut.cuff else 1.5), 'dark', 0.35)
    frame = arm_frame(shoulder, elbow, arm.side)
    if forearm @ down > STRAIGHT:
        outline = np.concatenate([spline([*outer[:-3:5], outer_elbow, outer_end]), [inner_end, inner_elbow, armpit]])
        panels = [Panel(role=role, outline=outline, frame=frame, strokes=[seam, cuff])]
    else:
        elbow_cap = _cap(elbow, down, wide)[:: arm.side]
        ends = [elbow + lower * wide, outer_end, inner_end, elbow - lower * wide]
        panels = [
            Panel(role=role, outline=np.concatenate([outer, elbow_cap, armpit[None]]), frame=frame, strokes=[seam]),
            Panel(
                role=role, outline=hull([*ends, *elbow_cap]), frame=arm_frame(elbow, wrist, arm.side), strokes=[cuff]
            ),
        ]
    outer_landmarks = [along(outer, 0.55)[0], outer_elbow, (elbow + lower * wide + outer_end) / 2, outer_end]
    inner_landmarks = [inner_end, (elbow - lower * wide + inner_end) / 2, inner_elbow, (inner_elbow + armpit) / 2]
    return Sleeve(panels, np.stack(outer_landmarks), np.stack(inner_landmarks))


def armpit_of(arm: Arm, side_x: float, y: float) -> np.ndarray:
    """Finds where a sleeve meets the trunk: at the side ``side_x``, or at the arm's inner edge if that is inside it."""
    shoulder, elbow, _ = arm.joints
    inner = (shoulder + elbow) / 2 - outward(shoulder, elbow, arm.side) * (ARM_HALF_WIDTHS[0] + 1.2)
    return np.array([min(side_x * arm.side, inner[0] * arm.side) * arm.side, y])


def _shoulder_cap(shoulder, tip, down, normal) -> np.ndarray:
    """A point of the sleeve's outer edge just below its seam, outside of the round shoulder."""
    return (shoulder + normal * (ARM_HALF_WIDTHS[0] + 0.7) + down * 1.0 + 2 * (tip + normal * 2.4)) / 3


def _cap(joint, direction, radius) -> np.ndarray:
    """Half circle around a joint on the side of ``direction``, from left to right for one who looks that way."""
    angle = np.arctan2(direction[1], direction[0])
    t = angle + np.linspace(-np.pi / 2, np.pi / 2, 7)
    return np.asarray(joint) + radius * np.stack([np.cos(t), np.sin(t)], axis=1)


def bare_arm(arm: Arm) -> list[np.ndarray]:
    """Draws the outlines of an uncovered arm; the upper arm comes first and the hand last."""
    shoulder, elbow, wrist = arm.joints
    first, second, third = ARM_HALF_WIDTHS
    direction = (wrist - elbow) / max(np.hypot(*(wrist - elbow)), 1e-6)
    hand = ellipse(wrist + direction * 6.5, (8.0, 3.6), np.arctan2(direction[1], direction[0]))
    if direction @ (elbow - shoulder) > -0.2 * UPPER_ARM:
        bend = [shoulder, shoulder + 0.8 * (elbow - shoulder), elbow + 0.2 * (wrist - elbow), wrist]
        line = spline(bend, 6)
        widths = np.interp(np.linspace(0, 1, len(line)), [0, 0.5, 1], [first, second, third])
        return [np.concatenate([polygon_of(band(line, widths)), _cap(shoulder, line[0] - line[1], first)]), hand]
    lower = outward(elbow, wrist, arm.side)
    upper = np.array([*_cap(shoulder, shoulder - elbow, first), *_cap(elbow, elbow - shoulder, second)])
    forearm = hull([wrist + lower * third, wrist - lower * third, *ellipse(elbow, (second, second))])
    return [upper, forearm, hand]

"""Version 2's wearers: more kinds of skin, hair, build, arms and legs, and what covers a head."""

# ruff: noqa: RUF005 (offsets are added to points, nothing is concatenated)
from dataclasses import replace

import numpy as np

from mmdf2.wardrobe.canvas import Surface
from mmdf2.wardrobe.geometry import affine, apply, ellipse, spline
from mmdf2.wardrobe.people.body import HAIRS, SIDES, SKINS, Arm, Body, arm_joints, as_color
from mmdf2.wardrobe.people.figure import Layer

# Name -> ((least, most) angle of the upper arm from the vertical, (least, most) bend of the forearm, factor on the
# forearm's length in the image), in degrees as in ``body.ARM_POSES``; the last number is the pose's weight.
MORE_POSES = {
    'pocket': ((14, 30), (-42, -18), 0.8, 3.0),
    'behind the back': ((10, 24), (-60, -35), 0.55, 1.0),
    'arms crossed': ((4, 14), (-108, -85), 0.95, 1.2),
    'hand to the face': ((16, 34), (-172, -150), 0.9, 1.4),
    'hand in the hair': ((100, 135), (-150, -115), 0.9, 0.7),
    'pointing': ((50, 85), (-15, 30), 1.0, 0.7),
    'towards the camera': ((8, 22), (-20, 20), 0.45, 1.0),
}
STANCES = {
    # Name -> (factor on the distance of the feet, largest shift of one knee, largest shift of one foot).
    'standing': (1.0, 1.5, 2.0),
    'wide': (2.1, 2.0, 2.0),
    'closed': (0.45, 1.0, 1.0),
    'one knee bent': (1.0, 6.0, 4.0),
    'walking': (0.6, 3.0, 5.0),
}


def vary_body(rng: np.random.Generator, body: Body) -> Body:
    """Changes a wearer of version 1: the build always, each arm and the stance of the legs sometimes."""
    chest, waist, hip = np.clip(rng.normal((1.0, 1.02, 1.0), (0.045, 0.07, 0.05)), 0.85, 1.25)
    skin = np.array(SKINS[rng.integers(len(SKINS))]) * rng.uniform(0.85, 1.08) + rng.normal(0, 7, 3)
    hair = np.array(HAIRS[rng.integers(len(HAIRS))]) * rng.uniform(0.7, 1.5) + rng.normal(0, 6, 3)
    body = replace(
        body,
        shape=(float(chest), float(waist), float(hip)),
        skin=as_color(np.clip(skin, 25, 250)),
        hair=as_color(np.clip(hair, 5, 235)),
        shoes=as_color(np.clip(rng.choice((25, 40, 90, 150, 225)) + rng.normal(0, 25, 3), 8, 250)),
    )
    if not body.view.worn:
        return body
    if rng.random() < 0.2:
        body = replace(body, tights=as_color(np.clip(rng.choice((18, 45, 90)) + rng.normal(0, 8, 3), 5, 200)))
    first, second = (_vary_arm(rng, arm, body) if rng.random() < 0.4 else arm for arm in body.arms)
    factor, knee, foot = STANCES[str(rng.choice(list(STANCES)))]
    if body.view.is_side:
        factor = min(factor, 1.0)
    knees = [body.knees[0] * (0.7 + 0.3 * factor), body.knees[1] * (0.7 + 0.3 * factor)]
    feet = [body.feet[0] * factor, body.feet[1] * factor]
    index = int(rng.integers(2))
    knees[index] += SIDES[index] * rng.uniform(0, knee)
    feet[index] += SIDES[index] * rng.uniform(-foot, foot) * 0.5
    return replace(body, arms=(first, second), knees=(knees[0], knees[1]), feet=(feet[0], feet[1]))


def _vary_arm(rng, arm: Arm, body: Body) -> Arm:
    weights = np.array([pose[-1] for pose in MORE_POSES.values()])
    name = str(rng.choice(list(MORE_POSES), p=weights / weights.sum()))
    (low, high), (bend_low, bend_high), length, _ = MORE_POSES[name]
    upper, bend = rng.uniform(low, high), rng.uniform(bend_low, bend_high)
    joints = arm_joints(arm.side, upper, bend, body.build, body.view, length)
    behind = arm.behind or (name == 'behind the back' and not body.view.back)
    return Arm(arm.side, joints, bool(behind))


def head_cover(rng: np.random.Generator, body: Body) -> list[Layer]:
    """Draws what covers a head: sometimes a hat, glasses, a beard, a hair bun or a phone, often nothing."""
    center = np.array([4.0 * np.sin(body.view.yaw), -19.0])
    layers = []
    if rng.random() < 0.25:
        bun = ellipse(center + (rng.normal(0, 3), -13.5), (rng.uniform(3, 5.5), rng.uniform(3, 5)))
        layers.append(Layer(bun, Surface(body.hair, relief_cm=4, relief=0.9)))
    if rng.random() < 0.2:
        layers += _hat(rng, center)
    if body.view.back:
        return layers
    if rng.random() < 0.15:
        chin = spline([(-6.5, 2), (-5.5, 8), (0, 12.5), (5.5, 8), (6.5, 2), (3, 6), (0, 5.2), (-3, 6), (-6.5, 2)], 3)
        layers.append(Layer(center + chin, Surface(as_color(0.9 * np.array(body.hair)), relief_cm=3)))
    if rng.random() < 0.2:
        dark = Surface(as_color(rng.uniform(15, 60, 3)), relief_cm=2)
        layers += [Layer(ellipse(center + (x, 0.8), (3.0, 2.4), samples=12), dark) for x in (-3.3, 3.3)]
    if rng.random() < 0.18:
        box = np.array([[-4, -8.2], [4, -8.2], [4, 8.2], [-4, 8.2]]) * rng.uniform(0.9, 1.25)
        place = affine(
            1.0, rng.normal(0, 0.25) + (np.pi / 2 if rng.random() < 0.2 else 0), center + rng.normal(0, 4, 2)
        )
        layers.append(Layer(apply(place, box), Surface(as_color(rng.uniform(10, 230, 3)), relief_cm=1.5)))
    return layers


def _hat(rng, center) -> list[Layer]:
    surface = Surface(as_color(np.clip(rng.choice((30, 60, 130, 200)) + rng.normal(0, 30, 3), 5, 250)), relief_cm=5)
    crown = ellipse(center + (0, -8.5), (9.8, 8.0))
    crown = crown[crown[:, 1] < center[1] - 5.5]
    if rng.random() < 0.5:
        return [Layer(crown, surface)]
    brim = ellipse(center + (0, -6.0), (rng.uniform(11, 17), rng.uniform(1.8, 3.5)))
    return [Layer(crown, surface), Layer(brim, surface)]

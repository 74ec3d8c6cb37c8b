"""The wearer: proportions, pose and view. Lengths are centimetres; the origin is the base of the neck, y points down.

Sides are -1 (the left of the image) and +1 (its right), whichever way the wearer faces, because DeepFashion2 numbers
landmarks by the side of the image.
"""

from dataclasses import dataclass

import numpy as np

ARMPIT_Y, WAIST_Y, HIP_Y, CROTCH_Y, KNEE_Y, ANKLE_Y = 19.0, 41.0, 57.0, 68.0, 108.0, 148.0
SHOULDER = (15.2, 7.4)
UPPER_ARM, FOREARM = 29.0, 25.0
DEPTH = 10.0  # distance of the middle of the chest from the plane of the shoulders
SIDES = (-1, 1)
_PROFILE_Y = np.array([-2.0, 4.0, 12.0, ARMPIT_Y, 26.0, WAIST_Y, 50.0, HIP_Y, CROTCH_Y])
_PROFILE_X = np.array([5.6, 14.5, 14.2, 14.4, 14.3, 11.8, 15.2, 16.6, 16.8])


@dataclass(frozen=True)
class View:
    """How the wearer is turned.

    Attributes:
        yaw: Rotation about the vertical axis in radians; above 0, the chest points to the right of the image.
        back: Whether the wearer is seen from behind.
        worn: False for a garment without a wearer, which lies flat or is on a hanger.
    """

    yaw: float = 0.0
    back: bool = False
    worn: bool = True

    @property
    def is_side(self) -> bool:
        """Whether the wearer is turned so far that one arm is behind the body."""
        return abs(self.yaw) > 0.55

    @property
    def far_side(self) -> int:
        """The side whose arm is farther from the camera."""
        return 1 if self.yaw > 0 else -1

    @property
    def squeeze(self) -> float:
        """Width of the turned trunk, divided by its frontal width."""
        return float(np.hypot(np.cos(self.yaw), 0.62 * np.sin(self.yaw)))

    def project(self, points, half_width=17.0) -> np.ndarray:
        """Moves (P, 2) points of the trunk's front from where a frontal view shows them to where this view does."""
        points = np.array(points, dtype=np.float64)
        x = points[:, 0]
        bulge = np.clip(1 - (x / half_width) ** 2, 0, 1)
        points[:, 0] = x * self.squeeze + DEPTH * bulge * np.sin(self.yaw)
        return points


@dataclass(frozen=True)
class Arm:
    """The joints of one arm.

    Attributes:
        side: -1 or +1.
        joints: (3, 2) shoulder, elbow and wrist in scene centimetres.
        behind: Whether the arm passes behind the trunk.
    """

    side: int
    joints: np.ndarray
    behind: bool


@dataclass(frozen=True)
class Body:
    """A wearer in a pose.

    Attributes:
        build: Factor on the trunk's width.
        legs: Factor on the legs' length.
        view: How the wearer is turned.
        arms: The two arms; the first is on the left of the image.
        feet: x of the two ankles.
        knees: x of the two knees.
        skin: BGR colour of the skin.
        hair: BGR colour of the hair.
        hair_length: y at which the hair ends.
        shoes: BGR colour of the shoes.
        shape: Factors on the trunk's width at the chest, the waist and the hip.
        tights: BGR colour of tights, or None for bare legs.
    """

    build: float
    legs: float
    view: View
    arms: tuple[Arm, Arm]
    feet: tuple[float, float]
    knees: tuple[float, float]
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    hair_length: float
    shoes: tuple[float, float, float]
    shape: tuple[float, float, float] = (1.0, 1.0, 1.0)
    tights: tuple[float, float, float] | None = None

    def half_width(self, y) -> np.ndarray:
        """Half the trunk's frontal width at heights ``y`` from the shoulders to the crotch."""
        return np.interp(y, _PROFILE_Y, _PROFILE_X) * self.build * np.interp(y, [ARMPIT_Y, WAIST_Y, HIP_Y], self.shape)

    def leg_y(self, y) -> np.ndarray:
        """Turns heights of a wearer with average legs into heights of this wearer; they differ below the crotch."""
        y = np.asarray(y, dtype=np.float64)
        return np.where(y > CROTCH_Y, CROTCH_Y + (y - CROTCH_Y) * self.legs, y)

    def leg_x(self, side: int, y) -> np.ndarray:
        """x of the middle of a leg at heights ``y``, which are those of average legs."""
        index = SIDES.index(side)
        hip = side * 8.8 * self.build * self.view.squeeze
        return np.interp(y, [CROTCH_Y - 6, KNEE_Y, ANKLE_Y], [hip, self.knees[index], self.feet[index]])


SKINS = ((205, 222, 246), (180, 205, 238), (150, 182, 224), (115, 150, 200), (85, 118, 168), (58, 82, 122))
HAIRS = ((22, 24, 28), (30, 42, 66), (44, 66, 104), (80, 130, 178), (30, 50, 110), (120, 120, 124))
# Name -> ((least, most) angle of the upper arm from the vertical, (least, most) bend of the forearm), in degrees; a
# bend below 0 is inwards.
ARM_POSES = {
    'hanging': ((3, 12), (-12, 6)),
    'away': ((20, 42), (-15, 15)),
    'hip': ((34, 52), (-95, -75)),
    'across': ((6, 16), (-75, -50)),
    'phone': ((12, 28), (-165, -145)),
    'raised': ((95, 140), (20, 70)),
}


def as_color(channels) -> tuple[float, float, float]:
    """Three numbers as a BGR colour."""
    blue, green, red = channels
    return float(blue), float(green), float(red)


def sample_body(rng: np.random.Generator, view: View, pose_weights: dict[str, float]) -> Body:
    """Samples a wearer.

    Args:
        rng: Random generator.
        view: How the wearer is turned.
        pose_weights: Weights of the poses in ``ARM_POSES``; the pose of each arm is drawn by them.
    """
    names = list(pose_weights)
    weights = np.array([pose_weights[name] for name in names], dtype=np.float64)
    build = float(rng.uniform(0.92, 1.12))
    arms = []
    for side in SIDES:
        pose = names[rng.choice(len(names), p=weights / weights.sum())] if view.worn else 'flat'
        arms.append(_sample_arm(rng, side, pose, build, view))
    spread = rng.uniform(0.5, 1.4)
    knees = [side * 8.6 * build * view.squeeze * (0.6 + 0.4 * spread) + rng.normal(0, 1.0) for side in SIDES]
    feet = [side * 8.0 * build * view.squeeze * spread + rng.normal(0, 1.5) for side in SIDES]
    return Body(
        build=build,
        legs=float(rng.uniform(0.94, 1.1)),
        view=view,
        arms=(arms[0], arms[1]),
        feet=(feet[0], feet[1]),
        knees=(knees[0], knees[1]),
        skin=as_color(SKINS[rng.choice(6, p=[0.25, 0.3, 0.2, 0.1, 0.08, 0.07])]),
        hair=as_color(HAIRS[rng.integers(len(HAIRS))]),
        hair_length=float(rng.choice([rng.uniform(-14, -8), rng.uniform(0, 8), rng.uniform(14, 34)])),
        shoes=as_color(rng.choice((28, 60, 110, 190, 235)) + rng.normal(0, 12, 3)),
    )


def _sample_arm(rng, side, pose, build, view) -> Arm:
    if pose == 'flat':
        upper, bend = rng.uniform(14, 46), rng.uniform(-14, 10)
    else:
        (low, high), (bend_low, bend_high) = ARM_POSES[pose]
        upper, bend = rng.uniform(low, high), rng.uniform(bend_low, bend_high)
    joints = arm_joints(side, upper, bend, build, view, 0.75 if pose in ('across', 'phone') else 1.0)
    behind = (view.is_side and side == view.far_side) or (pose == 'hanging' and view.worn and rng.random() < 0.12)
    return Arm(side, joints, bool(behind))


def arm_joints(side: int, upper: float, bend: float, build: float, view: View, forearm: float) -> np.ndarray:
    """Places the joints of an arm: (3, 2) shoulder, elbow and wrist.

    Args:
        side: -1 or +1.
        upper: Angle of the upper arm from the vertical in degrees, outwards.
        bend: Angle by which the forearm is bent outwards at the elbow, in degrees.
        build: Factor on the trunk's width.
        view: How the wearer is turned.
        forearm: Factor on the forearm's length, below 1 where it points to the camera.
    """
    shoulder = np.array([side * SHOULDER[0] * build * np.cos(view.yaw), SHOULDER[1]])
    spread = side * (1 - 0.6 * abs(np.sin(view.yaw)))
    if view.is_side:
        spread = np.sign(view.yaw) * 0.5 if side != view.far_side else spread
    upper, lower = np.radians(upper), np.radians(upper + bend)
    elbow = shoulder + UPPER_ARM * np.array([spread * np.sin(upper), np.cos(upper)])
    wrist = elbow + FOREARM * forearm * np.array([spread * np.sin(lower), np.cos(lower)])
    return np.stack([shoulder, elbow, wrist])

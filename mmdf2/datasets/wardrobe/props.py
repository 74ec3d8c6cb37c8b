"""What comes between camera and garment: bags, phones, other people, furniture, leaves."""

import numpy as np

from mmdf2.datasets.wardrobe.body import Body
from mmdf2.datasets.wardrobe.canvas import Surface
from mmdf2.datasets.wardrobe.figure import Layer
from mmdf2.datasets.wardrobe.geometry import affine, apply, band, ellipse, polygon_of, spline


def _color(rng) -> tuple[float, float, float]:
    return tuple(float(channel) for channel in rng.uniform(25, 225, 3))


def bag(rng: np.random.Generator, body: Body) -> list[Layer]:
    """A shoulder bag: a strap across the chest and the bag at a hip."""
    side = rng.choice([-1, 1])
    surface = Surface(_color(rng), relief_cm=3)
    hip = np.array([side * rng.uniform(13, 20), rng.uniform(46, 64)])
    start = np.array([-side * rng.uniform(7, 11), 0.0])
    strap = polygon_of(band(np.stack([start, hip]), rng.uniform(0.7, 1.4)))
    half = rng.uniform([7, 6], [11, 10])
    box = hip + np.array([[-1, -0.8], [1, -0.8], [1.1, 1], [-1.1, 1]]) * half
    flap = [
        (
            hip + np.array([[-1, -0.8], [1, -0.8], [0.8, 0.2], [-0.8, 0.2]]) * half,
            tuple(0.8 * c for c in surface.color),
            0.6,
        )
    ]
    return [Layer(strap, surface), Layer(box, surface, strokes=flap)]


def handbag(rng: np.random.Generator, body: Body) -> list[Layer]:
    """A bag held in a hand."""
    arm = body.arms[rng.integers(2)]
    wrist = arm.joints[2]
    half = rng.uniform([8, 7], [14, 12])
    surface = Surface(_color(rng), relief_cm=4)
    middle = wrist + (0, 10 + half[1])
    box = middle + np.array([[-0.85, -1], [0.85, -1], [1, 1], [-1, 1]]) * half
    handle = spline([middle + (-0.6, -1) * half, wrist + (0, 5), middle + (0.6, -1) * half], 5)
    return [Layer(polygon_of(band(handle, 0.7)), surface), Layer(box, surface)]


def phone(rng: np.random.Generator, body: Body) -> list[Layer]:
    """A phone in the hand that is nearest to the face, as in a picture taken in a mirror."""
    wrist = min((arm.joints[2] for arm in body.arms), key=lambda joint: joint[1])
    angle = rng.normal(0, 0.2)
    box = apply(affine(1.0, angle, wrist + (0, -7)), np.array([[-4, -8], [4, -8], [4, 8], [-4, 8]]))
    lens = [(apply(affine(1.0, angle, wrist + (-2, -12)), ellipse((0, 0), (1.0, 1.0), samples=10)), (30, 30, 30), 0.0)]
    return [Layer(box, Surface(_color(rng), relief_cm=2), strokes=lens)]


def passer_by(rng: np.random.Generator, body: Body) -> list[Layer]:
    """Another person's back at the picture's edge, close to the camera."""
    side = rng.choice([-1, 1])
    x = side * rng.uniform(24, 40)
    coat = Surface(tuple(float(c) for c in rng.uniform(20, 130, 3)), relief_cm=10)
    shoulders = spline([(-24, 90), (-22, 25), (-9, 6), (9, 6), (22, 25), (24, 90)], 5) + (x, rng.uniform(5, 30))
    return [Layer(shoulders, coat)]


def table(rng: np.random.Generator, body: Body) -> list[Layer]:
    """A table's edge in front of the legs or the lap."""
    y = rng.uniform(48, 92)
    top = np.array([[-140, 0], [140, 0], [140, 90], [-140, 90]]) + (0, y)
    edge = [(np.array([[-140, y + 4.0], [140, y + 4.0]]), (40, 45, 55), 0.8)]
    return [Layer(apply(affine(1.0, rng.normal(0, 0.04)), top), Surface(_color(rng), relief=0.2), strokes=edge)]


def leaves(rng: np.random.Generator, body: Body) -> list[Layer]:
    """Leaves of a plant in front."""
    side = rng.choice([-1, 1])
    origin = np.array([side * rng.uniform(18, 30), rng.uniform(40, 120)])
    green = Surface((rng.uniform(30, 80), rng.uniform(90, 160), rng.uniform(40, 100)), relief_cm=2)
    layers = []
    for angle in rng.uniform(-1.2, 1.2, rng.integers(4, 8)):
        place = affine(1.0, angle, origin + rng.normal(0, 3, 2))
        layers.append(Layer(apply(place, ellipse((0, -18), (3.6, 16), samples=16)), green))
    return layers


PROPS = (bag, bag, handbag, handbag, passer_by, table, leaves)


def sample_props(rng: np.random.Generator, body: Body, count: int) -> list[Layer]:
    """Layers of ``count`` props, back to front; a wearer who takes a picture holds a phone besides."""
    layers = []
    if any(arm.joints[2][1] < 0 for arm in body.arms) and not body.view.back:
        layers += phone(rng, body)
    for index in rng.choice(len(PROPS), size=count, replace=False):
        layers += PROPS[index](rng, body)
    return layers

"""Props, which come between camera and garment: bags, phones, other people, furniture and leaves."""

# ruff: noqa: RUF005 (offsets are added to points, nothing is concatenated)

import numpy as np

from mmdf2.wardrobe.canvas import Surface
from mmdf2.wardrobe.geometry import affine, apply, band, ellipse, polygon_of, spline
from mmdf2.wardrobe.people.body import HAIRS, Body, as_color
from mmdf2.wardrobe.people.figure import Layer


def _color(rng) -> tuple[float, float, float]:
    return as_color(rng.uniform(25, 225, 3))


def bag(rng: np.random.Generator, body: Body) -> list[Layer]:
    """Draws a shoulder bag: a strap across the chest and the bag at a hip."""
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
    """Draws a bag that is held in a hanging hand."""
    wrist = body.arms[rng.integers(2)].joints[2]
    if wrist[1] < 30:
        return []
    half = rng.uniform([8, 7], [14, 12])
    surface = Surface(_color(rng), relief_cm=4)
    middle = wrist + (0, 10 + half[1])
    box = middle + np.array([[-0.85, -1], [0.85, -1], [1, 1], [-1, 1]]) * half
    handle = spline([middle + (-0.6, -1) * half, wrist + (0, 5), middle + (0.6, -1) * half], 5)
    return [Layer(polygon_of(band(handle, 0.7)), surface), Layer(box, surface)]


def phone(rng: np.random.Generator, body: Body) -> list[Layer]:
    """Draws a phone in the hand that is nearest to the face, as on a photo taken in a mirror."""
    wrist = min((arm.joints[2] for arm in body.arms), key=lambda joint: joint[1])
    angle = rng.normal(0, 0.2)
    box = apply(affine(1.0, angle, wrist + (0, -7)), np.array([[-4, -8], [4, -8], [4, 8], [-4, 8]]))
    lens = [(apply(affine(1.0, angle, wrist + (-2, -12)), ellipse((0, 0), (1.0, 1.0), samples=10)), (30, 30, 30), 0.0)]
    return [Layer(box, Surface(_color(rng), relief_cm=2), strokes=lens)]


def passer_by(rng: np.random.Generator, body: Body) -> list[Layer]:
    """Draws another person's back, close to the camera and partly in front of the wearer."""
    x, y = rng.choice([-1, 1]) * rng.uniform(30, 44), rng.uniform(-4, 18)
    coat = Surface(as_color(rng.uniform(20, 130, 3)), relief_cm=9)
    hair = Surface(HAIRS[rng.integers(len(HAIRS))], relief_cm=5, relief=0.9)
    back = [(-24, 220), (-26, 90), (-23, 22), (-15, 5), (-5, -2), (5, -2), (15, 5), (23, 22), (26, 90), (24, 220)]
    dark = tuple(0.6 * channel for channel in coat.color)
    arms = [(np.array([[s * 16, 26], [s * 18, 70], [s * 17, 100]]) + (x, y), dark, 0.8) for s in (-1, 1)]
    return [Layer(spline(back, 5) + (x, y), coat, strokes=arms), Layer(ellipse((x, y - 14), (10, 14)), hair)]


def table(rng: np.random.Generator, body: Body) -> list[Layer]:
    """Draws the edge of a table in front of the legs or the lap."""
    y = rng.uniform(48, 92)
    top = np.array([[-700, 0], [700, 0], [700, 500], [-700, 500]]) + (0, y)
    edge = [(np.array([[-700, y + 4.0], [700, y + 4.0]]), (40, 45, 55), 0.8)]
    return [Layer(apply(affine(1.0, rng.normal(0, 0.04)), top), Surface(_color(rng), relief=0.2), strokes=edge)]


def leaves(rng: np.random.Generator, body: Body) -> list[Layer]:
    """Draws leaves of a plant in front of the wearer."""
    side = rng.choice([-1, 1])
    origin = np.array([side * rng.uniform(18, 30), rng.uniform(40, 120)])
    green = Surface((rng.uniform(30, 80), rng.uniform(90, 160), rng.uniform(40, 100)), relief_cm=2)
    layers = []
    for angle in rng.uniform(-1.2, 1.2, rng.integers(4, 8)):
        place = affine(1.0, angle, origin + rng.normal(0, 3, 2))
        layers.append(Layer(apply(place, ellipse((0, -18), (3.6, 16), samples=16)), green))
    return layers


CARRIED = (bag, handbag)
PROPS = (bag, bag, bag, handbag, handbag, handbag, passer_by, table, leaves)


def sample_props(rng: np.random.Generator, body: Body, count: int, choice=PROPS) -> list[Layer]:
    """Samples the layers of ``count`` props, back to front; a hand that is held near the face always gets a phone."""
    layers = []
    if not body.view.back and any(abs(x) < 20 and y < 4 for x, y in (arm.joints[2] for arm in body.arms)):
        layers += phone(rng, body)
    for index in rng.choice(len(choice), size=count, replace=False):
        layers += choice[index](rng, body)
    return layers

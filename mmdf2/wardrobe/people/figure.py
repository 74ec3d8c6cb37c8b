"""What is drawn of the wearer: skin, legs, shoes, head and hair."""

# ruff: noqa: RUF005 (offsets are added to points, nothing is concatenated)
from dataclasses import dataclass, field

import numpy as np

from mmdf2.wardrobe.canvas import Surface
from mmdf2.wardrobe.cloth.fabric import fold_maps
from mmdf2.wardrobe.garments.garment import IDENTITY
from mmdf2.wardrobe.garments.sleeves import bare_arm
from mmdf2.wardrobe.geometry import band, ellipse, polygon_of, spline
from mmdf2.wardrobe.people.body import ANKLE_Y, CROTCH_Y, HIP_Y, KNEE_Y, SIDES, Arm, Body


@dataclass
class Layer:
    """A polygon of the scene, in centimetres.

    Attributes:
        outline: (P, 2) scene centimetres.
        surface: What the polygon is made of.
        frame: (2, 3) map from centimetres of the cloth to scene centimetres.
        strokes: Lines and shapes on the polygon: (points, BGR, width in centimetres or 0 to fill) each.
        item: Number of the garment that the polygon belongs to, -1 for none.
        role: Role of the polygon's panel in that garment.
        tucked: Whether the polygon, above the armpits, stays beneath outer garments that are painted before it.
    """

    outline: np.ndarray
    surface: Surface
    frame: np.ndarray = field(default_factory=IDENTITY.copy)
    strokes: list = field(default_factory=list)
    item: int = -1
    role: str = ''
    tucked: bool = False


def _skin(body: Body, relief_cm=3.5, shade=1.0) -> Surface:
    return Surface(body.skin, relief_cm=relief_cm, relief=0.5, shade=shade)


def _hair(body: Body) -> Surface:
    return Surface(body.hair, folds=fold_maps()['draped'][0], folds_cm=22.0, fold_depth=0.12, relief_cm=5, relief=0.9)


def arm_layers(body: Body, arm: Arm) -> list[Layer]:
    """Layers of an uncovered arm."""
    surface = _skin(body, shade=0.93 if arm.behind else 1.0)
    return [Layer(outline, surface) for outline in bare_arm(arm)]


def leg_layers(body: Body) -> list[Layer]:
    """Layers of both legs, with shoes."""
    layers = []
    surface = Surface(body.tights, relief_cm=3.5, relief=0.5) if body.tights else _skin(body)
    y = np.array([CROTCH_Y - 8, CROTCH_Y + 6, KNEE_Y - 14, KNEE_Y, KNEE_Y + 14, ANKLE_Y])
    widths = np.array([8.0, 8.0, 6.2, 4.9, 5.2, 3.2]) * body.build
    for side in SIDES:
        line = np.stack([body.leg_x(side, y), body.leg_y(y)], axis=1)
        layers.append(
            Layer(polygon_of(band(spline(line, 3), np.interp(np.linspace(0, 5, 16), range(6), widths))), surface)
        )
        ankle = line[-1]
        toe = (side * 2.0 + 7.0 * np.sin(body.view.yaw), 4.0)
        layers.append(Layer(ellipse(ankle + toe, (5.0, 5.5)), Surface(body.shoes, relief_cm=4)))
    return layers


def trunk_layer(body: Body) -> Layer:
    """Layer of the neck and of the trunk down to the crotch."""
    y = np.array([-10.0, -3.0, -1.5, 1.0, 4.0, 12.0, 19.0, 30.0, 41.0, 50.0, HIP_Y, CROTCH_Y + 2])
    half = np.concatenate([[5.0, 5.0, 5.9, 11.0, 14.6 * body.build, 14.2 * body.build], body.half_width(y[6:])])
    right = spline(np.stack([half, y], axis=1), 3)
    outline = np.concatenate([right, right[::-1] * (-1, 1)]) * (body.view.squeeze, 1)
    lines = []
    if not body.view.back:
        shade = tuple(0.82 * channel for channel in body.skin)
        collarbones = np.array([[2.0, 4.5], [6.0, 3.2], [11.0, 3.4]])
        lines = [(body.view.project(collarbones * (side, 1)), shade, 0.5) for side in SIDES]
        lines.append((body.view.project([[-3.5, -6], [0, -4.8], [3.5, -6]]), shade, 1.2))
    return Layer(outline, _skin(body, 6.0), strokes=lines)


def head_layers(body: Body) -> list[Layer]:
    """Layers of the face and the hair around it; from behind, only of the hair."""
    turn = np.sin(body.view.yaw)
    center = np.array([4.0 * turn, -19.0])
    hair = _hair(body)
    if body.view.back:
        return [Layer(ellipse(center + (0, -1.0), (9.3, 12.4)), hair)]
    layers = [Layer(ellipse(center + (-1.5 * turn, -2.2), (9.6, 12.3)), hair)]
    layers.append(
        Layer(ellipse(center + (1.0 * turn, 1.2), (7.6, 10.6)), _skin(body, 5.0), strokes=_face(body, center, turn))
    )
    fringe = spline(
        [
            (-8.2, 0.5),
            (-7.4, -7.5),
            (0, -10.6),
            (7.4, -7.5),
            (8.2, 0.5),
            (6.3, -4.6),
            (1.5, -6.6),
            (-5.5, -5.0),
            (-8.2, 0.5),
        ],
        3,
    )
    layers.append(Layer(center + fringe - (1.2 * turn, 0), hair))
    return layers


def _face(body, center, turn) -> list:
    dark, lip = (45, 40, 45), tuple(np.array(body.skin) * (0.62, 0.55, 0.85))
    strokes = []
    for x in (-3.1, 3.1):
        eye = center + (x + 2.6 * turn, 0.6)
        strokes.append((ellipse(eye, (1.35, 0.75), samples=10), dark, 0.0))
        strokes.append((eye + np.array([[-1.8, -2.3], [0, -2.9], [1.8, -2.3]]), tuple(0.8 * c for c in body.hair), 0.6))
    nose = center + (2.9 * turn, 3.6)
    strokes.append((nose + np.array([[-0.9, 0.6], [0, 1.0], [0.9, 0.6]]), tuple(0.75 * c for c in body.skin), 0.5))
    mouth = center + (2.6 * turn, 7.2)
    strokes.append((mouth + np.array([[-2.2, 0], [0, -0.5], [2.2, 0], [0, 1.0]]), lip, 0.0))
    return strokes


def hair_behind(body: Body) -> list[Layer]:
    """Layers of long hair that falls behind the neck and the shoulders."""
    if body.hair_length < -9 or body.view.back:
        return []
    return [Layer(_hair_outline(body, 10.5, min(body.hair_length, 12.0)), _hair(body))]


def hair_in_front(body: Body, locks: bool) -> list[Layer]:
    """Layers of long hair in front of the clothes: over the shoulders if ``locks``, or down the back from behind."""
    surface = _hair(body)
    if body.view.back:
        return [Layer(_hair_outline(body, 9.5, body.hair_length), surface)] if body.hair_length > -9 else []
    if not locks or body.hair_length < 8:
        return []
    layers = []
    for side in SIDES:
        x, end = side * 7.6, body.hair_length
        line = spline(np.array([[x, -20.0], [x + side * 1.8, -6.0], [x + side * 2.2, 6.0], [x + side * 1.4, end]]), 4)
        layers.append(Layer(polygon_of(band(line, np.linspace(3.4, 2.6, len(line)))), surface))
    return layers


def _hair_outline(body, half, end) -> np.ndarray:
    x = 4.0 * np.sin(body.view.yaw)
    right = spline(
        [(half - 1.5, -22), (half, -10), (half + 0.8, (end - 10) / 2), (half - 1.0, end - 1), (0, end + 1)], 4
    )
    return np.concatenate([right, right[::-1] * (-1, 1)]) + (x, 0)

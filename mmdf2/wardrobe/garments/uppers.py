"""Tops and dresses: short and long sleeves, vests and slings."""

# ruff: noqa: RUF005 (offsets are added to points, nothing is concatenated)

import numpy as np

from mmdf2.categories import category_by_id
from mmdf2.wardrobe.garments.cut import (
    LONG_DRESS,
    LONG_TOP,
    SHORT_DRESS,
    SHORT_SLEEVED,
    SHORT_TOP,
    SLING,
    SLING_DRESS,
    VEST,
    VEST_DRESS,
    Cut,
)
from mmdf2.wardrobe.garments.garment import Garment, LandmarkList, Panel, Stroke, button
from mmdf2.wardrobe.garments.sleeves import armpit_of, long_sleeve, short_sleeve
from mmdf2.wardrobe.geometry import along, band, polygon_of, spline
from mmdf2.wardrobe.people.body import ARMPIT_Y, HIP_Y, SIDES, WAIST_Y, Body

# Fractions of the line from armpit to hem at which its landmarks lie, as in the published figure.
SIDE_FRACTIONS = {
    SHORT_TOP: (0.25, 0.59),
    LONG_TOP: (0.14, 0.55),
    VEST: (0.13, 0.52),
    SLING: (0.15, 0.57),
    SHORT_DRESS: (0.10, 0.22, 0.39, 0.71),
    LONG_DRESS: (0.13, 0.27, 0.44, 0.70),
    VEST_DRESS: (0.10, 0.27, 0.42, 0.68),
    SLING_DRESS: (0.08, 0.26, 0.46, 0.73),
}
_ROUNDNESS = {'crew': 2.0, 'v': 1.05, 'square': 5.0, 'boat': 2.2}


def shoulder_y(x) -> float:
    """y of the shoulder line at a distance from the middle."""
    return -1.5 + 0.38 * (abs(x) - 5.6)


def trunk_half_width(cut: Cut, body: Body, y, hem: float) -> np.ndarray:
    """Half of the cloth's frontal width at heights from the armpit to the hem."""
    y = np.asarray(y, dtype=np.float64)
    levels = np.array([ARMPIT_Y, WAIST_Y, HIP_Y])
    width = np.interp(y, levels, body.half_width(levels) + cut.ease)
    return width + cut.flare * np.clip((y - WAIST_Y) / max(hem - WAIST_Y, 8.0), 0, 1)


def side_line(cut: Cut, body: Body, side: int, top: float) -> np.ndarray:
    """Frontal side of the trunk from height ``top`` to the hem."""
    hem = float(body.leg_y(cut.hem))
    y = np.array([top, *(level for level in (30.0, WAIST_Y, 49.0, HIP_Y, 75.0) if top + 4 < level < hem - 4), hem])
    return spline(np.stack([side * trunk_half_width(cut, body, y, hem), y], axis=1), 4)


def hem_line(left, right, sag=1.6, waves=0.0) -> np.ndarray:
    """Draws a hem from its left to its right end; the middle, which is nearer to the camera, hangs lower."""
    t = np.linspace(0, 1, 17)[:, None]
    curve = left + (right - left) * t
    curve[:, 1] += (sag * 4 * t * (1 - t))[:, 0] + waves * np.sin(t[:, 0] * 6 * np.pi) * (np.sin(np.pi * t[:, 0]))
    return curve


def front_neckline(cut: Cut, ends_y: float) -> tuple[np.ndarray, np.ndarray]:
    """The front neckline from left to right, and its landmarks 2 to 6."""
    power = 2 / _ROUNDNESS[cut.neckline or 'crew']

    def at(t):
        cos, sin = np.round(np.cos(t), 12), np.round(np.sin(t), 12)  # a root would magnify what should be 0
        return np.stack(
            [-cut.neck_width * np.sign(cos) * np.abs(cos) ** power, ends_y + cut.neck_depth * sin**power], 1
        )

    return at(np.linspace(0, np.pi, 17)), at(np.pi * np.array([0, 0.25, 0.5, 0.75, 1.0]))


def dress_upper(cut: Cut, body: Body) -> Garment:
    """Puts a top or a dress on a wearer."""
    landmarks = LandmarkList(category_by_id(cut.category_id).num_landmarks)
    view, sleeveless = body.view, cut.strap > 0
    sling = cut.category_id in (SLING, SLING_DRESS)
    ends_y = 10.5 if sling else shoulder_y(cut.neck_width)
    neckline, neck_points = front_neckline(cut, ends_y)
    back = np.stack(
        [np.linspace(-1, 1, 9) * cut.neck_width, ends_y + (4.0 if sling else 1.8) * (1 - np.linspace(-1, 1, 9) ** 2)], 1
    )
    top = ARMPIT_Y + (1.0 if sleeveless else 0.35 * cut.ease[0])
    sides = {side: side_line(cut, body, side, top) for side in SIDES}
    armholes = {side: _armhole(cut, body, side, sling, sides[side][0]) for side in SIDES}
    hem = hem_line(sides[-1][-1], sides[1][-1], 2.2, 0.9 if cut.flare > 5 else 0.25)
    edge = back if view.back else neckline
    outline = np.concatenate([edge, armholes[1], sides[1], hem[::-1], sides[-1][::-1], armholes[-1][::-1]])
    project = lambda points: view.project(points, body.half_width(ARMPIT_Y) + 3)  # noqa: E731
    trunk = Panel(
        role='trunk',
        outline=project(outline),
        frame=_trunk_frame(body),
        strokes=_seams(cut, body, project, edge, sides, hem),
        logo=not view.back,
    )
    inside = Panel('inside', project(np.concatenate([back, neckline[::-1]])), shade=0.6)
    sleeves, tips = [], {}
    panels = [inside, trunk]
    if cut.collar == 'shirt' and not view.back:
        panels += _shirt_collar(project, neckline)
    for arm in body.arms:
        side = arm.side
        tips[side] = _tip(cut, body, side, sling, project)
        if not sleeveless:
            armpit = armpit_of(arm, sides[side][0, 0] * np.cos(view.yaw), top)
            make = short_sleeve if cut.category_id in SHORT_SLEEVED else long_sleeve
            sleeve = make(cut, arm, tips[side], armpit)
            sleeves.append((sleeve, armpit))
            panels += sleeve.panels
        elif sling:
            line = np.stack([tips[side], project(neck_points[:1] if side < 0 else neck_points[-1:])[0]])
            panels.append(Panel('strap', polygon_of(band(line, cut.strap / 2 + 0.15)), _trunk_frame(body)))
    landmarks.put(1, project(back[4:5])[0], 'inside' if not view.back else 'trunk')
    for number, point in zip(range(2, 7), project(neck_points), strict=True):
        landmarks.put(number, point, 'trunk', 'inside', 'strap', hidden=view.back and number in (3, 4, 5))
    _number(cut, landmarks, tips, sleeves, [project(sides[side]) for side in SIDES], project(hem)[8])
    return landmarks.garment(cut, panels)


def _number(cut, landmarks, tips, sleeves, sides, hem_middle) -> None:
    """Places the landmarks from the left shoulder (number 7) around the hem to the right shoulder (the last number)."""
    fractions = SIDE_FRACTIONS[cut.category_id]
    left, right = along(sides[0], [*fractions, 1.0]), along(sides[1], [*fractions, 1.0])
    number, last = 7, len(landmarks.points)
    shoulder_roles = ('strap', 'trunk', 'sleeve')

    def put_pair(offset, left_point, right_point, *roles):
        for start, point, side in ((number + offset, left_point, -1), (last - offset, right_point, 1)):
            landmarks.put(start, point, *(f'{role}{side}' if role == 'sleeve' else role for role in roles))

    put_pair(0, tips[-1], tips[1], *shoulder_roles)
    offset = 1
    if sleeves:
        (first, left_armpit), (second, right_armpit) = sleeves
        for a, b in zip([*first.outer, *first.inner], [*second.outer, *second.inner], strict=True):
            put_pair(offset, a, b, 'sleeve')
            offset += 1
        put_pair(offset, left_armpit, right_armpit, 'sleeve', 'trunk')
        offset += 1
    for a, b in zip(left, right, strict=True):
        put_pair(offset, a, b, 'trunk')
        offset += 1
    landmarks.put(number + offset, hem_middle, 'trunk')


def _tip(cut, body, side, sling, project) -> np.ndarray:
    if sling:
        x = cut.neck_width - 1.0
        return project([[side * x, shoulder_y(x) - 0.3]])[0]
    if cut.strap:
        x = cut.neck_width + cut.strap
        return project([[side * x, shoulder_y(x)]])[0]
    return np.array([side * (16.4 * body.build + 0.4) * np.cos(body.view.yaw), 2.6])


def _armhole(cut, body, side, sling, foot) -> np.ndarray:
    """The line from the neckline's end to the top of the side, in the order of the right half of the outline."""
    if sling:
        start = np.array([side * cut.neck_width, 10.5])
        return spline([start, start * (0.55, 0.55) + foot * (0.45, 0.45) + (side * -0.6, 0.8), foot], 3)[1:-1]
    if cut.strap:
        x = cut.neck_width + cut.strap
        start = np.array([side * x, shoulder_y(x)])
        return spline([start, (side * (min(x, body.half_width(12.0)) - 0.8), 11.0), foot], 4)[:-1]
    return np.array([[side * 16.4 * body.build, 2.6], [side * (foot[0] * side + 0.4), 12.0]])


def _trunk_frame(body: Body) -> np.ndarray:
    shift = 6.0 * np.sin(body.view.yaw)
    return np.array([[body.build * body.view.squeeze, 0, shift], [0, 1.0, 0]])


def _seams(cut, body, project, edge, sides, hem) -> list[Stroke]:
    strokes = [Stroke(project(hem - (0, 1.8)), 'dark', 0.25)]
    if cut.collar == 'ribbed':
        strokes.append(Stroke(project(edge + (0, 0.8)), 'second', 1.8))
    strokes.append(Stroke(project(edge), 'dark', 0.4))
    if cut.waist:
        y = np.full(9, cut.waist)
        half = float(trunk_half_width(cut, body, cut.waist, float(body.leg_y(cut.hem))))
        seam = project(np.stack([np.linspace(-half, half, 9), y + 1.2 * (1 - np.linspace(-1, 1, 9) ** 2)], axis=1))
        strokes.append(Stroke(seam, 'dark', 0.6))
    if body.view.back:
        return strokes
    if cut.collar == 'shirt':
        strokes += _placket(cut, project, edge[8])
    if cut.pocket == 'chest':
        strokes.append(Stroke(project([[5, 18], [12, 18], [12, 25.5], [8.5, 27], [5, 25.5], [5, 18]]), 'dark', 0.35))
    return strokes


def _placket(cut, project, start) -> list[Stroke]:
    bottom = min(cut.hem - 3, start[1] + 42)
    strokes = [Stroke(project([[x, start[1] + 1], [x, bottom]]), 'dark', 0.3) for x in (-1.6, 1.6)]
    return strokes + [button(project([[0, y]])[0]) for y in np.arange(start[1] + 4, bottom, 8.0)]


def collar_panel(project, points) -> Panel:
    """Makes one side of a turned-down collar."""
    outline = project(points)
    return Panel('trunk', outline, strokes=[Stroke(np.concatenate([outline, outline[:1]]), 'dark', 0.8)], shade=1.08)


def _shirt_collar(project, edge) -> list[Panel]:
    panels = []
    for end, side in ((edge[0], -1), (edge[-1], 1)):
        flap = [end + (0, -0.8), edge[8] + (0, -0.5), edge[8] + (side * 4.5, 4.5), end + (side * 2.5, 4)]
        panels.append(collar_panel(project, flap))
    return panels

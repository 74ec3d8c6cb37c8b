"""Outwear: jackets, coats and cardigans that open in front."""

# ruff: noqa: RUF005 (offsets are added to points, nothing is concatenated)

import numpy as np

from mmdf2.categories import category_by_id
from mmdf2.wardrobe.garments.cut import LONG_OUTWEAR, SHORT_OUTWEAR, Cut
from mmdf2.wardrobe.garments.garment import Garment, LandmarkList, Panel, Stroke, button
from mmdf2.wardrobe.garments.sleeves import armpit_of, long_sleeve, short_sleeve
from mmdf2.wardrobe.garments.uppers import collar_panel, hem_line, shoulder_y, side_line
from mmdf2.wardrobe.geometry import along, ellipse, spline
from mmdf2.wardrobe.people.body import ARMPIT_Y, SIDES, Body

SIDE_FRACTIONS = {SHORT_OUTWEAR: (0.25, 0.61), LONG_OUTWEAR: (0.2, 0.6)}
OPENING_FRACTIONS = (0.45, 0.68)
# Landmark numbers of the published figure down each edge of the opening, from the top of the front to the bottom: the
# left edge, then the right one.
OPENING_NUMBERS = {
    SHORT_OUTWEAR: ((4, 30, 31, 16), (26, 27, 28, 29)),
    LONG_OUTWEAR: ((4, 38, 39, 20), (34, 35, 36, 37)),
}
# Landmark numbers of the outer ends of the hem: left, right.
OUTER_HEM_NUMBERS = {SHORT_OUTWEAR: (15, 17), LONG_OUTWEAR: (19, 21)}


def dress_outwear(cut: Cut, body: Body) -> Garment:
    """Puts a jacket or coat on a wearer."""
    landmarks = LandmarkList(category_by_id(cut.category_id).num_landmarks)
    view = body.view
    project = lambda points: view.project(points, body.half_width(ARMPIT_Y) + 5)  # noqa: E731
    ends_y = shoulder_y(cut.neck_width)
    top = ARMPIT_Y + 0.4 * cut.ease[0]
    sides = {side: side_line(cut, body, side, top) for side in SIDES}
    fronts = {side: _front_edge(cut, side, ends_y, sides[side][-1][1]) for side in SIDES}
    back = np.stack([np.linspace(-1, 1, 9) * cut.neck_width, ends_y + 1.4 * (1 - np.linspace(-1, 1, 9) ** 2)], axis=1)
    panels = [_inside(cut, body, project, sides, back)]
    if view.back:
        panels.append(_back(body, project, sides, back))
    else:
        panels += [_front(cut, body, project, side, sides[side], fronts[side]) for side in SIDES]
        panels += [panel for side in SIDES for panel in _collar(cut, project, side, fronts[side])]
    for index, arm in enumerate(body.arms):
        side = arm.side
        tip = np.array([side * (16.8 * body.build + 0.8) * np.cos(view.yaw), 2.2])
        armpit = armpit_of(arm, sides[side][0, 0] * np.cos(view.yaw), top)
        sleeve = (short_sleeve if cut.category_id == SHORT_OUTWEAR else long_sleeve)(cut, arm, tip, armpit)
        panels += sleeve.panels
        _number_side(cut, landmarks, index, side, tip, sleeve, armpit, project(sides[side]))
        _number_front(cut, landmarks, index, side, project, fronts[side], view.back)
    landmarks.put(1, project(back[4:5])[0], 'trunk' if view.back else 'inside')
    return landmarks.garment(cut, panels)


def _front_edge(cut, side, ends_y, hem) -> np.ndarray:
    """(4, 2) frontal points of a front's edge: neck's end, middle of the collar, top and bottom of the opening."""
    top, bottom = cut.opening
    neck = np.array([side * cut.neck_width, ends_y])
    front = np.array([side * top, ends_y + cut.neck_depth])
    return np.stack([neck, (neck + front) / 2 + (side * 0.8, 0), front, (side * bottom, hem + 1.5)])


def _inside(cut, body, project, sides, back) -> Panel:
    """The lining of the back, which is seen through the opening, with the collar or hood behind the neck."""
    lining = np.concatenate([back, sides[1] * (0.93, 1.0) - (0, 1.0), (sides[-1] * (0.93, 1.0) - (0, 1.0))[::-1]])
    if cut.collar == 'hood':
        lining = np.concatenate([ellipse((0, -3.5), (13.0, 7.5))[12:24], lining[9:]])
    return Panel('inside', project(lining), shade=0.5)


def _back(body, project, sides, back) -> Panel:
    tip = 16.8 * body.build
    hem = hem_line(sides[-1][-1], sides[1][-1], 1.8)
    outline = np.concatenate([back, [[tip, 2.3]], sides[1], hem[::-1], sides[-1][::-1], [[-tip, 2.3]]])
    strokes = [Stroke(project(hem - (0, 2)), 'dark', 0.3), Stroke(project(back + (0, 2.2)), 'dark', 0.5)]
    return Panel(role='trunk', outline=project(outline), frame=_frame(body), strokes=strokes)


def _front(cut, body, project, side, line, edge) -> Panel:
    tip = np.array([side * 16.8 * body.build, 2.3])
    hem = np.stack([line[-1], edge[3]])
    outline = np.concatenate(
        [edge[:3], [edge[3]], spline([edge[3], hem.mean(axis=0) + (0, 0.3), line[-1]], 3)[1:], line[::-1], [tip]]
    )
    strokes = [Stroke(project(hem - (0, 2.2)), 'dark', 0.35), Stroke(project(edge[2:]), 'dark', 0.45)]
    inner = edge[2:] + (side * 2.2, 0)
    if cut.fastening == 'zip':
        strokes.append(Stroke(project(edge[2:] + (side * 0.5, 0)), 'metal', 0.8))
    else:
        strokes.append(Stroke(project(inner), 'dark', 0.25))
        if side > 0:
            strokes += [
                button(project(point[None])[0], 1.0) for point in along(inner - (1.1, 0), np.linspace(0.08, 0.8, 5))
            ]
    if cut.pocket == 'front':
        x, y = line[-1][0], line[-1][1]
        strokes.append(Stroke(project([[x * 0.45, y - 13], [x * 0.8, y - 17]]), 'dark', 0.6))
    elif cut.pocket == 'chest':
        strokes.append(
            Stroke(project(np.array([[5, 20], [12, 20], [12, 27], [5, 27], [5, 20]]) * (side, 1)), 'dark', 0.35)
        )
    if cut.collar == 'ribbed':
        strokes.append(Stroke(project(edge[:3] + (side * 0.6, 0.3)), 'second', 2.2))
    elif cut.collar == 'hood':
        strokes.append(Stroke(project([edge[2] + (side * 1.5, 0), edge[2] + (side * 2, 9)]), 'light', 0.5))
    return Panel(role='trunk', outline=project(outline), frame=_frame(body), strokes=strokes, logo=side > 0)


def _collar(cut, project, side, edge) -> list[Panel]:
    if cut.collar not in ('shirt', 'lapel'):
        return []
    neck, middle, front = edge[:3]
    reach = 4.5 if cut.collar == 'shirt' else 7.5
    flap = [neck + (side * 0.5, -0.5), middle + (side * reach, 0.5), front + (side * (reach * 0.55), -1), front]
    return [collar_panel(project, flap)]


def _frame(body) -> np.ndarray:
    return np.array([[body.build * body.view.squeeze, 0, 6.0 * np.sin(body.view.yaw)], [0, 1.0, 0]])


def _number_side(cut, landmarks, index, side, tip, sleeve, armpit, line) -> None:
    """Places one side's landmarks from the hem up to the shoulder; the numbers fall left and rise right."""
    hem = OUTER_HEM_NUMBERS[cut.category_id][index]
    points: list[tuple] = [(tip, 'trunk', f'sleeve{side}')]
    points += [(point, f'sleeve{side}') for point in (*sleeve.outer, *sleeve.inner)]
    points += [(armpit, 'trunk', f'sleeve{side}')]
    points += [(point, 'trunk') for point in along(line, SIDE_FRACTIONS[cut.category_id])]
    points += [(line[-1], 'trunk')]
    step = -1 if side < 0 else 1
    for offset, (point, *roles) in enumerate(reversed(points)):
        landmarks.put(hem + step * offset, point, *roles)


def _number_front(cut, landmarks, index, side, project, edge, back) -> None:
    neck, middle = (2, 3) if side < 0 else (6, 5)
    opening = along(edge[2:], [0.0, *OPENING_FRACTIONS, 1.0])
    landmarks.put(neck, project(edge[:1])[0], 'trunk', 'inside')
    landmarks.put(middle, project(edge[1:2])[0], 'trunk', hidden=back)
    for number, point in zip(OPENING_NUMBERS[cut.category_id][index], project(opening), strict=True):
        landmarks.put(number, point, 'trunk', hidden=back)

"""Shorts, trousers and skirts."""

# ruff: noqa: RUF005 (offsets are added to points, nothing is concatenated)

import numpy as np

from mmdf2.categories import category_by_id
from mmdf2.wardrobe.garments.cut import SHORTS, SKIRT, Cut
from mmdf2.wardrobe.garments.garment import Garment, LandmarkList, Panel, Stroke, button
from mmdf2.wardrobe.garments.uppers import hem_line
from mmdf2.wardrobe.geometry import along, spline
from mmdf2.wardrobe.people.body import ANKLE_Y, CROTCH_Y, HIP_Y, KNEE_Y, SIDES, Body

LEG_HALF_WIDTHS = ((CROTCH_Y, KNEE_Y - 18, KNEE_Y, KNEE_Y + 16, ANKLE_Y), (8.2, 6.6, 5.2, 5.2, 3.5))


def dress_bottom(cut: Cut, body: Body) -> Garment:
    """Puts shorts, trousers or a skirt on a wearer."""
    return _dress_skirt(cut, body) if cut.category_id == SKIRT else _dress_legs(cut, body)


def _waist(cut, body) -> tuple[np.ndarray, float]:
    """Upper edge of the waistband from left to right, and half of its width."""
    half = float(body.half_width(cut.waist)) + 0.5
    return body.view.project(hem_line(np.array([-half, cut.waist]), np.array([half, cut.waist]), 1.2)), half


def _waistband(edge, strokes) -> list[Stroke]:
    middle = edge[8] + (0, 2.0)
    return [Stroke(edge + (0, 3.6), 'dark', 0.4), button(middle, 1.0), *strokes]


def _hip(cut, body) -> float:
    return float(body.half_width(HIP_Y)) + cut.ease[2]


def _dress_skirt(cut, body) -> Garment:
    landmarks = LandmarkList(category_by_id(SKIRT).num_landmarks)
    waist, half = _waist(cut, body)
    hem_y, hip = float(body.leg_y(cut.hem)), _hip(cut, body)
    squeeze = body.view.squeeze
    lines = {}
    for side in SIDES:
        points = [(half, cut.waist), (half + (hip - half) * 0.75, 50.0), (hip, HIP_Y), (hip + cut.flare, hem_y)]
        lines[side] = spline(np.array(points) * (side * squeeze, 1), 4)
    hem = hem_line(lines[-1][-1], lines[1][-1], 2.8, 1.0 if cut.pleats or cut.flare > 8 else 0.2)
    strokes = [Stroke(hem - (0, 1.8), 'dark', 0.25)]
    for share in np.linspace(0, 1, cut.pleats + 2)[1:-1]:
        strokes.append(Stroke(np.stack([waist[round(share * 16)] + (0, 4), along(hem, share)[0]]), 'dark', 0.3))
    outline = np.concatenate([waist, lines[1], hem[::-1], lines[-1][::-1]])
    panel = Panel(role='trunk', outline=outline, frame=_frame(body), strokes=_waistband(waist, strokes))
    for number, point in ((1, waist[0]), (2, waist[8]), (3, waist[-1]), (5, hem[0]), (6, hem[8]), (7, hem[-1])):
        landmarks.put(number, point, 'trunk')
    for number, side in ((4, -1), (8, 1)):
        landmarks.put(number, along(lines[side], 0.52)[0], 'trunk')
    return landmarks.garment(cut, [panel])


def _leg(cut, body, side, hem) -> tuple[np.ndarray, np.ndarray]:
    """Outer and inner edge of a leg from the crotch down to height ``hem``, which is that of average legs."""
    y = np.linspace(CROTCH_Y + 4, hem, 6)
    share = (y - CROTCH_Y) / max(hem - CROTCH_Y, 1)
    width = np.interp(y, *LEG_HALF_WIDTHS) * body.build * (1 + (cut.sleeve_width - 1) * np.minimum(share * 1.6, 1))
    center = body.leg_x(side, y)
    y = body.leg_y(y)
    outer = np.stack([center + side * width, y], axis=1)
    inner_x = center - side * width
    if body.view.is_side:
        return outer, np.stack([inner_x, y], axis=1)
    # The two legs of wide trousers touch but do not cross.
    middle = 0.6 * side * share
    inner_x = np.maximum(inner_x, middle) if side > 0 else np.minimum(inner_x, middle)
    return outer, np.stack([inner_x, y], axis=1)


def _dress_legs(cut, body) -> Garment:
    landmarks = LandmarkList(category_by_id(cut.category_id).num_landmarks)
    waist, half = _waist(cut, body)
    squeeze, hip = body.view.squeeze, _hip(cut, body)
    crotch = body.view.project([[0.0, CROTCH_Y + 2.5]])[0] if not body.view.is_side else np.array([0.0, CROTCH_Y + 2.5])
    legs = {side: _leg(cut, body, side, cut.hem) for side in SIDES}
    outers = {}
    for side in SIDES:
        upper = np.array([(half, cut.waist), (half + (hip - half) * 0.75, 50.0), (hip, HIP_Y)]) * (side * squeeze, 1)
        outers[side] = spline(np.concatenate([upper, legs[side][0]]), 3)
    inners = {side: spline(np.concatenate([crotch[None], legs[side][1]]), 3) for side in SIDES}
    outline = np.concatenate([waist, outers[1], inners[1][::-1], inners[-1][1:], outers[-1][::-1]])
    panel = Panel(
        role='trunk',
        outline=outline,
        frame=_frame(body),
        strokes=_waistband(waist, _leg_seams(cut, body, waist, crotch, outers, inners)),
    )
    for number, point in ((1, waist[0]), (2, waist[8]), (3, waist[-1])):
        landmarks.put(number, point, 'trunk')
    left: tuple[int, ...]
    right: tuple[int, ...]
    outer_shares: tuple[float, ...]
    inner_shares: tuple[float, ...]
    if cut.category_id == SHORTS:
        left, right, crotch_number = (4, 5, 6), (10, 9, 8), 7
        outer_shares, inner_shares = (0.5, 1.0), (1.0,)
    else:
        left, right, crotch_number = (4, 5, 6, 7, 8), (14, 13, 12, 11, 10), 9
        outer_shares, inner_shares = (0.3, 0.57, 1.0), (1.0, 0.43)
    for numbers, side in ((left, -1), (right, 1)):
        points = np.concatenate([along(outers[side], outer_shares), along(inners[side], inner_shares)])
        for number, point in zip(numbers, points, strict=True):
            landmarks.put(number, point, 'trunk')
    landmarks.put(crotch_number, crotch, 'trunk')
    return landmarks.garment(cut, [panel])


def _leg_seams(cut, body, waist, crotch, outers, inners) -> list[Stroke]:
    strokes = []
    if not body.view.back:
        fly = waist[8] + (0, 3.6)
        strokes.append(Stroke(np.stack([fly, crotch - (0, 1.5)]), 'dark', 0.4))
        if cut.pocket:
            for side, end in ((-1, waist[2]), (1, waist[-3])):
                strokes.append(
                    Stroke(spline([end + (0, 3.8), end + (side * 2.2, 9), end + (side * 5.0, 11)], 4), 'dark', 0.4)
                )
    else:
        for index in (4, 12):
            corner = waist[index] + (0, 9)
            square = np.array([[-4, 0], [4, 0], [4, 7], [0, 9], [-4, 7], [-4, 0]])
            strokes.append(Stroke(corner + square, 'dark', 0.35))
    for side in SIDES:
        hem = np.stack([outers[side][-1], inners[side][-1]])
        rise = 4.0 if cut.cuff else 1.6
        strokes.append(Stroke(hem - (0, rise), 'dark', 0.7 if cut.cuff else 0.25))
    return strokes


def _frame(body) -> np.ndarray:
    return np.array([[body.build * body.view.squeeze, 0, 0], [0, 1.0, 0]])

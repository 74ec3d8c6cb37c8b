"""Drawing one image of the plan: view, pose, camera and background are sampled, painted and labelled."""

from dataclasses import dataclass

import numpy as np

from mmdf2.categories import Visibility
from mmdf2.datasets.annotation import ImageAnnotation
from mmdf2.wardrobe import backgrounds
from mmdf2.wardrobe.body import ANKLE_Y, View, sample_body
from mmdf2.wardrobe.canvas import Canvas
from mmdf2.wardrobe.geometry import affine, apply, compose
from mmdf2.wardrobe.labels import label_item
from mmdf2.wardrobe.photo import shop_photo, user_photo
from mmdf2.wardrobe.plan import Shot, sample_outfit
from mmdf2.wardrobe.props import CARRIED, PROPS, sample_props
from mmdf2.wardrobe.scene import build_layers, dress, paint

ATTEMPTS = 4
MIN_VISIBLE = 0.3  # share of the main garment's landmarks that should be seen


@dataclass(frozen=True)
class Habits:
    """How images of one source are taken; the shares are tuned to the published shares of the four attributes.

    Attributes:
        views: Shares of images that show the garment not worn, from the side and from behind; the rest is frontal.
        poses: Weights of the arms' poses.
        props: Shares of images with 0, 1 and 2 props.
        locks: Share of long hair that falls over the shoulders.
        whole_outfit: Share of images framed by all that is worn; the others are framed by the main garment.
        area_shares: (least, largest, share) of ranges; the framed garments' box covers a fraction of the image's area
            within the range, and a share of the images uses the range.
        off_center: Share of images in which the framed garments may leave the image.
        roll: Standard deviation of the camera's roll in radians.
    """

    views: tuple[float, float, float]
    poses: dict[str, float]
    props: tuple[float, float, float]
    locks: float
    whole_outfit: float
    area_shares: tuple[tuple[float, float, float], ...]
    off_center: float
    roll: float


HABITS = {
    'shop': Habits(
        views=(0.13, 0.07, 0.06),
        poses={'hanging': 6, 'away': 2, 'hip': 2, 'across': 1.6, 'raised': 0.4},
        props=(0.75, 0.25, 0.0),
        locks=0.3,
        whole_outfit=0.8,
        area_shares=((0.07, 0.15, 0.25), (0.15, 0.4, 0.13), (0.45, 1.0, 0.62)),
        off_center=0.24,
        roll=0.015,
    ),
    'user': Habits(
        views=(0.09, 0.08, 0.07),
        poses={'hanging': 5, 'away': 1.6, 'hip': 1.5, 'across': 2.3, 'raised': 0.3, 'phone': 2},
        props=(0.35, 0.48, 0.17),
        locks=0.45,
        whole_outfit=0.8,
        area_shares=((0.07, 0.15, 0.22), (0.15, 0.4, 0.1), (0.5, 1.1, 0.68)),
        off_center=0.46,
        roll=0.07,
    ),
}


def take(shot: Shot, size: int) -> tuple[np.ndarray, ImageAnnotation]:
    """Draws one image.

    Args:
        shot: What the image shows.
        size: Longer side of the image in pixels.

    Returns:
        (H, W, 3) uint8 BGR image, and its annotation.
    """
    rng = np.random.default_rng(shot.seed)
    habits = HABITS[shot.source]
    best = _attempt(rng, shot, size, habits)
    for _ in range(ATTEMPTS - 1):
        if best[2] >= MIN_VISIBLE:
            break
        best = max(best, _attempt(rng, shot, size, habits), key=lambda attempt: attempt[2])
    image, items, _ = best
    image = (user_photo if shot.source == 'user' else shop_photo)(rng, image)
    return image, ImageAnnotation(source=shot.source, pair_id=shot.pair.pair_id, items=items)


def _attempt(rng, shot, size, habits):
    view = _sample_view(rng, habits)
    outfit, place = sample_outfit(rng, shot, alone=not view.worn)
    body = sample_body(rng, view, habits.poses)
    garments = [dress(clothing.cut, body) for clothing in outfit]
    layers = build_layers(body, outfit, garments, locks=rng.random() < habits.locks)
    if view.worn:
        choice = CARRIED if shot.source == 'shop' else PROPS
        layers += sample_props(rng, body, int(rng.choice(3, p=habits.props)), choice)
    width, height = (size, size) if rng.random() < 0.5 else (size * 3 // 4, size)
    whole = rng.random() < habits.whole_outfit
    focus = garments if whole else garments[place : place + 1]
    camera = _sample_camera(rng, habits, view, focus, width, height)
    feet = apply(camera, [[0.0, body.leg_y(ANKLE_Y)]])[0, 1]
    canvas = Canvas(_background(rng, shot.source, view, width, height, feet), ground_is_near=not view.worn)
    owners = paint(canvas, layers, camera)
    items, seen = [], 0.0
    for index, (clothing, garment) in enumerate(zip(outfit, garments, strict=True)):
        points = apply(camera, garment.landmarks)
        item = label_item(index + 1, clothing.style, garment, points, canvas.owner, owners, view)
        if item is not None:
            items.append(item)
            seen = float((item.landmarks[:, 2] == Visibility.VISIBLE).mean()) if index == place else seen
    for number, item in enumerate(items, 1):
        item.item_id = number
    return canvas.image, items, seen


def _sample_view(rng, habits) -> View:
    no_wear, side, back = habits.views
    lot = rng.random()
    if lot < no_wear:
        return View(worn=False)
    if lot < no_wear + side:
        return View(yaw=float(rng.choice([-1, 1]) * rng.uniform(0.65, 1.15)))
    return View(yaw=float(np.clip(rng.normal(0, 0.13), -0.4, 0.4)), back=bool(lot < no_wear + side + back))


def _sample_camera(rng, habits, view, garments, width, height) -> np.ndarray:
    """Samples a (2, 3) map from scene centimetres to pixels; the garments' box gets a sampled share of the image."""
    outline = np.concatenate([panel.outline for garment in garments for panel in garment.panels])
    roll = rng.normal(0, habits.roll if view.worn else 5 * habits.roll + 0.1)
    turn = compose(affine(1.0, roll), affine(stretch=rng.uniform(0.94, 1.06)))
    turned = apply(turn, outline)
    low, high = turned.min(axis=0), turned.max(axis=0)
    ranges = habits.area_shares
    least, most, _ = ranges[rng.choice(len(ranges), p=[share for *_, share in ranges])]
    share = np.exp(rng.uniform(np.log(least), np.log(most)))
    scale = np.sqrt(share * width * height / np.prod(high - low))
    off = rng.random() < habits.off_center
    if not off:
        scale = min(scale, *(0.96 * np.array([width, height]) / (high - low)))
    box = (high - low) * scale
    slack = np.maximum(np.array([width, height]) - box, 0) / 2
    shift = rng.uniform(-0.5, 0.5, 2) * slack
    if off:
        axis = rng.integers(2)
        shift[axis] = rng.choice([-1, 1]) * (slack[axis] + rng.uniform(0.01, 0.16) * box[axis])
    move = np.array([width, height]) / 2 + shift - scale * (low + high) / 2
    return compose(affine(scale, move=move), turn)


def _background(rng, source, view, width, height, feet) -> np.ndarray:
    if not view.worn:
        return backgrounds.flat_lay(rng, width, height, clean=source == 'shop')
    if source == 'shop' and rng.random() < 0.85:
        return backgrounds.studio(rng, width, height)
    return (backgrounds.room if rng.random() < 0.7 else backgrounds.street)(rng, width, height, feet)

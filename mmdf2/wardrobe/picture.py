"""Drawing one image of the plan: view, pose, camera and background are sampled, painted and labelled."""

from dataclasses import dataclass, replace

import numpy as np

from mmdf2.categories import Visibility
from mmdf2.datasets.annotation import ImageAnnotation, Item
from mmdf2.wardrobe.camera.lens import Lens, sample_lens, through_lens
from mmdf2.wardrobe.camera.photo import degrade, relight, sample_light, shop_photo, user_photo
from mmdf2.wardrobe.canvas import STUDIO_LIGHT, Canvas
from mmdf2.wardrobe.garments.garment import Garment
from mmdf2.wardrobe.geometry import affine, apply, compose
from mmdf2.wardrobe.labels import MAX_HIDDEN, label_item
from mmdf2.wardrobe.people.body import ANKLE_Y, Body, View, sample_body
from mmdf2.wardrobe.people.figure import Layer
from mmdf2.wardrobe.people.props import CARRIED, PROPS, sample_props
from mmdf2.wardrobe.people.variety import head_cover, vary_body
from mmdf2.wardrobe.places import backgrounds
from mmdf2.wardrobe.places.clutter import hanger, other_place
from mmdf2.wardrobe.plan import Shot, enrich, sample_company, sample_outfit
from mmdf2.wardrobe.scene import Clothing, build_layers, cloth_surface, dress, moved, paint

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
        company: Share of images of a wearer with somebody else beside.
    """

    views: tuple[float, float, float]
    poses: dict[str, float]
    props: tuple[float, float, float]
    locks: float
    whole_outfit: float
    area_shares: tuple[tuple[float, float, float], ...]
    off_center: float
    roll: float
    company: float = 0.0


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
HABITS_OF_VERSION = {
    1: HABITS,
    # More garments that nobody wears, so that a validation split of moderate size holds enough of them.
    2: {
        'shop': replace(HABITS['shop'], views=(0.17, 0.07, 0.06), props=(0.6, 0.4, 0.0), company=0.05),
        'user': replace(HABITS['user'], views=(0.13, 0.075, 0.065), props=(0.2, 0.55, 0.25), company=0.14),
    },
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
    habits = HABITS_OF_VERSION[shot.version.number][shot.source]
    best = _attempt(rng, shot, size, habits, 0)
    for number in range(1, ATTEMPTS):
        if best[2] >= MIN_VISIBLE:
            break
        best = max(best, _attempt(rng, shot, size, habits, number), key=lambda attempt: attempt[2])
    image, items, _ = best
    user = shot.source == 'user'
    if shot.version.has('light'):
        image = relight(shot.version.generator(shot.seed, 'light'), image, user)
    image = (user_photo if user else shop_photo)(rng, image)
    if shot.version.has('photo'):
        image = degrade(shot.version.generator(shot.seed, 'photo'), image, user)
    return image, ImageAnnotation(source=shot.source, pair_id=shot.pair.pair_id, items=items)


@dataclass
class Group:
    """A wearer, or garments that nobody wears, ready to be painted.

    Attributes:
        view: How the wearer is turned.
        body: The wearer.
        outfit: The clothes, from the skin outwards.
        garments: The same clothes, put on the wearer.
        layers: Everything that is painted, from back to front.
    """

    view: View
    body: Body
    outfit: list[Clothing]
    garments: list[Garment]
    layers: list[Layer]


def _attempt(rng, shot, size, habits, number):
    extras = _Extras(shot, number)
    view = _sample_view(rng, habits)
    outfit, place = sample_outfit(rng, shot, alone=not view.worn)
    main, lens = _dressed(rng, shot, habits, extras, view, outfit, 0)
    width, height = (size, size) if rng.random() < 0.5 else (size * 3 // 4, size)
    whole = rng.random() < habits.whole_outfit
    focus = main.garments if whole else main.garments[place : place + 1]
    camera = _sample_camera(rng, habits, view, focus, width, height)
    feet = apply(camera, lens.apply([[0.0, main.body.leg_y(ANKLE_Y)]]))[0, 1]
    background = _background(rng, shot.source, view, width, height, feet)
    if shot.version.has('camera'):
        camera = _close_up(extras['camera'], camera, main, width, height)
    if shot.version.has('places'):
        background = other_place(extras['places'], background, shot.source, view.worn, shot.version.backgrounds)
    light = sample_light(extras['light']) if shot.version.has('light') else STUDIO_LIGHT
    canvas = Canvas(background, ground_is_near=not view.worn, light=light)
    groups = [main]
    if shot.version.has('company') and view.worn:
        groups = _with_company(extras['company'], shot, habits, extras, main)
    owners = None
    for group in groups:
        owners = paint(canvas, group.layers, camera, owners)
    items, seen = _annotate(groups, main, place, camera, canvas.owner, owners, MAX_HIDDEN[shot.version.number])
    return canvas.image, items, seen


class _Extras(dict):
    """Random generators of the additions for one attempt at an image."""

    def __init__(self, shot: Shot, number: int):
        super().__init__()
        self.shot, self.number = shot, number

    def __missing__(self, addition: str) -> np.random.Generator:
        self[addition] = self.shot.version.generator((*self.shot.seed, self.number), addition)
        return self[addition]


def _dressed(rng, shot, habits, extras, view, outfit, first_item) -> tuple[Group, Lens]:
    """Samples a wearer of an outfit and what the wearer carries, and the lens that both are seen through."""
    version = shot.version
    outfit = [
        clothing if clothing.style else enrich(version, (*shot.seed, extras.number, first_item, index), [clothing])[0]
        for index, clothing in enumerate(outfit)
    ]
    body = sample_body(rng, view, habits.poses)
    if version.has('bodies'):
        body = vary_body(extras['bodies'], body)
    garments = [dress(clothing.cut, body) for clothing in outfit]
    cloths = [cloth_surface(clothing, version.textures, extras['drapery']) for clothing in outfit]
    layers = build_layers(body, outfit, garments, cloths, rng.random() < habits.locks, first_item)
    if view.worn:
        if version.has('bodies'):
            layers += head_cover(extras['bodies'], body)
        choice = CARRIED if shot.source == 'shop' else PROPS
        layers += sample_props(rng, body, int(rng.choice(3, p=habits.props)), choice)
    elif version.has('places') and extras['places'].random() < 0.5:
        layers = hanger(extras['places']) + layers
    lens = Lens()
    if version.has('camera'):
        lens = sample_lens(extras['camera'], view.worn)
        layers, garments = through_lens(lens, layers, garments)
    return Group(view=view, body=body, outfit=outfit, garments=garments, layers=layers), lens


def _with_company(rng, shot, habits, extras, main) -> list[Group]:
    """Sometimes puts somebody else beside the wearer; the groups are in the order of painting."""
    if rng.random() >= habits.company:
        return [main]
    view = View(yaw=float(rng.choice((-1, 1)) * rng.uniform(0, 0.7)), back=bool(rng.random() < 0.1))
    other, _ = _dressed(
        rng, shot, replace(habits, props=(1.0, 0.0, 0.0)), extras, view, sample_company(rng), len(main.outfit)
    )
    in_front = rng.random() < 0.15
    scale = rng.uniform(1.0, 1.15) if in_front else rng.uniform(0.7, 1.05)
    side = rng.choice((-1, 1))
    move = affine(scale, 0.0, (side * rng.uniform(*((52, 75) if in_front else (34, 70))), rng.uniform(-12, 14)))
    other.layers = [moved(layer, move) for layer in other.layers]
    for garment in other.garments:
        garment.landmarks = apply(move, garment.landmarks)
    return [main, other] if in_front else [other, main]


def _annotate(groups, main, place, camera, owner, owners, max_hidden) -> tuple[list[Item], float]:
    """Labels the garments of all groups.

    Returns:
        The items, and the share of landmarks that can be seen of the garment at ``place`` of the group ``main``.
    """
    items, seen = [], 0.0
    number = 0
    for group in sorted(groups, key=lambda group: group is not main):
        for index, (clothing, garment) in enumerate(zip(group.outfit, group.garments, strict=True)):
            number += 1
            points = apply(camera, garment.landmarks)
            item = label_item(number, clothing.style, garment, points, owner, owners, group.view, max_hidden)
            if item is None:
                continue
            items.append(item)
            if group is main and index == place:
                seen = float((item.landmarks[:, 2] == Visibility.VISIBLE).mean())
    for number, item in enumerate(items, 1):
        item.item_id = number
    return items, seen


def _close_up(rng, camera, main, width, height) -> np.ndarray:
    """Sometimes moves the camera so that the wearer's face is beyond the upper edge, as on photos taken in a mirror."""
    if not main.view.worn or rng.random() >= 0.3:
        return camera
    chin = apply(camera, [[0.0, rng.uniform(-12, -5)]])[0, 1]
    if not 0 < chin < 0.3 * height:
        return camera
    return compose(affine(1.0, 0.0, (0.0, -chin)), camera)


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

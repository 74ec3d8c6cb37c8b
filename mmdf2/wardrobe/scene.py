"""Putting a dressed wearer together from back to front, and painting the result through a camera."""

from dataclasses import dataclass, replace

import numpy as np

from mmdf2.wardrobe.body import ARMPIT_Y, Arm, Body
from mmdf2.wardrobe.bottoms import dress_bottom
from mmdf2.wardrobe.canvas import Canvas, Surface
from mmdf2.wardrobe.cut import BOTTOMS, OUTWEAR, Cut
from mmdf2.wardrobe.fabric import Fabric, fold_maps, logo_decal, print_tile
from mmdf2.wardrobe.figure import (
    Layer,
    arm_layers,
    hair_behind,
    hair_in_front,
    head_layers,
    leg_layers,
    trunk_layer,
)
from mmdf2.wardrobe.garment import Garment, Panel
from mmdf2.wardrobe.geometry import affine, apply, compose, scale_of
from mmdf2.wardrobe.outwear import dress_outwear
from mmdf2.wardrobe.texture import Drapery, Texture, drapery_maps, weave_map
from mmdf2.wardrobe.uppers import dress_upper

CHEST = np.array([[-99.0, -99.0], [99.0, -99.0], [99.0, ARMPIT_Y - 2], [-99.0, ARMPIT_Y - 2]])  # above the armpits
FOLD_DEPTH = {'soft': 0.07, 'draped': 0.09, 'crumpled': 0.07}


@dataclass(frozen=True)
class Clothing:
    """A garment as it is sold.

    Attributes:
        cut: Its measures.
        fabric: Its cloth.
        style: Its style number, 0 for none.
        texture: The texture of its cloth, or None in version 1.
        drapery: How it falls, or None in version 1.
    """

    cut: Cut
    fabric: Fabric
    style: int
    texture: Texture | None = None
    drapery: Drapery | None = None


@dataclass(frozen=True)
class Variety:
    """What one image adds to the clothes that are worn on it.

    Attributes:
        textures: Folder of photos of cloth, or ''.
        rng: Random generator of the places of the folds, or None where no cloth has drapery.
    """

    textures: str = ''
    rng: np.random.Generator | None = None

    def folds_place(self) -> np.ndarray:
        """Samples where the folds of a garment lie on this image: a (2, 3) map of the cloth's centimetres."""
        assert self.rng is not None
        scale = float(np.exp(self.rng.normal(0, 0.2)))
        return affine(scale, self.rng.normal(0, 0.35), self.rng.uniform(-60, 60, 2), self.rng.choice((-1.0, 1.0)))


NO_VARIETY = Variety()


def dress(cut: Cut, body: Body) -> Garment:
    """Puts a garment of any category on a wearer."""
    if cut.category_id in BOTTOMS:
        return dress_bottom(cut, body)
    return dress_outwear(cut, body) if cut.category_id in OUTWEAR else dress_upper(cut, body)


def build_layers(
    body: Body,
    outfit: list[Clothing],
    garments: list[Garment],
    locks: bool,
    first_item: int = 0,
    variety: Variety = NO_VARIETY,
) -> list[Layer]:
    """Lists all layers of a wearer and the clothes, from back to front.

    Args:
        body: The wearer.
        outfit: The clothes, from the skin outwards.
        garments: The same clothes, put on the wearer.
        locks: Whether long hair falls over the shoulders in front.
        first_item: Number of the first garment among all garments of the image.
        variety: What this image adds to the clothes.
    """
    worn = body.view.worn
    cloth = []
    for index, (clothing, garment) in enumerate(zip(outfit, garments, strict=True), first_item):
        place = variety.folds_place() if clothing.drapery else None
        surfaces = [_surface(panel, clothing, variety.textures, place) for panel in garment.panels]
        cloth.append(
            [
                _panel_layer(panel, clothing, index, surface)
                for panel, surface in zip(garment.panels, surfaces, strict=True)
            ]
        )

    def chosen(*roles):
        return [layer for layers in cloth for layer in layers if layer.role in roles]

    def arm(joint: Arm):
        sleeves = chosen(f'sleeve{joint.side}')
        if not worn:
            return sleeves
        bare = arm_layers(body, joint)
        bare[0].tucked = bool(sleeves) or not body.view.is_side
        return [*bare, *sleeves]

    layers = hair_behind(body) if worn else []
    for joint in body.arms:
        layers += arm(joint) if joint.behind else []
    layers += chosen('inside')
    if worn:
        layers += [*leg_layers(body), trunk_layer(body)]
    layers += chosen('trunk', 'strap')
    for joint in body.arms:
        layers += [] if joint.behind else arm(joint)
    if worn:
        layers += [*head_layers(body), *hair_in_front(body, locks)]
    return layers


def moved(layer: Layer, place: np.ndarray) -> Layer:
    """Moves a layer by a (2, 3) map of the scene."""
    return replace(
        layer,
        outline=apply(place, layer.outline),
        frame=compose(place, layer.frame),
        strokes=[(apply(place, points), color, width) for points, color, width in layer.strokes],
    )


def _panel_layer(panel: Panel, clothing: Clothing, index: int, surface: Surface) -> Layer:
    strokes = [(stroke.points, _tone(stroke.tone, clothing.fabric), stroke.width) for stroke in panel.strokes]
    return Layer(
        outline=panel.outline,
        surface=surface,
        frame=panel.frame,
        strokes=strokes,
        item=index,
        role=panel.role,
        tucked=panel.role.startswith('sleeve'),
    )


def _surface(panel: Panel, clothing: Clothing, textures: str, folds_place: np.ndarray | None) -> Surface:
    cut, fabric = clothing.cut, clothing.fabric
    tile, tile_cm = print_tile(fabric)
    logo = logo_decal(fabric) if panel.logo else None
    surface = Surface(
        color=fabric.base,
        tile=tile,
        tile_cm=tile_cm,
        decal=logo,
        decal_box=(8.5, 22.0, 8.0) if cut.category_id in OUTWEAR else (0.0, 28.0, fabric.logo_cm),
        folds=fold_maps()[cut.folds][cut.fold_map],
        fold_depth=FOLD_DEPTH[cut.folds],
        relief_cm=4.0 if panel.role.startswith('sleeve') else 7.0,
        relief=0.6,
        shade=panel.shade,
    )
    if clothing.texture:
        weave, weave_cm = weave_map(clothing.texture, textures)
        opacity = clothing.texture.opacity if panel.role != 'inside' else 1.0
        surface = replace(surface, weave=weave, weave_cm=weave_cm, opacity=opacity)
    if clothing.drapery:
        drapery = clothing.drapery
        surface = replace(
            surface,
            folds=drapery_maps()[drapery.kind][drapery.map_number],
            folds_cm=drapery.size_cm,
            fold_depth=drapery.depth,
            folds_place=folds_place,
        )
    return surface


def _tone(tone: str, fabric: Fabric) -> tuple[float, ...]:
    base = np.array(fabric.base, dtype=np.float64)
    colors = {
        'dark': base * 0.66,
        'light': base * 0.86 + 30,
        'second': np.array(fabric.second),
        'metal': base * 0.3 + (120 if base.mean() < 110 else 30),
    }
    return tuple(np.clip(colors[tone], 0, 255))


def paint(
    canvas: Canvas, layers: list[Layer], camera: np.ndarray, owners: list[tuple[int, str]] | None = None
) -> list[tuple[int, str]]:
    """Paints the layers of one wearer.

    Args:
        canvas: The canvas to paint on.
        layers: The layers from back to front.
        camera: (2, 3) map from scene centimetres to pixels.
        owners: What the wearers behind this one have returned.

    Returns:
        (item, role) that each number in ``canvas.owner`` stands for; entry 0 is the background.
    """
    owners = list(owners or [(-1, '')])
    others = len(owners)
    scale = scale_of(camera)
    chest = apply(camera, CHEST)
    for layer in layers:
        key = (layer.item, layer.role)
        if key not in owners:
            owners.append(key)
        outline, frame = apply(camera, layer.outline), compose(camera, layer.frame)
        over = [number for number, (item, _) in enumerate(owners) if item > layer.item and number >= others]
        strokes = [(apply(camera, points), color, width * scale) for points, color, width in layer.strokes]
        canvas.paint(outline, layer.surface, frame, owners.index(key), strokes, over if layer.tucked else [], chest)
    return owners

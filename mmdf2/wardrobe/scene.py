"""Putting a dressed wearer together from back to front, and painting the result through a camera."""

from dataclasses import dataclass, replace

import numpy as np

from mmdf2.wardrobe.canvas import Canvas, Surface
from mmdf2.wardrobe.cloth.fabric import Fabric, fold_maps, logo_decal, print_tile
from mmdf2.wardrobe.cloth.texture import Drapery, Texture, draped, weave_map
from mmdf2.wardrobe.garments.bottoms import dress_bottom
from mmdf2.wardrobe.garments.cut import BOTTOMS, OUTWEAR, Cut
from mmdf2.wardrobe.garments.garment import Garment, Panel
from mmdf2.wardrobe.garments.outwear import dress_outwear
from mmdf2.wardrobe.garments.uppers import dress_upper
from mmdf2.wardrobe.geometry import affine, apply, compose, scale_of
from mmdf2.wardrobe.people.body import ARMPIT_Y, Arm, Body
from mmdf2.wardrobe.people.figure import (
    Layer,
    arm_layers,
    hair_behind,
    hair_in_front,
    head_layers,
    leg_layers,
    trunk_layer,
)

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


def dress(cut: Cut, body: Body) -> Garment:
    """Puts a garment of any category on a wearer."""
    if cut.category_id in BOTTOMS:
        return dress_bottom(cut, body)
    return dress_outwear(cut, body) if cut.category_id in OUTWEAR else dress_upper(cut, body)


def build_layers(
    body: Body,
    outfit: list[Clothing],
    garments: list[Garment],
    cloths: list[Surface],
    locks: bool,
    first_item: int = 0,
) -> list[Layer]:
    """Lists all layers of a wearer and the clothes, from back to front.

    Args:
        body: The wearer.
        outfit: The clothes, from the skin outwards.
        garments: The same clothes, put on the wearer.
        cloths: What the same clothes are made of, from ``cloth_surface``.
        locks: Whether long hair falls over the shoulders in front.
        first_item: Number of the first garment among all garments of the image.
    """
    worn = body.view.worn
    cloth = [
        [_panel_layer(panel, clothing, index, surface) for panel in garment.panels]
        for index, (clothing, garment, surface) in enumerate(zip(outfit, garments, cloths, strict=True), first_item)
    ]

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
    """Moves a layer by a (2, 3) map, which also scales the widths of its strokes."""
    scale = scale_of(place)
    return replace(
        layer,
        outline=apply(place, layer.outline),
        frame=compose(place, layer.frame),
        strokes=[(apply(place, points), color, width * scale) for points, color, width in layer.strokes],
    )


def _panel_layer(panel: Panel, clothing: Clothing, index: int, cloth: Surface) -> Layer:
    cut, fabric = clothing.cut, clothing.fabric
    surface = replace(
        cloth,
        decal=logo_decal(fabric) if panel.logo else None,
        decal_box=(8.5, 22.0, 8.0) if cut.category_id in OUTWEAR else (0.0, 28.0, fabric.logo_cm),
        relief_cm=4.0 if panel.role.startswith('sleeve') else 7.0,
        shade=panel.shade,
        opacity=cloth.opacity if panel.role != 'inside' else 1.0,
    )
    return Layer(
        outline=panel.outline,
        surface=surface,
        frame=panel.frame,
        strokes=[(stroke.points, _tone(stroke.tone, fabric), stroke.width) for stroke in panel.strokes],
        item=index,
        role=panel.role,
        tucked=panel.role.startswith('sleeve'),
    )


def cloth_surface(clothing: Clothing, textures: str, rng: np.random.Generator) -> Surface:
    """Makes the surface that all panels of a garment share on one image.

    Args:
        clothing: The garment.
        textures: Folder of photos of cloth, or ''.
        rng: Random generator of where the folds of its drapery lie; not used without drapery.
    """
    cut = clothing.cut
    tile, tile_cm = print_tile(clothing.fabric)
    surface = Surface(
        color=clothing.fabric.base,
        tile=tile,
        tile_cm=tile_cm,
        folds=fold_maps()[cut.folds][cut.fold_map],
        fold_depth=FOLD_DEPTH[cut.folds],
        relief=0.6,
    )
    if clothing.texture:
        weave, weave_cm = weave_map(clothing.texture, textures)
        surface = replace(surface, weave=weave, weave_cm=weave_cm, opacity=clothing.texture.opacity)
    if clothing.drapery:
        scale = float(np.exp(rng.normal(0, 0.2)))
        place = affine(scale, rng.normal(0, 0.35), rng.uniform(-60, 60, 2), rng.choice((-1.0, 1.0)))
        surface = draped(surface, clothing.drapery, place)
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
    chest = apply(camera, CHEST)
    for layer in layers:
        key = (layer.item, layer.role)
        if key not in owners:
            owners.append(key)
        over = []
        if layer.tucked:
            over = [number for number, (item, _) in enumerate(owners) if item > layer.item and number >= others]
        seen = moved(layer, camera)
        canvas.paint(seen.outline, seen.surface, seen.frame, owners.index(key), seen.strokes, over, chest)
    return owners

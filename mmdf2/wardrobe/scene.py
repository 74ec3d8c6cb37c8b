"""Putting a dressed wearer together from back to front, and painting the result through a camera."""

from dataclasses import dataclass

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
from mmdf2.wardrobe.geometry import apply, compose, scale_of
from mmdf2.wardrobe.outwear import dress_outwear
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
    """

    cut: Cut
    fabric: Fabric
    style: int


def dress(cut: Cut, body: Body) -> Garment:
    """Puts a garment of any category on a wearer."""
    if cut.category_id in BOTTOMS:
        return dress_bottom(cut, body)
    return dress_outwear(cut, body) if cut.category_id in OUTWEAR else dress_upper(cut, body)


def build_layers(body: Body, outfit: list[Clothing], garments: list[Garment], locks: bool) -> list[Layer]:
    """Lists all layers of a wearer and the clothes, from back to front.

    Args:
        body: The wearer.
        outfit: The clothes, from the skin outwards.
        garments: The same clothes, put on the wearer.
        locks: Whether long hair falls over the shoulders in front.
    """
    worn = body.view.worn
    cloth = [
        [_panel_layer(panel, clothing, index) for panel in garment.panels]
        for index, (clothing, garment) in enumerate(zip(outfit, garments, strict=True))
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


def _panel_layer(panel: Panel, clothing: Clothing, index: int) -> Layer:
    strokes = [(stroke.points, _tone(stroke.tone, clothing.fabric), stroke.width) for stroke in panel.strokes]
    return Layer(
        outline=panel.outline,
        surface=_surface(panel, clothing),
        frame=panel.frame,
        strokes=strokes,
        item=index,
        role=panel.role,
        tucked=panel.role.startswith('sleeve'),
    )


def _surface(panel: Panel, clothing: Clothing) -> Surface:
    cut, fabric = clothing.cut, clothing.fabric
    tile, tile_cm = print_tile(fabric)
    logo = logo_decal(fabric) if panel.logo else None
    return Surface(
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


def _tone(tone: str, fabric: Fabric) -> tuple[float, ...]:
    base = np.array(fabric.base, dtype=np.float64)
    colors = {
        'dark': base * 0.66,
        'light': base * 0.86 + 30,
        'second': np.array(fabric.second),
        'metal': base * 0.3 + (120 if base.mean() < 110 else 30),
    }
    return tuple(np.clip(colors[tone], 0, 255))


def paint(canvas: Canvas, layers: list[Layer], camera: np.ndarray) -> list[tuple[int, str]]:
    """Paints the layers.

    Args:
        canvas: The canvas to paint on.
        layers: The layers from back to front.
        camera: (2, 3) map from scene centimetres to pixels.

    Returns:
        (item, role) that each number in ``canvas.owner`` stands for; entry 0 is the background.
    """
    owners = [(-1, '')]
    scale = scale_of(camera)
    chest = apply(camera, CHEST)
    for layer in layers:
        key = (layer.item, layer.role)
        if key not in owners:
            owners.append(key)
        outline, frame = apply(camera, layer.outline), compose(camera, layer.frame)
        over = [number for number, (item, _) in enumerate(owners) if item > layer.item] if layer.tucked else []
        strokes = [(apply(camera, points), color, width * scale) for points, color, width in layer.strokes]
        canvas.paint(outline, layer.surface, frame, owners.index(key), strokes, over, chest)
    return owners

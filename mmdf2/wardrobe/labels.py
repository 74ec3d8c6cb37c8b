"""Reading the annotation off a painted scene: visible masks, boxes, landmarks with visibility, the four attributes."""

import numpy as np

from mmdf2.categories import Visibility
from mmdf2.codecs.polygons import mask_to_polygons
from mmdf2.datasets.annotation import Item
from mmdf2.wardrobe.canvas import owned
from mmdf2.wardrobe.garments.garment import Garment
from mmdf2.wardrobe.people.body import View

# A landmark lies on the edge of its panel: the panel is searched for within this many pixels around the landmark.
REACH = 2
# Version -> the share of occluded landmarks above which a garment, such as a top under a closed coat, is not labelled.
MAX_HIDDEN = {1: 0.65, 2: 0.85}
# An item that covers a smaller share of the image is not labelled.
MIN_ITEM_SHARE = 0.0016
SMALL, LARGE = 0.1, 0.4
SLIGHT, HEAVY = 0.2, 0.5
FAR_OUT = 0.3


def view_code(view: View) -> int:
    """The attribute 'viewpoint': 1 not worn, 2 frontal, 3 from the side or from behind."""
    if not view.worn:
        return 1
    return 3 if view.back or view.is_side else 2


def scale_code(share: float) -> int:
    """The attribute 'scale' of an item whose box covers a share of the image: < 10 %, 10 to 40 %, > 40 %."""
    return 1 if share < SMALL else 2 if share <= LARGE else 3


def occlusion_code(visibility: np.ndarray) -> int:
    """The attribute 'occlusion' by the share of landmarks that are occluded: < 20 %, 20 to 50 %, > 50 %."""
    share = float((visibility == Visibility.OCCLUDED).mean())
    return 1 if share < SLIGHT else 2 if share <= HEAVY else 3


def zoom_code(visibility: np.ndarray) -> int:
    """The attribute 'zoom_in' by the share of landmarks outside the image: none, up to 30 %, more than 30 %."""
    share = float((visibility == Visibility.UNLABELLED).mean())
    return 1 if share == 0 else 2 if share <= FAR_OUT else 3


def label_item(
    item_id: int,
    style: int,
    garment: Garment,
    points: np.ndarray,
    owner: np.ndarray,
    owners: list[tuple[int, str]],
    view: View,
    max_hidden: float,
) -> Item | None:
    """Annotates one garment.

    The box follows the rule of the real data: it encloses what can be seen of the garment and every landmark inside the
    image, hidden ones too (such as a waistband under a shirt), and ends at the image's borders.

    Args:
        item_id: 1 for the first item of the image; the garment's number among ``owners`` is one less.
        style: The garment's style number, 0 for none.
        garment: The garment.
        points: (K, 2) landmarks in pixels.
        owner: (H, W) number of the surface that each pixel shows, from ``Canvas.owner``.
        owners: (item, role) that each of these numbers stands for.
        view: How the wearer is turned.
        max_hidden: Share of occluded landmarks above which the garment is not labelled.

    Returns:
        The item, or None when too little of it can be seen.
    """
    height, width = owner.shape
    roles = {number: role for number, (item, role) in enumerate(owners) if item == item_id - 1}
    polygons, mask = mask_to_polygons(owned(owner, roles))
    owner = owner * mask
    if not polygons or mask.sum() < MIN_ITEM_SHARE * height * width:
        return None
    landmarks = np.zeros((len(points), 3), dtype=np.float32)
    inside = ((points >= 0) & (points <= (width - 1, height - 1))).all(axis=1)
    for index in np.flatnonzero(inside):
        numbers = [number for number, role in roles.items() if role in garment.roles[index]]
        seen = not garment.hidden[index] and _shows(owner, points[index], numbers)
        code = Visibility.VISIBLE if seen else Visibility.OCCLUDED
        landmarks[index] = (*(points[index] + 0.5), code)  # pixel i spans i to i + 1
    if (landmarks[:, 2] == Visibility.OCCLUDED).mean() > max_hidden:
        return None
    corners = np.concatenate([*polygons, landmarks[inside, :2]])
    x1, y1 = corners.min(axis=0)
    x2, y2 = corners.max(axis=0)
    share = (x2 - x1) * (y2 - y1) / (height * width)
    visibility = landmarks[:, 2]
    return Item(
        item_id=item_id,
        category_id=garment.cut.category_id,
        style=style,
        bbox=(float(x1), float(y1), float(x2), float(y2)),
        landmarks=landmarks,
        segmentation=polygons,
        scale=scale_code(share),
        occlusion=occlusion_code(visibility),
        zoom_in=zoom_code(visibility),
        viewpoint=view_code(view),
    )


def _shows(owner, point, numbers) -> bool:
    x, y = np.round(point).astype(int)
    window = owner[max(0, y - REACH) : y + REACH + 1, max(0, x - REACH) : x + REACH + 1]
    return bool(owned(window, numbers).any())

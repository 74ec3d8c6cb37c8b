"""Contours of annotated items: how well they cover the annotated masks, and the page that shows it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmdf2.analysis.charts import number
from mmdf2.analysis.page import Section, build_page, figure, paragraph, sheet, table
from mmdf2.analysis.pictures import closeup, pixels
from mmdf2.categories import CATEGORY_NAMES
from mmdf2.codecs.contour import Coverage, coverage, landmark_contour, seen_from_behind
from mmdf2.codecs.polygons import polygons_to_mask
from mmdf2.datasets.annotation import Item
from mmdf2.images import read_image
from mmdf2.visualization.drawing import RIGHT, WRONG

# The share of the annotated mask that should lie inside the contour.
LEAST_INSIDE = 0.8
# The share of an item's landmarks that a contour needs. Through fewer, such as those of the waist, it encloses almost
# nothing.
LEAST_LABELLED = 0.5
# Pixels of the longer side of a picture.
CELL = 320
_HEADER = ('category', 'items', 'no contour', 'compared', 'inside, median', 'IoU, median', 'short')


@dataclass(frozen=True)
class ItemContour:
    """The contour of one item.

    Attributes:
        name: File name of the image.
        item: The item.
        polygons: The contour's polygons, each (P, 2) float64 in pixels; none when fewer than half of the landmarks
            are labelled.
        coverage: How the contour covers the annotated mask; None where there is no contour or no mask.
    """

    name: str
    item: Item
    polygons: list[np.ndarray]
    coverage: Coverage | None

    def is_short(self, least_inside: float = LEAST_INSIDE) -> bool:
        """Whether a smaller share of the annotated mask than ``least_inside`` lies inside the contour."""
        return self.coverage is not None and not self.coverage.inside >= least_inside


def item_contour(name: str, item: Item, height: int, width: int) -> ItemContour:
    """Draws an item's contour through its landmarks and compares it with the item's mask.

    Args:
        name: File name of the image.
        item: The item.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    behind = seen_from_behind(item.landmarks, item.label, item.viewpoint)
    labelled = (item.landmarks[:, 2] > 0).mean()
    polygons = landmark_contour(item.landmarks, item.label, behind) if labelled >= LEAST_LABELLED else []
    if not polygons or not item.segmentation:
        return ItemContour(name=name, item=item, polygons=polygons, coverage=None)
    masks = (polygons_to_mask(outlines, height, width) for outlines in (polygons, item.segmentation))
    return ItemContour(name=name, item=item, polygons=polygons, coverage=coverage(*masks))


def category_table(contours: Iterable[ItemContour], least_inside: float = LEAST_INSIDE) -> list[list]:
    """One row per category, and a last one for all items together.

    Args:
        contours: The contours of all items.
        least_inside: The share of an annotated mask that should lie inside the contour.

    Returns:
        Rows of seven cells: the category's name; how many items there are, how many of them have no contour, and how
        many are compared with a mask; the median share of the mask inside the contour, and the median IoU; how many
        fall short.
    """
    contours = list(contours)
    groups = {name: [c for c in contours if c.item.label == label] for label, name in enumerate(CATEGORY_NAMES)}
    return [_category_row(name, group, least_inside) for name, group in [*groups.items(), ('all', contours)]]


def worst_first(contours: Iterable[ItemContour], least_inside: float = LEAST_INSIDE) -> list[ItemContour]:
    """The contours that fall short, that with the smallest share of the mask inside first."""
    return sorted((c for c in contours if c.is_short(least_inside)), key=lambda c: c.coverage.inside)


def _category_row(name: str, group: Sequence[ItemContour], least_inside: float) -> list:
    compared = [c for c in group if c.coverage is not None]
    return [
        name,
        len(group),
        sum(not c.polygons for c in group),
        len(compared),
        _median([c.coverage.inside for c in compared]),
        _median([c.coverage.iou for c in compared]),
        sum(c.is_short(least_inside) for c in compared),
    ]


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float('nan')


def contour_page(contours: Sequence[ItemContour], images: Path, least_inside: float, limit: int) -> str:
    """The page of the mask tool: how well contours cover the annotated masks, and pictures of those that fall short.

    Args:
        contours: The contours of all items.
        images: Folder of the images.
        least_inside: The share of an annotated mask that should lie inside the contour.
        limit: Pictures of contours that fall short, at most.
    """
    rows = [[name, *map(number, figures)] for name, *figures in category_table(contours, least_inside)]
    short = worst_first(contours, least_inside)
    note = (
        'No contour: fewer than half of the landmarks are labelled. Inside: the share of the annotated mask inside the '
        f'contour. Short: that share is below {least_inside:g}.'
    )
    key = paragraph(
        'The annotated mask is outlined in green, the contour in red; the numbers are those of the landmarks.',
        note=True,
    )
    pictures = sheet([_picture(contour, images) for contour in short[:limit]])
    sections = [
        Section('coverage', 'Coverage', [table(_HEADER, rows), paragraph(note, note=True)]),
        Section('short', 'The least covered', [key, pictures] if short else [paragraph('None falls short.')]),
    ]
    return build_page('Contours from landmarks', f'{len(contours):,} items.', sections)


def draw_contour(image: np.ndarray, contour: ItemContour) -> np.ndarray:
    """Draws an item with its annotated mask outlined in green, its contour in red, and its landmarks numbered.

    Args:
        image: (H, W, 3) uint8 RGB, the whole photo.
        contour: The contour of an item on it.

    Returns:
        A new image of the item's surroundings, whose longer side is ``CELL`` pixels.
    """
    item = contour.item
    points = np.concatenate([*contour.polygons, *item.segmentation, np.reshape(item.bbox, (2, 2))])
    canvas, to_canvas = closeup(image, [*points.min(axis=0), *points.max(axis=0)], 0.05, CELL)
    for polygons, colour in ((item.segmentation, RIGHT), (contour.polygons, WRONG)):
        lines = [pixels(to_canvas(polygon)) for polygon in polygons]
        for shade, width in (((255, 255, 255), 3), (colour, 1)):
            cv2.polylines(canvas, lines, True, shade, width, cv2.LINE_AA)
    for place in np.flatnonzero(item.landmarks[:, 2] > 0):
        point = pixels(to_canvas(item.landmarks[place, :2])).tolist()
        cv2.circle(canvas, point, 2, WRONG, -1, cv2.LINE_AA)
        for shade, width in (((255, 255, 255), 2), ((0, 0, 0), 1)):
            cv2.putText(canvas, str(place + 1), point, cv2.FONT_HERSHEY_SIMPLEX, 0.32, shade, width, cv2.LINE_AA)
    return canvas


def _picture(contour: ItemContour, images: Path) -> str:
    """The picture of one contour with its caption, or a note where the image cannot be read."""
    item, covered = contour.item, contour.coverage
    text = f'{CATEGORY_NAMES[item.label]}: {covered.inside:.2f} inside, IoU {covered.iou:.2f}'
    text += f'\n{contour.name}, item{item.item_id}'
    try:
        image = read_image(images / contour.name)
    except OSError as error:
        return paragraph(f'{text}; no picture: {error}', note=True)
    return figure(draw_contour(image, contour), text)

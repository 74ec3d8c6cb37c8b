"""The mask tool's page: how well contours cover the annotated masks, and pictures of those that fall short."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmdf2.analysis.closeup import closeup, pixels
from mmdf2.analysis.item_contours import ItemContour, category_table, worst_first
from mmdf2.analysis.page import Section, build_page, figure, paragraph, sheet, table
from mmdf2.analysis.svg import number
from mmdf2.categories import CATEGORY_NAMES
from mmdf2.images import read_image
from mmdf2.visualization.palette import RIGHT, WRONG

CELL = 320  # pixels, the longer side of a picture
_HEADER = ('category', 'items', 'no contour', 'compared', 'inside, median', 'IoU, median', 'short')


def contour_page(contours: Sequence[ItemContour], images: Path, least_inside: float, limit: int) -> str:
    """The page's text.

    Args:
        contours: Of all items.
        images: Folder of the images.
        least_inside: Share of an annotated mask that should lie within the contour.
        limit: Pictures of those that fall short.
    """
    rows = [[name, *map(number, figures)] for name, *figures in category_table(contours, least_inside)]
    short = worst_first(contours, least_inside)
    note = (
        'No contour: fewer than half of the landmarks are labelled. Inside: share of the annotated mask within the '
        f'contour; short: below {least_inside:g}.'
    )
    key = paragraph('The annotated mask is outlined in green, the contour in red, numbered by landmark.', note=True)
    pictures = sheet([_picture(contour, images) for contour in short[:limit]])
    sections = [
        Section('coverage', 'Coverage', [table(_HEADER, rows), paragraph(note, note=True)]),
        Section('short', 'The least covered', [key, pictures] if short else [paragraph('None falls short.')]),
    ]
    return build_page('Contours from landmarks', f'{len(contours):,} items.', sections)


def draw_contour(image: np.ndarray, contour: ItemContour) -> np.ndarray:
    """The item with its annotated mask outlined in green, its contour in red and the landmarks' numbers.

    Args:
        image: (H, W, 3) uint8 RGB.
        contour: Of an item on it.

    Returns:
        A new image around the item, its longer side ``CELL``.
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
    item, covered = contour.item, contour.coverage
    text = f'{CATEGORY_NAMES[item.label]}: {covered.inside:.2f} inside, IoU {covered.iou:.2f}'
    text += f'\n{contour.name}, item{item.item_id}'
    try:
        image = read_image(images / contour.name)
    except OSError as error:
        return paragraph(f'{text}; no picture: {error}', note=True)
    return figure(draw_contour(image, contour), text)

"""The mask tool over annotated items: each item's contour, whether it covers the annotated mask, which fall short."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mmdf2.categories import CATEGORY_NAMES
from mmdf2.codecs.contour import Coverage, coverage, landmark_contour, seen_from_behind
from mmdf2.codecs.polygons import polygons_to_mask
from mmdf2.datasets.annotation import Item

# Share of the annotated mask that should lie within the contour.
LEAST_INSIDE = 0.8
# Share of an item's landmarks that a contour needs: through fewer, such as a waist alone, it encloses next to nothing.
LEAST_LABELLED = 0.5


@dataclass(frozen=True)
class ItemContour:
    """The contour of one item.

    Attributes:
        name: File name of the image.
        item: The item.
        polygons: (P, 2) float64 each, in pixels; none when fewer than half of the landmarks are labelled.
        coverage: Against the annotated mask; None where either is missing.
    """

    name: str
    item: Item
    polygons: list[np.ndarray]
    coverage: Coverage | None

    def is_short(self, least_inside: float = LEAST_INSIDE) -> bool:
        """Whether less of the annotated mask than that lies within the contour."""
        return self.coverage is not None and not self.coverage.inside >= least_inside


def item_contour(name: str, item: Item, height: int, width: int) -> ItemContour:
    """Draws an item's contour through its landmarks and compares it with the item's mask.

    Args:
        name: File name of the image.
        item: The item.
        height: Of the image.
        width: Of the image.
    """
    behind = seen_from_behind(item.landmarks, item.label, item.viewpoint)
    labelled = (item.landmarks[:, 2] > 0).mean()
    polygons = landmark_contour(item.landmarks, item.label, behind) if labelled >= LEAST_LABELLED else []
    if not polygons or not item.segmentation:
        return ItemContour(name, item, polygons, None)
    masks = (polygons_to_mask(outlines, height, width) for outlines in (polygons, item.segmentation))
    return ItemContour(name, item, polygons, coverage(*masks))


def category_table(contours: Iterable[ItemContour], least_inside: float = LEAST_INSIDE) -> list[list]:
    """A row for each category and a last one of all.

    Name; items, those without a contour, those compared with a mask; median share inside, median IoU; those that fall
    short.
    """
    contours = list(contours)
    groups = {name: [c for c in contours if c.item.label == label] for label, name in enumerate(CATEGORY_NAMES)}
    return [_row(name, group, least_inside) for name, group in [*groups.items(), ('all', contours)]]


def worst_first(contours: Iterable[ItemContour], least_inside: float = LEAST_INSIDE) -> list[ItemContour]:
    """Those that fall short, the least share inside first."""
    return sorted((c for c in contours if c.is_short(least_inside)), key=lambda c: c.coverage.inside)


def _row(name: str, group: Sequence[ItemContour], least_inside: float) -> list:
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


def _median(values) -> float:
    return float(np.median(values)) if values else float('nan')

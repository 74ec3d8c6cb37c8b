"""What version 2's camera does to the flat scene: perspective, and bodies that lean and bend."""

from dataclasses import dataclass, replace

import numpy as np

from mmdf2.wardrobe.garments.garment import Garment
from mmdf2.wardrobe.people.body import ANKLE_Y
from mmdf2.wardrobe.people.figure import Layer

LONGEST_EDGE = 5.0  # centimetres; longer edges get points in between, so that they bend


@dataclass(frozen=True)
class Lens:
    """A smooth map of the scene onto itself.

    Attributes:
        perspective: How much larger the head's end is than the feet's, as a share; above 0 from above.
        foreshortening: Factor on heights.
        lean: Shift of the head against the feet in centimetres, which grows along the body.
        sway: Sideways shift of the hips in centimetres.
    """

    perspective: float = 0.0
    foreshortening: float = 1.0
    lean: float = 0.0
    sway: float = 0.0

    def apply(self, points) -> np.ndarray:
        """Maps (P, 2) points of the scene."""
        points = np.asarray(points, dtype=np.float64)
        share = points[:, 1] / ANKLE_Y  # 0 at the neck, 1 at the ankles
        growth = 1 + self.perspective * (0.5 - np.minimum(np.maximum(share, -0.5), 1.5))
        bend = np.sin(np.pi * np.minimum(np.maximum(share * 1.3, -0.3), 1.3))
        x = points[:, 0] + self.lean * (0.5 - share) + self.sway * bend
        return np.stack([x * growth, points[:, 1] * self.foreshortening * (0.5 + 0.5 * growth)], axis=1)

    def bend(self, outline) -> np.ndarray:
        """Maps a closed (P, 2) outline, whose long edges become curves."""
        return self.apply(_dense(np.asarray(outline, dtype=np.float64)))


def sample_lens(rng: np.random.Generator, worn: bool) -> Lens:
    """Samples a lens; of garments without a wearer only the perspective."""
    perspective = float(rng.normal(0, 0.12)) if rng.random() < 0.8 else float(rng.uniform(-0.35, 0.45))
    foreshortening = float(rng.uniform(0.86, 1.06))
    if not worn:
        return Lens(perspective=0.6 * perspective, foreshortening=foreshortening)
    return Lens(perspective, foreshortening, lean=float(rng.normal(0, 5)), sway=float(rng.normal(0, 3)))


def through_lens(lens: Lens, layers: list[Layer], garments: list[Garment]) -> tuple[list[Layer], list[Garment]]:
    """Maps everything that is drawn, and the landmarks with it."""
    seen = [
        replace(
            layer,
            outline=lens.bend(layer.outline),
            strokes=[(lens.apply(points), color, width) for points, color, width in layer.strokes],
        )
        for layer in layers
    ]
    worn = [
        replace(
            garment,
            panels=[replace(panel, outline=lens.bend(panel.outline)) for panel in garment.panels],
            landmarks=lens.apply(garment.landmarks),
        )
        for garment in garments
    ]
    return seen, worn


def _dense(outline: np.ndarray) -> np.ndarray:
    edges = np.concatenate([outline[1:], outline[:1]]) - outline
    # An edge far beyond the image, such as that of a table, does not need many points.
    parts = np.minimum(np.hypot(edges[:, 0], edges[:, 1]) / LONGEST_EDGE, 40).astype(int) + 1
    total = int(parts.sum())
    if total == len(outline):
        return outline
    row = np.repeat(np.arange(len(outline)), parts)
    step = (np.arange(total) - (np.cumsum(parts) - parts)[row]) / parts[row]
    return outline[row] + step[:, None] * edges[row]

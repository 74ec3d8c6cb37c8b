"""A garment on its wearer, ready to be painted: panels of cloth with their seams, and landmarks with their panels."""

from dataclasses import dataclass, field

import numpy as np

from mmdf2.wardrobe.garments.cut import Cut

IDENTITY = np.array([[1.0, 0, 0], [0, 1.0, 0]])


@dataclass
class Stroke:
    """A line or a filled shape drawn on a panel.

    Attributes:
        points: (P, 2) scene centimetres.
        tone: 'dark' or 'light' for a shade of the cloth, 'second' for the colour of its print, or 'metal'.
        width: Width of the line in centimetres; 0 fills the outline.
    """

    points: np.ndarray
    tone: str
    width: float


@dataclass
class Panel:
    """One piece of cloth.

    Attributes:
        role: 'trunk', 'strap', 'inside' (the inner face of the back), or 'sleeve-1' and 'sleeve1' for the sleeve on the
            left and on the right of the image.
        outline: (P, 2) scene centimetres.
        frame: (2, 3) map from centimetres of the cloth to scene centimetres.
        strokes: Lines and shapes drawn on the panel, in this order.
        shade: Factor on the brightness.
        logo: Whether the panel carries the logo.
    """

    role: str
    outline: np.ndarray
    frame: np.ndarray = field(default_factory=IDENTITY.copy)
    strokes: list[Stroke] = field(default_factory=list)
    shade: float = 1.0
    logo: bool = False


@dataclass
class Garment:
    """A garment on its wearer.

    Attributes:
        cut: The garment's measures.
        panels: The panels from back to front.
        landmarks: (K, 2) scene centimetres, in the category's order.
        roles: Roles of the panels that each landmark lies on; a landmark can be seen where one of them is topmost.
        hidden: (K,) whether the garment itself hides the landmark (such as the front neckline from behind).
    """

    cut: Cut
    panels: list[Panel]
    landmarks: np.ndarray
    roles: list[tuple[str, ...]]
    hidden: np.ndarray


class LandmarkList:
    """Collects the landmarks of a garment by the numbers of the published figure (from 1)."""

    def __init__(self, count: int):
        self.points = np.full((count, 2), np.nan)
        self.roles: list[tuple[str, ...]] = [()] * count
        self.hidden = np.zeros(count, dtype=bool)

    def put(self, number: int, point, *roles: str, hidden=False) -> None:
        """Places landmark ``number`` at a point, on panels of these roles."""
        self.points[number - 1] = point
        self.roles[number - 1] = roles
        self.hidden[number - 1] = hidden

    def garment(self, cut: Cut, panels: list[Panel]) -> Garment:
        """Makes the garment; ValueError if a landmark was never placed."""
        missing = np.flatnonzero(np.isnan(self.points).any(axis=1)) + 1
        if len(missing):
            raise ValueError(f'landmarks {missing.tolist()} of category {cut.category_id} were not placed')
        return Garment(cut=cut, panels=panels, landmarks=self.points, roles=self.roles, hidden=self.hidden)


def button(center, radius=0.8) -> Stroke:
    """Draws a round button."""
    t = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    return Stroke(np.asarray(center) + radius * np.stack([np.cos(t), np.sin(t)], axis=1), 'metal', 0.0)

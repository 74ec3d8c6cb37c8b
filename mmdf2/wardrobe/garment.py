"""What a dressed garment is to the painter: panels of cloth, seams on them, and landmarks that know their panel."""

from dataclasses import dataclass, field

import numpy as np

from mmdf2.wardrobe.cut import Cut

IDENTITY = np.array([[1.0, 0, 0], [0, 1.0, 0]])


@dataclass
class Stroke:
    """A line or a filled shape drawn on a panel.

    Attributes:
        points: (P, 2) scene centimetres.
        tone: 'dark' or 'light' shade of the cloth, 'second' colour of its print, or 'metal'.
        width: Centimetres; 0 fills the outline.
    """

    points: np.ndarray
    tone: str
    width: float


@dataclass
class Panel:
    """One piece of cloth.

    Attributes:
        role: 'trunk', 'strap', 'inside' (the inner face of the back), 'sleeve-1' or 'sleeve1' by image side.
        outline: (P, 2) scene centimetres.
        frame: (2, 3) map from cloth to scene centimetres.
        strokes: Drawn on it, in order.
        shade: Factor on the brightness.
        logo: Whether it carries the logo.
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
        cut: Its measures.
        panels: Back to front.
        landmarks: (K, 2) scene centimetres in the category's order.
        roles: Per landmark, the panels it lies on: where one of them is the topmost surface it can be seen.
        hidden: (K,) whether the garment itself hides the landmark (the front neckline from behind).
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
        """Places landmark ``number``."""
        self.points[number - 1] = point
        self.roles[number - 1] = roles
        self.hidden[number - 1] = hidden

    def garment(self, cut: Cut, panels: list[Panel]) -> Garment:
        """The garment; ValueError if a landmark was never placed."""
        missing = np.flatnonzero(np.isnan(self.points).any(axis=1)) + 1
        if len(missing):
            raise ValueError(f'landmarks {missing.tolist()} of category {cut.category_id} were not placed')
        return Garment(cut, panels, self.points, self.roles, self.hidden)


def button(center, radius=0.8) -> Stroke:
    """A round button."""
    t = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    return Stroke(np.asarray(center) + radius * np.stack([np.cos(t), np.sin(t)], axis=1), 'metal', 0.0)

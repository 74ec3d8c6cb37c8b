"""The paper's mask tool: the contour of a garment from its landmarks, and how well it covers the annotated mask.

Source: DeepFashion2, section 3.2: a contour is drawn through the landmarks in their order, a first mask is generated
from it, and annotators then refine that. The order is the category table's.
"""

from dataclasses import dataclass

import numpy as np

from mmdf2.categories import CATEGORIES, NUM_CATEGORIES

# The attribute 'viewpoint' of a garment that is not worn.
NO_WEAR = 1
# Landmarks, from 0, of the neckline in front; of every category that has one, but for outwear's fronts.
_FRONT_NECKLINE = [2, 3, 4]


@dataclass(frozen=True)
class Coverage:
    """A contour's mask against the annotated one.

    Attributes:
        inside: Share of the annotated mask within the contour, 0 to 1; NaN where the annotation is empty.
        iou: Intersection over union, 0 to 1; NaN where both are empty.
    """

    inside: float
    iou: float


def landmark_contour(landmarks: np.ndarray, label: int, from_behind: bool = False) -> list[np.ndarray]:
    """Closed polygons through an item's landmarks, in the order of the category table.

    Args:
        landmarks: (K, 3) rows x, y, v, K at least the category's count; those with v 0 are passed over.
        label: The category, 0 to 12.
        from_behind: Runs along the back of the neck, and across the front of outwear.

    Returns:
        (P, 2) float64 each, the last point joined to the first; runs with fewer than 3 landmarks are left out.

    Raises:
        ValueError: Another label, too few landmarks, or one that is labelled and not finite.
    """
    if label not in range(NUM_CATEGORIES):
        raise ValueError(f'label must be 0 to {NUM_CATEGORIES - 1}, got {label!r}')
    category = CATEGORIES[label]
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.ndim != 2 or len(landmarks) < category.num_landmarks or landmarks.shape[1] != 3:
        raise ValueError(f"'{category.name}' needs ({category.num_landmarks}, 3) landmarks, got {landmarks.shape}")
    labelled = landmarks[:, 2] > 0
    if not np.isfinite(landmarks[labelled]).all():
        raise ValueError(f"landmarks of a '{category.name}' must be finite where v > 0, got {landmarks.tolist()}")
    runs = category.back_contour if from_behind else category.contour
    polygons = [landmarks[[place for place in run if labelled[place]], :2] for run in runs]
    return [polygon for polygon in polygons if len(polygon) >= 3]


def seen_from_behind(landmarks: np.ndarray, label: int, viewpoint: int = 0) -> bool:
    """Whether the cloth shows up to the back of the neck: it is not worn, or none of its front neckline can be seen.

    Args:
        landmarks: (K, 3) rows x, y, v.
        label: 0 to 12; garments without a neckline are the same from both sides, for which it is False.
        viewpoint: The attribute, 1 no wear, 2 frontal, 3 side or back, 0 unknown.
    """
    category = CATEGORIES[label]
    if category.contour == category.back_contour:
        return False
    if viewpoint == NO_WEAR:
        return True
    visibility = np.asarray(landmarks)[:, 2]
    return bool(visibility[0] == 2 and not (visibility[_FRONT_NECKLINE] == 2).any())


def coverage(contour_mask: np.ndarray, annotated_mask: np.ndarray) -> Coverage:
    """How well a contour covers an item.

    Args:
        contour_mask: (H, W) bool.
        annotated_mask: (H, W) bool.

    Raises:
        ValueError: Masks of different shapes.
    """
    if contour_mask.shape != annotated_mask.shape:
        raise ValueError(f'masks must have one shape, got {contour_mask.shape} and {annotated_mask.shape}')
    both = int(np.count_nonzero(contour_mask & annotated_mask))
    either = int(np.count_nonzero(contour_mask | annotated_mask))
    annotated = int(np.count_nonzero(annotated_mask))
    return Coverage(both / annotated if annotated else float('nan'), both / either if either else float('nan'))

"""The contour of a garment through its landmarks, and how well it covers the annotated mask.

This is the mask tool of the paper (DeepFashion2, section 3.2): a contour is drawn through the landmarks in their order,
a first mask is generated from it, and annotators then refine the mask. The order is that of the category table.
"""

from dataclasses import dataclass

import numpy as np

from mmdf2.categories import CATEGORIES, NUM_CATEGORIES, Visibility

# The attribute 'viewpoint' of a garment that is not worn.
NO_WEAR = 1
# Landmarks (from 0) of the front neckline, the same in all categories with a neckline (of outwear, it is cut open).
_FRONT_NECKLINE = [2, 3, 4]


@dataclass(frozen=True)
class Coverage:
    """A contour's mask compared with the annotated mask.

    Attributes:
        inside: Share of the annotated mask that lies within the contour, 0 to 1; NaN if the annotated mask is empty.
        iou: Intersection over union of both masks, 0 to 1; NaN if both are empty.
    """

    inside: float
    iou: float


def landmark_contour(landmarks: np.ndarray, label: int, from_behind: bool = False) -> list[np.ndarray]:
    """Draws closed polygons through an item's landmarks, in the order of the category table.

    Args:
        landmarks: (K, 3) rows x, y, v, where K is the category's number of landmarks or more; landmarks with v 0 are
            skipped.
        label: The category, 0 to 12.
        from_behind: Whether the polygon is that of the garment seen from behind: it runs along the back of the neck,
            and across the opening of outwear.

    Returns:
        (P, 2) float64 polygons, whose last point joins the first; runs with fewer than 3 landmarks are left out.

    Raises:
        ValueError: The label is out of range, there are too few landmarks, or a labelled landmark is not finite.
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
    """Tells whether the visible cloth reaches up to the back of the neck.

    It does if the garment is not worn, or if the back of its neckline can be seen and nothing of the front. A garment
    without a neckline looks the same from both sides, and the answer is False.

    Args:
        landmarks: (K, 3) rows x, y, v.
        label: The category, 0 to 12.
        viewpoint: The attribute: 1 not worn, 2 frontal, 3 from the side or from behind, 0 unknown.
    """
    category = CATEGORIES[label]
    if category.contour == category.back_contour:
        return False
    if viewpoint == NO_WEAR:
        return True
    visibility = np.asarray(landmarks)[:, 2]
    return bool(visibility[0] == Visibility.VISIBLE and not (visibility[_FRONT_NECKLINE] == Visibility.VISIBLE).any())


def coverage(contour_mask: np.ndarray, annotated_mask: np.ndarray) -> Coverage:
    """Measures how well a contour covers an item.

    Args:
        contour_mask: (H, W) bool, True inside the contour.
        annotated_mask: (H, W) bool, True on the annotated item.

    Raises:
        ValueError: The masks have different shapes.
    """
    if contour_mask.shape != annotated_mask.shape:
        raise ValueError(f'masks must have one shape, got {contour_mask.shape} and {annotated_mask.shape}')
    both = int(np.count_nonzero(contour_mask & annotated_mask))
    either = int(np.count_nonzero(contour_mask | annotated_mask))
    annotated = int(np.count_nonzero(annotated_mask))
    return Coverage(
        inside=both / annotated if annotated else float('nan'), iou=both / either if either else float('nan')
    )

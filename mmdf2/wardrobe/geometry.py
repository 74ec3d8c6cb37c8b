"""Points, curves and affine maps of the drawing. Scene coordinates are centimetres, x to the image's right, y down."""

import cv2
import numpy as np


def affine(scale=1.0, angle=0.0, move=(0.0, 0.0), stretch=1.0) -> np.ndarray:
    """Makes a (2, 3) map: scale (``stretch`` times as much along x), rotate by ``angle`` radians, then move."""
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    return np.array([[cos * stretch, -sin, move[0]], [sin * stretch, cos, move[1]]], dtype=np.float64)


def apply(matrix: np.ndarray, points) -> np.ndarray:
    """Maps (P, 2) points by a (2, 3) matrix."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Combines two (2, 3) maps into one that applies ``inner`` first."""
    return np.concatenate([outer[:, :2] @ inner[:, :2], (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]], axis=1)


def scale_of(matrix: np.ndarray) -> float:
    """Mean length scale of a (2, 3) map."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def spline(points, samples=5) -> np.ndarray:
    """Draws an open Catmull-Rom curve through (P, 2) points and both ends, with ``samples`` steps per span."""
    points = np.asarray(points, dtype=np.float64)
    if len(points) < 3:
        return points
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, start, end, after = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = (np.arange(samples) / samples)[None, :, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


def along(points, fractions) -> np.ndarray:
    """Finds the (F, 2) points at given fractions (0 to 1) of a polyline's length."""
    points = np.asarray(points, dtype=np.float64)
    steps = np.hypot(*np.diff(points, axis=0).T)
    position = np.concatenate([[0.0], np.cumsum(steps)])
    where = np.atleast_1d(fractions) * position[-1]
    return np.stack([np.interp(where, position, points[:, axis]) for axis in (0, 1)], axis=1)


def ellipse(center, radii, angle=0.0, samples=24) -> np.ndarray:
    """Draws the (samples, 2) outline of an ellipse that is rotated by ``angle`` radians."""
    t = np.linspace(0, 2 * np.pi, samples, endpoint=False)
    return apply(affine(1.0, angle, center), np.stack([np.cos(t) * radii[0], np.sin(t) * radii[1]], axis=1))


def hull(points) -> np.ndarray:
    """Finds the (H, 2) convex hull of points."""
    return cv2.convexHull(np.asarray(points, dtype=np.float32))[:, 0].astype(np.float64)


def band(center_line, half_widths) -> tuple[np.ndarray, np.ndarray]:
    """Finds both edges of a strip of varying width along a polyline.

    Args:
        center_line: (P, 2) points of the polyline.
        half_widths: Half of the strip's width at each point, (P,), or one number for all.

    Returns:
        Two (P, 2) edges. The first lies on the side of (dy, -dx), where d is the direction of the line.
    """
    center_line = np.asarray(center_line, dtype=np.float64)
    direction = np.gradient(center_line, axis=0)
    direction /= np.maximum(np.hypot(*direction.T), 1e-9)[:, None]
    normal = np.stack([direction[:, 1], -direction[:, 0]], axis=1)
    offset = normal * np.broadcast_to(half_widths, len(center_line))[:, None]
    return center_line + offset, center_line - offset


def polygon_of(edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Joins two edges that run in the same direction into a closed outline."""
    return np.concatenate([edges[0], edges[1][::-1]])

"""Boxes, masks and landmarks drawn on images: pure functions from arrays to a new image.

Images are (H, W, 3) uint8 RGB. Lines, points and letters grow with the image, so that pictures of 200 and of 2,000
pixels are equally easy to read. Everything is clipped to the image.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS, NUM_CATEGORIES, PALETTE, RGB, Visibility
from mmdf2.datasets.annotation import Item

# The colours that tell right from wrong; those of the categories are in ``mmdf2.categories``.
RIGHT: RGB = (24, 170, 70)
WRONG: RGB = (220, 44, 44)
NEUTRAL: RGB = (110, 110, 110)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Fixed-point bits of coordinates given to OpenCV: a sixteenth of a pixel.
_SHIFT = 4
# OpenCV's fixed-point coordinates overflow beyond this, which is far outside any image.
_FARTHEST = 100_000


def draw_instances(
    image: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    landmarks: np.ndarray | None = None,
    visibility: np.ndarray | None = None,
) -> np.ndarray:
    """Draws everything that is known about the garments of an image, smaller garments above larger ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (n,) 0-based class labels.
        boxes: (n, 4) x1, y1, x2, y2 in pixels.
        scores: (n,) scores, which are shown beside the category's name.
        masks: (n, H, W) bool.
        landmarks: (n, >= 39, 2) x, y in pixels, category-local.
        visibility: (n, >= 39) per landmark 2 (drawn filled), 1 (drawn hollow) or 0 (not drawn); None draws all
            landmarks filled.

    Returns:
        A new image of the same size.

    Raises:
        ValueError: An array has another shape, a label lies outside 0 to 12, or a coordinate is not finite.
    """
    image, labels = _checked_image(image), _checked_labels(labels)
    boxes = None if boxes is None else _checked('boxes', boxes, (len(labels), 4))
    order = np.arange(len(labels))
    if boxes is not None:
        order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind='stable')
    if masks is not None:
        image = draw_masks(image, np.asarray(masks)[order], labels[order])
    if landmarks is not None:
        visibility = None if visibility is None else np.asarray(visibility)[order]
        image = draw_landmarks(image, np.asarray(landmarks)[order], labels[order], visibility)
    if boxes is not None:
        captions = [CATEGORIES[label].name for label in labels]
        if scores is not None:
            captions = [f'{caption} {score:.2f}' for caption, score in zip(captions, scores, strict=True)]
        image = draw_boxes(image, boxes[order], labels[order], [captions[index] for index in order])
    return image


def draw_items(image: np.ndarray, items: Sequence[Item]) -> np.ndarray:
    """Draws boxes, masks and landmarks of annotated items, as :func:`draw_instances` draws those of a model.

    Args:
        image: (H, W, 3) uint8 RGB.
        items: The items of that image, in its pixels; occluded landmarks are drawn hollow.

    Returns:
        A new image of the same size.
    """
    landmarks = np.zeros((len(items), MAX_LANDMARKS, 3))
    masks = np.zeros((len(items), *image.shape[:2]), dtype=np.uint8)
    for row, item in enumerate(items):
        landmarks[row, : len(item.landmarks)] = item.landmarks
        polygons = [np.round(polygon).astype(np.int32) for polygon in item.segmentation]
        cv2.fillPoly(masks[row], polygons, 1)
    return draw_instances(
        image,
        labels=np.array([item.category_id - 1 for item in items], dtype=np.int64),
        boxes=np.array([item.bbox for item in items], dtype=np.float64).reshape(-1, 4),
        masks=masks.astype(bool),
        landmarks=landmarks[..., :2],
        visibility=landmarks[..., 2].astype(np.uint8),
    )


def draw_masks(image: np.ndarray, masks: np.ndarray, labels: np.ndarray, alpha: float = 0.4) -> np.ndarray:
    """Draws masks as a tint in the category's colour with a thin outline.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (n, H, W) bool.
        labels: (n,) 0-based class labels.
        alpha: Weight of the colour, 0 to 1.

    Returns:
        A new image of the same size.

    Raises:
        ValueError: An array has another shape, or a label lies outside 0 to 12.
    """
    image, labels = _checked_image(image).copy(), _checked_labels(labels)
    masks = np.asarray(masks, dtype=bool)
    if masks.shape != (len(labels), *image.shape[:2]):
        raise ValueError(f'masks must be (n, H, W) = {(len(labels), *image.shape[:2])}, got {masks.shape}')
    for mask, label in zip(masks, labels, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside, colour = mask[window], np.array(PALETTE[label])
        patch = image[window]
        patch[inside] = np.round(patch[inside] * (1 - alpha) + colour * alpha).astype(np.uint8)
        contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        outline = np.zeros(inside.shape, np.uint8)
        cv2.drawContours(outline, contours, -1, 1, line_width(image.shape))
        # A contour that is wider than a pixel also grows outwards, over other garments.
        patch[(outline > 0) & inside] = colour
    return image


def draw_landmarks(
    image: np.ndarray, landmarks: np.ndarray, labels: np.ndarray, visibility: np.ndarray | None = None
) -> np.ndarray:
    """Draws landmarks and the lines of their category's skeleton: visible landmarks filled, occluded ones hollow.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (n, >= 39, 2) x, y in pixels, category-local; columns beyond the category's own are not read.
        labels: (n,) 0-based class labels.
        visibility: (n, >= 39) per landmark 2 (visible), 1 (occluded) or 0 (not drawn); None means all visible.

    Returns:
        A new image of the same size.

    Raises:
        ValueError: An array has another shape, a label lies outside 0 to 12, or a coordinate is not finite.
    """
    image, labels = _checked_image(image).copy(), _checked_labels(labels)
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.ndim != 3 or len(landmarks) != len(labels) or landmarks.shape[2] != 2:
        raise ValueError(f'landmarks must be (n, 39, 2) with n = {len(labels)}, got {landmarks.shape}')
    if visibility is None:
        visibility = np.full(landmarks.shape[:2], 2)
    visibility = np.asarray(visibility)
    if visibility.shape != landmarks.shape[:2]:
        raise ValueError(f'visibility must be {landmarks.shape[:2]} as landmarks are, got {visibility.shape}')
    for points, flags, label in zip(landmarks, visibility, labels, strict=True):
        count = CATEGORIES[label].num_landmarks
        if len(points) < count:
            raise ValueError(f"'{CATEGORIES[label].name}' has {count} landmarks, got {len(points)} columns")
        _draw_skeleton(image, points[:count], flags[:count], label)
    return image


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, captions: Sequence[str] | None = None
) -> np.ndarray:
    """Draws boxes in their category's colour; where there is room, a caption covers no earlier caption.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) x1, y1, x2, y2 in pixels; may reach beyond the image.
        labels: (n,) 0-based class labels.
        captions: One text per box; none are drawn by default.

    Returns:
        A new image of the same size.

    Raises:
        ValueError: An array has another shape, a label lies outside 0 to 12, a coordinate is not finite, or there are
            more or fewer captions than boxes.
    """
    image, labels = _checked_image(image).copy(), _checked_labels(labels)
    boxes = _checked('boxes', boxes, (len(labels), 4))
    width = line_width(image.shape)
    for box, label in zip(boxes, labels, strict=True):
        corners = np.round(np.clip(box, -_FARTHEST, _FARTHEST)).astype(int).reshape(2, 2).tolist()
        cv2.rectangle(image, corners[0], corners[1], PALETTE[label], width)
    taken: list[tuple[int, int, int, int]] = []
    for box, label, caption in zip(boxes, labels, captions or (), strict=bool(captions)):
        taken.append(_draw_caption(image, caption, box, PALETTE[label], taken))
    return image


def draw_text(image: np.ndarray, text: str, corner: tuple[int, int], colour: RGB, height: int) -> None:
    """Writes ``text`` into ``image`` itself.

    Args:
        image: (H, W, 3) uint8 RGB.
        text: What to write.
        corner: x and y of the top left corner of the text.
        colour: Colour of the letters.
        height: Height of a capital letter in pixels.
    """
    scale, weight = _font(height)
    (_, letters), _ = cv2.getTextSize(text, _FONT, scale, weight)
    cv2.putText(image, text, (corner[0], corner[1] + letters), _FONT, scale, colour, weight, cv2.LINE_AA)


def text_size(text: str, height: int) -> tuple[int, int]:
    """Width and height in pixels of ``text`` whose capital letters are ``height`` pixels high, descenders included."""
    scale, weight = _font(height)
    (width, letters), baseline = cv2.getTextSize(text, _FONT, scale, weight)
    return width, letters + baseline


def line_width(shape: Sequence[int]) -> int:
    """Width in pixels of a line on an image of ``shape`` (H, W, ...).

    A diagonal of less than 675 pixels gives 1, of 900 pixels 2, of 1,350 pixels 3.
    """
    return max(1, round(float(np.hypot(shape[0], shape[1])) / 450))


def letter_height(shape: Sequence[int]) -> int:
    """Height in pixels of a capital letter on an image of ``shape`` (H, W, ...).

    Images with a diagonal of up to 600 pixels give 7, a diagonal of 1,000 pixels gives 12.
    """
    return max(7, round(float(np.hypot(shape[0], shape[1])) / 85))


def _font(height: int) -> tuple[float, int]:
    """Scale and line width of the font whose capital letters are ``height`` pixels high."""
    # The capitals of the Hershey font are 22 units high at scale 1.
    return height / 22, max(1, round(height / 9))


def _draw_skeleton(image: np.ndarray, points: np.ndarray, flags: np.ndarray, label: int) -> None:
    """Draws the (K, 2) landmarks of one garment, with visibility (K,), into the image itself."""
    drawn = flags > 0
    if not np.isfinite(points[drawn]).all():
        raise ValueError(f"landmarks of a '{CATEGORIES[label].name}' must be finite where they are drawn, got {points}")
    colour, width = PALETTE[label], line_width(image.shape)
    fixed = _fixed_point(np.where(drawn[:, None], points, 0))
    for first, second in CATEGORIES[label].skeleton:
        if drawn[first] and drawn[second]:
            cv2.line(image, fixed[first], fixed[second], colour, width, cv2.LINE_AA, _SHIFT)
    radius = round((1.4 + 1.4 * width) * (1 << _SHIFT))
    for point, flag in zip(fixed, flags, strict=True):
        if flag == 0:
            continue
        # A white rim sets a point off from a garment of the same colour.
        cv2.circle(image, point, radius + (width << _SHIFT) // 2, (255, 255, 255), -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(
            image, point, radius, colour, -1 if flag == Visibility.VISIBLE else max(1, width - 1), cv2.LINE_AA, _SHIFT
        )


def _draw_caption(
    image: np.ndarray, caption: str, box: np.ndarray, colour: RGB, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    """Writes a caption beside its box, away from the rectangles that are taken; returns its own x, y, width, height."""
    height, width = image.shape[:2]
    letters = letter_height(image.shape)
    margin = max(2, letters // 4)
    text_width, text_height = text_size(caption, letters)
    w, h = text_width + 2 * margin, text_height + margin
    left = int(np.clip(box[0], 0, max(0, width - w)))
    tops = [box[1] - h, box[1], box[3], box[3] - h, box[1] + h, box[1] + 2 * h]
    places = [(left, round(np.clip(top, 0, max(0, height - h)))) for top in tops]
    x, y = next((place for place in places if not any(_overlap((*place, w, h), other) for other in taken)), places[0])
    image[y : y + h, x : x + w] = colour
    dark = np.dot(colour, (0.299, 0.587, 0.114)) > 140
    draw_text(image, caption, (x + margin, y + margin), (0, 0, 0) if dark else (255, 255, 255), letters)
    return x, y, w, h


def _overlap(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether two rectangles x, y, width, height have a pixel in common."""
    return all(
        first[axis] < second[axis] + second[axis + 2] and second[axis] < first[axis] + first[axis + 2]
        for axis in (0, 1)
    )


def _fixed_point(points: np.ndarray) -> list[tuple[int, int]]:
    """Points as OpenCV takes them when coordinates have ``_SHIFT`` fractional bits."""
    clipped = np.clip(points, -_FARTHEST, _FARTHEST)
    return [tuple(point) for point in np.round(clipped * (1 << _SHIFT)).astype(int).tolist()]


def _checked_image(image: ArrayLike) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f'image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}')
    return np.ascontiguousarray(image)


def _checked_labels(labels: ArrayLike) -> np.ndarray:
    labels = np.asarray(labels, dtype=np.int64)
    if labels.ndim != 1 or ((labels < 0) | (labels >= NUM_CATEGORIES)).any():
        raise ValueError(f'labels must be (n,) of 0 to {NUM_CATEGORIES - 1}, got {labels}')
    return labels


def _checked(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != shape:
        raise ValueError(f'{name} must be {shape}, got {values.shape}')
    if not np.isfinite(values).all():
        raise ValueError(f'{name} must be finite, got {values}')
    return values

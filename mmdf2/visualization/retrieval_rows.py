"""Retrieval results as one picture: a row per query, first the query, then its hits.

Right hits have a green frame, wrong ones a red frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmdf2.categories import RGB
from mmdf2.images import read_image
from mmdf2.visualization.drawing import NEUTRAL, RIGHT, WRONG, draw_text, letter_height, text_size

_BACKGROUND = (255, 255, 255)
_INK = (40, 40, 40)
_EMPTY = (238, 238, 238)


@dataclass(frozen=True)
class RetrievalRow:
    """One query and what was found for it.

    Attributes:
        image: The query's image: a path, or (H, W, 3) uint8 RGB.
        box: (4,) x1, y1, x2, y2 of the query in its image, or None for the whole image.
        hit_images: The images of the k hits, best hit first; each a path, or (H, W, 3) uint8 RGB.
        hit_boxes: (k, 4) x1, y1, x2, y2 of the hits in their images.
        correct: (k,) bool, whether each hit is the query's garment; None when this is not known.
        scores: (k,) similarities of the hits; with None only their ranks are shown.
        title: Text below the query.
        probabilities: (k,) probability of each hit that it is the query's garment; None when this is not known.
    """

    image: str | Path | np.ndarray
    box: Sequence[float] | np.ndarray | None
    hit_images: Sequence[str | Path | np.ndarray]
    hit_boxes: Sequence[Sequence[float]] | np.ndarray
    correct: Sequence[bool] | np.ndarray | None
    scores: Sequence[float] | np.ndarray | None = None
    title: str = 'query'
    probabilities: Sequence[float] | np.ndarray | None = None


def draw_retrieval_rows(rows: Sequence[RetrievalRow], cell: int = 180, context: float | None = 0.2) -> np.ndarray:
    """Draws several queries with their hits as one picture.

    Args:
        rows: At least one query; the row of a query without hits (it was not detected) says so.
        cell: Side in pixels of the square cell that shows a garment, 48 or more.
        context: Width of the surroundings shown on each side of a box, as a share of its longer side; None shows the
            whole image with the box drawn on it.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: There are no rows, the cell is too small, or a row's hits, boxes, flags and scores differ in number.
        OSError: An image cannot be read.
    """
    if not rows:
        raise ValueError('rows must hold at least one query, got none')
    if cell < 48:
        raise ValueError(f'cell must be 48 pixels or more, got {cell}')
    for row in rows:
        _check(row)
    frame = max(2, cell // 36)
    step = cell + 4 * frame
    caption = 3 * letter_height((cell * 2, cell * 2))
    hits = max(1, *(len(row.hit_images) for row in rows))
    # A small gap separates the query from its hits.
    gap = step // 6
    sheet = np.full((len(rows) * (step + caption), (1 + hits) * step + gap, 3), _BACKGROUND, np.uint8)
    for index, row in enumerate(rows):
        top = index * (step + caption)
        _draw_cell(sheet, (0, top), cell, frame, _view(row.image, row.box, cell, context, NEUTRAL), NEUTRAL, row.title)
        left = step + gap
        if not len(row.hit_images):
            blank = np.full((cell, cell, 3), _EMPTY, np.uint8)
            _draw_cell(sheet, (left, top), cell, frame, blank, WRONG, 'not found')
        colours = _colours(row)
        for rank, (image, box, colour) in enumerate(zip(row.hit_images, row.hit_boxes, colours, strict=True)):
            text = f'{rank + 1}' if row.scores is None else f'{rank + 1}: {row.scores[rank]:.2f}'
            if row.probabilities is not None:
                text += f' ({row.probabilities[rank]:.0%})'
            view = _view(image, box, cell, context, colour)
            _draw_cell(sheet, (left + rank * step, top), cell, frame, view, colour, text)
    return sheet


def crop_box(image: np.ndarray, box: Sequence[float] | np.ndarray, context: float) -> np.ndarray:
    """The part of an image around a box: a square where the image has room for it, cut at the image's borders.

    Args:
        image: (H, W, ...).
        box: (4,) x1, y1, x2, y2 in pixels; it is clipped to the image.
        context: Width of the surroundings on each side, as a share of the box's longer side.

    Returns:
        A view, at least one pixel wide and high.
    """
    height, width = image.shape[:2]
    x1, x2 = np.clip((box[0], box[2]), 0, width)
    y1, y2 = np.clip((box[1], box[3]), 0, height)
    half = max(x2 - x1, y2 - y1) * (0.5 + context)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    left, right = int(max(0, x - half)), int(min(width, np.ceil(x + half)))
    top, bottom = int(max(0, y - half)), int(min(height, np.ceil(y + half)))
    left, top = min(left, width - 1), min(top, height - 1)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


def _view(
    image: str | Path | np.ndarray,
    box: Sequence[float] | np.ndarray | None,
    cell: int,
    context: float | None,
    colour: RGB,
) -> np.ndarray:
    """(cell, cell, 3) picture of a garment, fitted into its cell."""
    pixels = image if isinstance(image, np.ndarray) else read_image(image)
    if box is not None and context is not None:
        pixels = crop_box(pixels, box, context)
    scale = cell / max(pixels.shape[:2])
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    fitted = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if box is not None and context is None:
        corners = np.round(np.clip(np.array(box, float) * scale, -cell, 2 * cell)).astype(int).tolist()
        cv2.rectangle(fitted, corners[:2], corners[2:], colour, max(1, cell // 90))
    view = np.full((cell, cell, 3), _EMPTY, np.uint8)
    top, left = (cell - fitted.shape[0]) // 2, (cell - fitted.shape[1]) // 2
    view[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return view


def _draw_cell(
    sheet: np.ndarray, corner: tuple[int, int], cell: int, frame: int, view: np.ndarray, colour: RGB, text: str
) -> None:
    """Puts a garment's picture with its frame and the text below it into the sheet, its top left at ``corner``."""
    x, y = corner[0] + frame, corner[1] + frame
    sheet[y : y + cell + 2 * frame, x : x + cell + 2 * frame] = colour
    sheet[y + frame : y + frame + cell, x + frame : x + frame + cell] = view
    letters = letter_height((cell * 2, cell * 2))
    width = text_size(text, letters)[0]
    left = x + max(0, (cell + 2 * frame - width) // 2)
    draw_text(sheet, text, (left, y + cell + 3 * frame), _INK, letters)


def _colours(row: RetrievalRow) -> list[RGB]:
    """The colour of each hit's frame."""
    if row.correct is None:
        return [NEUTRAL] * len(row.hit_images)
    return [RIGHT if correct else WRONG for correct in row.correct]


def _check(row: RetrievalRow) -> None:
    """Raises ValueError unless everything that a row says about its hits is as long as its list of hits."""
    count = len(row.hit_images)
    lengths = {'hit_boxes': len(row.hit_boxes)}
    if row.correct is not None:
        lengths['correct'] = len(row.correct)
    if row.scores is not None:
        lengths['scores'] = len(row.scores)
    if row.probabilities is not None:
        lengths['probabilities'] = len(row.probabilities)
    for name, length in lengths.items():
        if length != count:
            raise ValueError(f"a row's {name} must be as many as its hit_images, {count}, got {length}")

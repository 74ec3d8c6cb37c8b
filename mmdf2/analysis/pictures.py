"""The worst failures of each kind: which they are, and pictures of them with ground truth and prediction drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask as mask_utils

from mmdf2.analysis.detection_errors import BACKGROUND, BOTH, CATEGORY, DUPLICATE, MISSED, POSITION, DetectionErrors
from mmdf2.analysis.error_report import ErrorReport
from mmdf2.analysis.landmark_errors import LandmarkErrors
from mmdf2.analysis.page import figure, paragraph, sheet
from mmdf2.analysis.retrieval_errors import RetrievalErrors, image_names, right_hits
from mmdf2.categories import CATEGORIES, CATEGORY_NAMES, RGB, Source
from mmdf2.datasets.store import Store
from mmdf2.evaluation.records import Detections, GroundTruth
from mmdf2.evaluation.retrieval import RetrievedLists
from mmdf2.evaluation.truth import retrieval_items
from mmdf2.images import read_image
from mmdf2.visualization.drawing import RIGHT, WRONG
from mmdf2.visualization.retrieval_rows import RetrievalRow, crop_box, draw_retrieval_rows

# Pixels of the longer side of a picture.
CELL = 300
# Hits that the picture of a query shows.
SHOWN_HITS = 8


@dataclass(frozen=True)
class Case:
    """One failure.

    Attributes:
        image_id: Number of the image.
        item: Row of the item in the ground truth, -1 for none.
        detection: Row of the detection among those that are kept, -1 for none.
        text: What is wrong, in words.
    """

    image_id: int
    item: int
    detection: int
    text: str


def worst_detections(
    truth: GroundTruth, detections: Detections, errors: DetectionErrors, kind: int, limit: int
) -> list[Case]:
    """The ``limit`` best-scored detections of a kind; of equal scores the first."""
    rows = np.flatnonzero(errors.kinds == kind)
    rows = rows[np.argsort(-detections.scores[rows], kind='stable')][:limit]
    return [
        Case(
            image_id=int(detections.image_ids[row]),
            item=int(errors.items[row]),
            detection=row,
            text=_detection_text(truth, detections, errors, row),
        )
        for row in rows.tolist()
    ]


def largest_missed(truth: GroundTruth, errors: DetectionErrors, limit: int) -> list[Case]:
    """The ``limit`` missed items with the largest boxes."""
    rows = np.flatnonzero(errors.outcomes == MISSED)
    rows = rows[np.argsort(-truth.boxes[rows, 2:].prod(axis=1), kind='stable')][:limit]
    return [
        Case(
            image_id=int(truth.item_image_ids[row]),
            item=row,
            detection=-1,
            text=f'{_name(truth, row)}: no detection of it',
        )
        for row in rows.tolist()
    ]


def worst_landmarks(truth: GroundTruth, errors: LandmarkErrors, limit: int) -> list[Case]:
    """The ``limit`` items with the smallest OKS among those that a detection represents."""
    rows = np.flatnonzero(errors.poor)
    rows = rows[np.argsort(errors.oks[rows], kind='stable')][:limit]
    return [
        Case(
            image_id=int(truth.item_image_ids[row]),
            item=row,
            detection=int(errors.found_by[row]),
            text=f'{_name(truth, row)}: OKS {errors.oks[row]:.2f}, worst landmark {errors.worst[row] + 1} '
            f'({errors.distances[row, errors.worst[row]]:.0f} pixels off)',
        )
        for row in rows.tolist()
    ]


def cases_of(report: ErrorReport, limit: int) -> dict[str, tuple[str, list[Case]]]:
    """The worst cases of every kind of failure that occurs.

    Returns:
        Title of the kind of failure -> the kind of result file that shows it ('bbox', 'segm' or 'keypoints'), and its
        ``limit`` worst cases.
    """
    found = {}
    truth = report.truth
    for kind, errors in (('bbox', report.boxes), ('segm', report.masks)):
        if errors is None or (kind == 'segm' and report.boxes is not None):
            continue
        detections = report.detections[kind]
        found['Missed, the largest first'] = kind, largest_missed(truth, errors, limit)
        names = {CATEGORY: 'Wrong category', POSITION: 'Poor box', BOTH: 'Wrong category and poor box'}
        for number, title in {**names, DUPLICATE: 'Duplicate', BACKGROUND: 'Background'}.items():
            cases = worst_detections(truth, detections, errors, number, limit)
            found[f'{title}, the best-scored first'] = kind, cases
    if report.masks is not None:
        cases = worst_detections(truth, report.detections['segm'], report.masks, POSITION, limit)
        found['Poor mask, the best-scored first'] = 'segm', cases
    if report.landmarks is not None:
        found['Poor landmarks, the least OKS first'] = 'keypoints', worst_landmarks(truth, report.landmarks, limit)
    return {title: entry for title, entry in found.items() if entry[1]}


def case_figures(report: ErrorReport, kind: str, cases: Sequence[Case], images: Path, names: Mapping[int, str]) -> str:
    """A grid of pictures of the cases; a note stands in the place of a picture whose image cannot be read.

    Args:
        report: The report that the cases are from.
        kind: The kind of result file that the cases are from.
        cases: The failures.
        images: Folder of the images.
        names: Number of each image -> its file name.
    """
    figures = []
    for case in cases:
        name = names[case.image_id]
        try:
            image = read_image(images / name)
        except OSError as error:
            figures.append(paragraph(f'{name}: {case.text}; no picture: {error}', note=True))
            continue
        figures.append(figure(draw_case(image, report, kind, case), f'{case.text}\n{name}'))
    return sheet(figures)


def wrong_identity_figures(
    errors: RetrievalErrors, lists: RetrievedLists, store: Store, images: Path, limit: int
) -> list[str]:
    """Pictures of the best-scored queries of wrong identity, each with its first hits.

    Args:
        errors: What became of the queries.
        lists: The retrieved lists.
        store: The store of the split.
        images: Folder of the images.
        limit: Pictures at most.
    """
    wrong = np.flatnonzero(errors.wrong)
    wrong = wrong[np.argsort(-lists.scores[errors.lists[wrong]], kind='stable')][:limit]
    names = image_names(store)
    gallery = retrieval_items(store, Source.SHOP)
    figures = []
    for query in wrong.tolist():
        entry = int(errors.lists[query])
        ids, boxes = (hits[:SHOWN_HITS] for hits in lists.hits(entry))
        file = names[int(lists.image_ids[entry])]
        category = CATEGORY_NAMES[lists.labels[entry]]
        text = f'{file}: {category} {lists.scores[entry]:.2f}, '
        text += f'{errors.outcome.matches[query]} matching items in the gallery'
        unknown = [int(i) for i in ids.tolist() if int(i) not in names]
        if unknown:
            figures.append(paragraph(f'{text}; no picture: image {unknown[0]} is not in the store', note=True))
            continue
        line = RetrievalRow(
            image=images / file,
            box=lists.boxes[entry],
            hit_images=[images / names[int(i)] for i in ids],
            hit_boxes=boxes,
            correct=right_hits(gallery, ids, boxes, int(errors.identities[query])),
        )
        try:
            figures.append(figure(draw_retrieval_rows([line], cell=110), text))
        except OSError as error:
            figures.append(paragraph(f'{text}; no picture: {error}', note=True))
    return figures


def closeup(
    image: np.ndarray, box: Sequence[float] | np.ndarray, context: float, longer_side: int
) -> tuple[np.ndarray, Callable[[ArrayLike], np.ndarray]]:
    """Cuts out a box with its surroundings, enlarged or reduced to be drawn on.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) x1, y1, x2, y2 in pixels.
        context: Width of the surroundings on every side, as a share of the longer side of the box.
        longer_side: Pixels of the longer side of the result.

    Returns:
        A new image, and a function from (..., 2) points x, y of the photo to points of the new image.
    """
    height, width = image.shape[:2]
    # The same crop of an array that holds the pixels' numbers tells where the crop begins.
    start = int(crop_box(np.arange(height * width).reshape(height, width), box, context)[0, 0])
    crop = crop_box(image, box, context)
    scale = longer_side / max(crop.shape[:2])
    size = [max(1, round(side * scale)) for side in crop.shape[1::-1]]
    canvas = cv2.resize(crop, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    move = np.array([start % width, start // width])
    return canvas, lambda points: (np.asarray(points, dtype=np.float64) - move) * scale


def pixels(points: ArrayLike) -> np.ndarray:
    """Points rounded to pixels, and clipped to coordinates that OpenCV can draw."""
    return np.round(np.clip(points, -20_000, 20_000)).astype(np.int32)


def draw_case(image: np.ndarray, report: ErrorReport, kind: str, case: Case) -> np.ndarray:
    """Draws the surroundings of a failure, the ground truth in green and the prediction in red.

    Args:
        image: (H, W, 3) uint8 RGB.
        report: The report that the case is from.
        kind: The kind of result file that the case is from: 'bbox' draws boxes, 'segm' the outlines of masks,
            'keypoints' landmarks.
        case: The failure.

    Returns:
        A new image whose longer side is ``CELL`` pixels.
    """
    detections, truth = report.detections[kind], report.truth
    marks = []
    if case.item >= 0:
        marks.append(truth.boxes[case.item])
    if case.detection >= 0:
        marks.append(detections.boxes[case.detection])
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in marks])
    around = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
    # Where there is no item, the surroundings explain more than the box itself.
    canvas, to_canvas = closeup(image, around, 0.08 if case.item >= 0 else 0.8, CELL)
    if kind == 'keypoints':
        _draw_landmarks(canvas, to_canvas, report, case)
        return canvas
    for row, box_of, masks, colour in (
        (case.item, truth.boxes, truth.masks, RIGHT),
        (case.detection, detections.boxes, detections.masks, WRONG),
    ):
        if row >= 0:
            _draw_outline(canvas, to_canvas, box_of[row], masks[row] if kind == 'segm' else None, colour)
    return canvas


def _draw_outline(
    canvas: np.ndarray, to_canvas: Callable[[ArrayLike], np.ndarray], box: np.ndarray, mask: dict | None, colour: RGB
) -> None:
    """Draws the outline of a mask (run lengths), or without one of a box (x, y, width, height), into the canvas."""
    if mask is None:
        lines = [to_canvas([[box[0], box[1]], [box[0] + box[2], box[1]], box[:2] + box[2:], [box[0], box[1] + box[3]]])]
    else:
        outlines, _ = cv2.findContours(mask_utils.decode(mask), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        lines = [to_canvas(outline[:, 0] + 0.5) for outline in outlines]
    for shade, width in (((255, 255, 255), 4), (colour, 2)):
        cv2.polylines(canvas, [pixels(line) for line in lines], True, shade, width, cv2.LINE_AA)


def _draw_landmarks(
    canvas: np.ndarray, to_canvas: Callable[[ArrayLike], np.ndarray], report: ErrorReport, case: Case
) -> None:
    """Draws into the canvas the labelled landmarks of an item, the detected ones, and a ring around the worst."""
    truth, label = report.truth.landmarks[case.item], int(report.truth.labels[case.item])
    points = report.detections['keypoints'].landmarks[case.detection]
    kept = np.flatnonzero(truth[: CATEGORIES[label].num_landmarks, 2] > 0)
    wanted, found = pixels(to_canvas(truth[:, :2])), pixels(to_canvas(points))
    for place in kept:
        cv2.line(canvas, wanted[place].tolist(), found[place].tolist(), (255, 255, 255), 2, cv2.LINE_AA)
        cv2.line(canvas, wanted[place].tolist(), found[place].tolist(), WRONG, 1, cv2.LINE_AA)
    for place in kept:
        for point, colour in ((found[place], WRONG), (wanted[place], RIGHT)):
            cv2.circle(canvas, point.tolist(), 4, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(canvas, point.tolist(), 3, colour, -1, cv2.LINE_AA)
    worst = int(report.landmarks.worst[case.item])
    cv2.circle(canvas, wanted[worst].tolist(), 8, RIGHT, 2, cv2.LINE_AA)


def _detection_text(truth: GroundTruth, detections: Detections, errors: DetectionErrors, row: int) -> str:
    """What a detection is, and which item it means."""
    name = f'{CATEGORY_NAMES[detections.labels[row]]} {detections.scores[row]:.2f}'
    item = int(errors.items[row])
    return f'{name}: on no item' if item < 0 else f'{name}: IoU {errors.overlaps[row]:.2f} with {_name(truth, item)}'


def _name(truth: GroundTruth, row: int) -> str:
    """The category of an item."""
    return CATEGORY_NAMES[truth.labels[row]]

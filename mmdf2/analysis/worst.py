"""The worst of each kind of failure: which they are, and their pictures with the truth and the prediction drawn."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from mmdf2.analysis.closeup import closeup, pixels
from mmdf2.analysis.detection_errors import BACKGROUND, BOTH, CATEGORY, DUPLICATE, MISSED, POSITION, DetectionErrors
from mmdf2.analysis.error_report import ErrorReport
from mmdf2.analysis.page import figure, paragraph, sheet
from mmdf2.categories import CATEGORIES, CATEGORY_NAMES, RGB
from mmdf2.evaluation.records import Detections, GroundTruth
from mmdf2.images import read_image
from mmdf2.visualization.palette import RIGHT, WRONG

CELL = 300  # pixels, the longer side of a picture


@dataclass(frozen=True)
class Case:
    """One failure.

    Attributes:
        image_id: Where it is.
        item: Row of the item, -1 for none.
        detection: Row of the detection among those kept, -1 for none.
        text: What is wrong.
    """

    image_id: int
    item: int
    detection: int
    text: str


def worst_detections(truth: GroundTruth, detections: Detections, errors: DetectionErrors, kind: int, limit: int):
    """The best-scored detections of a kind, as cases; of equal scores the first."""
    rows = np.flatnonzero(errors.kinds == kind)
    rows = rows[np.argsort(-detections.scores[rows], kind='stable')][:limit]
    return [
        Case(
            int(detections.image_ids[row]), int(errors.items[row]), row, _detection_text(truth, detections, errors, row)
        )
        for row in rows.tolist()
    ]


def largest_missed(truth: GroundTruth, errors: DetectionErrors, limit: int) -> list[Case]:
    """The missed items of the largest boxes, as cases."""
    rows = np.flatnonzero(errors.outcomes == MISSED)
    rows = rows[np.argsort(-truth.boxes[rows, 2:].prod(axis=1), kind='stable')][:limit]
    return [
        Case(int(truth.item_image_ids[row]), row, -1, f'{_name(truth, row)}: no detection of it')
        for row in rows.tolist()
    ]


def worst_landmarks(truth: GroundTruth, report: ErrorReport, limit: int) -> list[Case]:
    """The items of the least OKS that a detection stands for, as cases that name the worst landmark."""
    errors = report.landmarks
    rows = np.flatnonzero(errors.poor)
    rows = rows[np.argsort(errors.oks[rows], kind='stable')][:limit]
    return [
        Case(
            int(truth.item_image_ids[row]),
            row,
            int(errors.found_by[row]),
            f'{_name(truth, row)}: OKS {errors.oks[row]:.2f}, worst landmark {errors.worst[row] + 1} '
            f'({errors.distances[row, errors.worst[row]]:.0f} pixels off)',
        )
        for row in rows.tolist()
    ]


def cases_of(report: ErrorReport, limit: int) -> dict[str, tuple[str, list[Case]]]:
    """Title -> kind of result file and its worst cases, for each kind of failure that occurs."""
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
        found['Poor landmarks, the least OKS first'] = 'keypoints', worst_landmarks(truth, report, limit)
    return {title: entry for title, entry in found.items() if entry[1]}


def case_figures(report: ErrorReport, kind: str, cases: list[Case], images: Path, names: dict[int, str]) -> str:
    """A grid of the cases' pictures; one whose image cannot be read says so in its place.

    Args:
        report: Where the cases are from.
        kind: Of result file.
        cases: The failures.
        images: Folder of the images.
        names: File name of each image by its id.
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


def draw_case(image: np.ndarray, report: ErrorReport, kind: str, case: Case) -> np.ndarray:
    """The surroundings of a failure, the truth in green and the prediction in red; a new image of at most ``CELL``.

    Args:
        image: (H, W, 3) uint8 RGB.
        report: Where the case is from.
        kind: Of result file: boxes, outlines of masks or landmarks are drawn.
        case: The failure.
    """
    detections, truth = report.detections[kind], report.truth
    marks = []
    if case.item >= 0:
        marks.append(truth.boxes[case.item])
    if case.detection >= 0:
        marks.append(detections.boxes[case.detection])
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in marks])
    around = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
    # Where there is no item, what is around says more than the box.
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


def _draw_outline(canvas, to_canvas, box, mask, colour: RGB) -> None:
    if mask is None:
        lines = [to_canvas([[box[0], box[1]], [box[0] + box[2], box[1]], box[:2] + box[2:], [box[0], box[1] + box[3]]])]
    else:
        outlines, _ = cv2.findContours(mask_utils.decode(mask), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        lines = [to_canvas(outline[:, 0] + 0.5) for outline in outlines]
    for shade, width in (((255, 255, 255), 4), (colour, 2)):
        cv2.polylines(canvas, [pixels(line) for line in lines], True, shade, width, cv2.LINE_AA)


def _draw_landmarks(canvas, to_canvas, report: ErrorReport, case: Case) -> None:
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


def _detection_text(truth, detections, errors, row: int) -> str:
    name = f'{CATEGORY_NAMES[detections.labels[row]]} {detections.scores[row]:.2f}'
    item = int(errors.items[row])
    return f'{name}: on no item' if item < 0 else f'{name}: IoU {errors.overlaps[row]:.2f} with {_name(truth, item)}'


def _name(truth: GroundTruth, row: int) -> str:
    return CATEGORY_NAMES[truth.labels[row]]

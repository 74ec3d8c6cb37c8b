"""Precision at 101 recalls from matched detections, and the figures made of it. Source: pycocotools' ``accumulate``."""

from dataclasses import dataclass

import numpy as np

from mmdf2.evaluation.matching import IOU_THRESHOLDS

# COCO's recalls at which precision is read.
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)


def precision_recall(scores, matched, ignored, num_truths: int) -> tuple[np.ndarray, np.ndarray]:
    """The precision curve of one category in one column.

    Args:
        scores: (d,) of detections ordered by image and then by falling score; ties keep that order.
        matched: (t, d) bool, at each threshold.
        ignored: (t, d) bool: matched to an item that does not count.
        num_truths: Items that count.

    Returns:
        (t, 101) the best precision at each recall or a higher one, and (t,) the recall reached. NaN where no item
        counts (pycocotools: -1).
    """
    if num_truths == 0:
        return np.full((len(matched), len(RECALL_THRESHOLDS)), np.nan), np.full(len(matched), np.nan)
    order = np.argsort(-scores, kind='stable')
    true = np.cumsum((matched & ~ignored)[:, order], axis=1, dtype=np.float64)
    false = np.cumsum(~matched[:, order], axis=1, dtype=np.float64)
    recall = true / num_truths
    precision = true / (false + true + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # One column more: precision is 0 at recalls that are never reached.
    envelope = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    places = [np.searchsorted(row, RECALL_THRESHOLDS, side='left') for row in recall]
    reached = recall[:, -1] if len(scores) else np.zeros(len(matched))
    return np.take_along_axis(envelope, np.array(places), axis=1), reached


@dataclass(frozen=True)
class TaskResult:
    """Precision and recall of one task in c columns, over 10 thresholds and 13 categories.

    Attributes:
        columns: Names of the columns, 'overall' or those of ``mmdf2.evaluation.subsets``.
        precision: (c, 10, 101, 13), NaN for a category with nothing to find.
        recall: (c, 10, 13), the recall reached, likewise.
        num_truths: (c, 13) items that count.
    """

    columns: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    num_truths: np.ndarray

    def average_precision(self, column: str = 'overall', iou: float | None = None, label: int | None = None) -> float:
        """AP from 0 to 1: the mean over thresholds (or that at ``iou``), recalls and categories (or of ``label``).

        NaN when nothing counts; ValueError for an unknown column or a threshold that is not one of COCO's ten.
        """
        return _mean(self._select(self.precision, column, iou, label))

    def average_recall(self, column: str = 'overall', label: int | None = None) -> float:
        """AR from 0 to 1: the mean over thresholds and categories (or of ``label``) of the recall reached."""
        return _mean(self._select(self.recall, column, None, label))

    def figures(self, column: str = 'overall', label: int | None = None) -> dict[str, float]:
        """AP, AP50, AP75 and AR of a column, over the categories or of one ``label``."""
        return {
            'AP': self.average_precision(column, label=label),
            'AP50': self.average_precision(column, 0.5, label),
            'AP75': self.average_precision(column, 0.75, label),
            'AR': self.average_recall(column, label),
        }

    def _select(self, values, column, iou, label):
        if column not in self.columns:
            raise ValueError(f'column must be one of {", ".join(self.columns)}, got {column!r}')
        values = values[self.columns.index(column)]
        if iou is not None:
            places = np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou))
            if not len(places):
                raise ValueError(f'iou must be one of {IOU_THRESHOLDS.round(2).tolist()}, got {iou!r}')
            values = values[places]
        return values if label is None else values[..., label]


def _mean(values) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')

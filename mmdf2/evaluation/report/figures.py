"""The report of an evaluation: plain nested dicts, as the JSON file has them.

``report[task][column][figure]``: the tasks are those of ``mmdf2.evaluation.coco``, 'retrieval' (detected boxes),
'retrieval_gt' (ground-truth boxes) and 'verification'; the columns are 'overall' and, where asked for, the subsets of
``mmdf2.evaluation.records``. ``report['categories'][task][column][category name][figure]`` has the same figures for
each category, and ``report['about']`` says what was evaluated. Shares are from 0 to 1, an undefined figure is None.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mmdf2.categories import CATEGORY_NAMES
from mmdf2.evaluation.coco import TaskResult
from mmdf2.evaluation.records import OVERALL, column_members
from mmdf2.evaluation.retrieval import Outcome, RetrievalItems, summarize

ABOUT, CATEGORIES = 'about', 'categories'


def task_figures(result: TaskResult) -> dict[str, dict]:
    """Column -> AP, AP50, AP75, AR and ``items``, the number of items that count."""
    return {column: _of_task(result, column) for column in result.columns}


def task_categories(result: TaskResult) -> dict[str, dict]:
    """Column -> category name -> AP, AP50, AP75, AR and ``items`` of the category alone."""
    return {
        column: {name: _of_task(result, column, label) for label, name in enumerate(CATEGORY_NAMES)}
        for column in result.columns
    }


def retrieval_figures(outcome: Outcome, items: RetrievalItems, columns: Sequence[str]) -> dict[str, dict]:
    """Column -> the figures of ``summarize`` over the queries whose item is in the column.

    Args:
        outcome: The outcome of all queries.
        items: The items of the user images; they need attributes when a subset is asked for.
        columns: Some of ``mmdf2.evaluation.records.COLUMNS``.
    """
    members = _query_members(outcome, items, columns)
    return {column: _of_retrieval(outcome.take(rows)) for column, rows in zip(columns, members, strict=True)}


def retrieval_categories(outcome: Outcome, items: RetrievalItems, columns: Sequence[str]) -> dict[str, dict]:
    """Column -> category name -> the figures of ``summarize`` over the queries whose item is of the category."""
    labels = items.needed_labels()[outcome.queries]
    return {
        column: {
            name: _of_retrieval(outcome.take(rows & (labels == label))) for label, name in enumerate(CATEGORY_NAMES)
        }
        for column, rows in zip(columns, _query_members(outcome, items, columns), strict=True)
    }


def flat_figures(columns: Mapping[str, Mapping], key: str) -> dict[str, float]:
    """The figures of a task in the form of MMEngine's metrics: one flat dict of floats, NaN where undefined.

    Args:
        columns: What ``task_figures`` or ``retrieval_figures`` returned.
        key: Format of the keys with a place for the figure's name, such as 'bbox_{}'. The key of a subset also has the
            ending of ``column_ending``.
    """
    return {
        key.format(name) + column_ending(column): math.nan if value is None else float(value)
        for column, figures in columns.items()
        for name, value in figures.items()
    }


def metric_key(task: str, figure: str) -> str:
    """The key of a figure among MMEngine's metrics: 'bbox_AP', 'keypoints_AP_visible'."""
    stream, _, setting = task.partition('_')
    return f'{stream}_{figure}_{setting}' if setting else f'{stream}_{figure}'


def column_ending(column: str) -> str:
    """The ending of a metric's key: '' for 'overall', '_scale_small' for 'scale/small'.

    It has no slash, because MMEngine puts one between a prefix and a key.
    """
    return '' if column == OVERALL else f'_{column.replace("/", "_")}'


def plain(figures: Mapping[str, float]) -> dict:
    """Figures as JSON can express them: None for NaN and infinity, integers for counts."""
    counts = ('queries', 'paper_queries', 'missed', 'items', 'positives', 'negatives')
    return {
        name: None if not math.isfinite(value) else int(value) if name in counts else float(value)
        for name, value in figures.items()
    }


def _of_task(result: TaskResult, column: str, label: int | None = None) -> dict:
    counts = result.num_truths[result.columns.index(column)]
    return plain({**result.figures(column, label), 'items': counts.sum() if label is None else counts[label]})


def _of_retrieval(outcome: Outcome) -> dict:
    return plain(summarize(outcome))


def _query_members(outcome: Outcome, items: RetrievalItems, columns: Sequence[str]) -> np.ndarray:
    attributes = None if items.attributes is None else items.attributes[outcome.queries]
    return column_members(tuple(columns), len(outcome.queries), attributes)

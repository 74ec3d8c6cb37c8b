"""The report of an evaluation: plain nested dicts, as the JSON file has them.

``report[task][column][figure]``: tasks are those of ``mmdf2.evaluation.evaluator``, 'retrieval' (detected boxes),
'retrieval_gt' (ground-truth boxes) and 'verification'; columns 'overall' and, where asked for, the subsets of
``mmdf2.evaluation.subsets``. ``report['categories'][task][column][category name][figure]`` has the same for each
category, and ``report['about']`` says what was evaluated. Shares are from 0 to 1, an undefined figure is None.
"""

import math

import numpy as np

from mmdf2.categories import CATEGORY_NAMES
from mmdf2.evaluation.accumulate import TaskResult
from mmdf2.evaluation.retrieval import Items, Outcome, summarize
from mmdf2.evaluation.subsets import OVERALL, column_members

ABOUT, CATEGORIES = 'about', 'categories'


def task_figures(result: TaskResult) -> dict[str, dict]:
    """Column -> AP, AP50, AP75, AR and the number of items that count."""
    return {column: _of_task(result, column) for column in result.columns}


def task_categories(result: TaskResult) -> dict[str, dict]:
    """Column -> category -> the same of its items alone."""
    return {
        column: {name: _of_task(result, column, label) for label, name in enumerate(CATEGORY_NAMES)}
        for column in result.columns
    }


def retrieval_figures(outcome: Outcome, items: Items, columns) -> dict[str, dict]:
    """Column -> ``summarize`` of the queries that are in it, by the attributes of the query item.

    Args:
        outcome: Of all queries.
        items: The items of the user images; with attributes when a subset is asked for.
        columns: Of ``mmdf2.evaluation.subsets.COLUMNS``.
    """
    members = _query_members(outcome, items, columns)
    return {column: _of_retrieval(outcome.take(rows)) for column, rows in zip(columns, members, strict=True)}


def retrieval_categories(outcome: Outcome, items: Items, columns) -> dict[str, dict]:
    """Column -> category of the query item -> ``summarize`` of these queries."""
    labels = items.labels[outcome.queries]
    return {
        column: {
            name: _of_retrieval(outcome.take(rows & (labels == label))) for label, name in enumerate(CATEGORY_NAMES)
        }
        for column, rows in zip(columns, _query_members(outcome, items, columns), strict=True)
    }


def flat_figures(columns: dict[str, dict], key: str) -> dict[str, float]:
    """The figures of a task as MMEngine has metrics: one flat dict of floats, NaN where undefined.

    Args:
        columns: What ``task_figures`` or ``retrieval_figures`` gave.
        key: With a place for the figure's name, such as 'bbox_{}'. That of a subset also ends in '_scale_small' or the
            like, without the slash that MMEngine puts between a prefix and a key.
    """
    return {
        key.format(name) + column_ending(column): math.nan if value is None else float(value)
        for column, figures in columns.items()
        for name, value in figures.items()
    }


def column_ending(column: str) -> str:
    """What keys of metrics end in: '' for overall, '_scale_small' for 'scale/small'."""
    return '' if column == OVERALL else f'_{column.replace("/", "_")}'


def plain(figures: dict[str, float]) -> dict:
    """Figures as JSON has them: None for NaN, whole counts as integers."""
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


def _query_members(outcome: Outcome, items: Items, columns) -> np.ndarray:
    attributes = None if items.attributes is None else items.attributes[outcome.queries]
    return column_members(tuple(columns), len(outcome.queries), attributes)

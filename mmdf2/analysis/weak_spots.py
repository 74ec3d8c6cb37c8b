"""Where failures gather: counts of each kind of failure for each subset and category, and a ranking of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdf2.categories import CATEGORY_NAMES, NUM_CATEGORIES
from mmdf2.evaluation.records import COLUMNS, OVERALL, column_members

ALL_CATEGORIES = 'all'


@dataclass(frozen=True)
class Failure:
    """One kind of failure of m items.

    Attributes:
        name: What it is called.
        failed: (m,) bool.
        counted: (m,) bool, the items that could fail so: all, those with landmarks, those that are queries.
    """

    name: str
    failed: np.ndarray
    counted: np.ndarray


@dataclass(frozen=True)
class Cell:
    """A kind of failure in one subset and one category (or 'all').

    Attributes:
        failure: Its name.
        column: Of ``mmdf2.evaluation.records.COLUMNS``.
        category: A category's name, or 'all'.
        items: Items that could fail.
        failed: Items that did.
        excess: How many more failed than would have at the rate of all items together; negative for fewer.
    """

    failure: str
    column: str
    category: str
    items: int
    failed: int
    excess: float

    @property
    def share(self) -> float:
        """Of the items that failed; NaN without items."""
        return self.failed / self.items if self.items else float('nan')


def tally(failures: Sequence[Failure], labels, attributes) -> list[Cell]:
    """Counts failures.

    Args:
        failures: Kinds of failure.
        labels: (m,) of the items.
        attributes: (m, 4) of the items, as in ``GroundTruth``.

    Returns:
        A cell for each failure, column and category, 'all' first among the categories.
    """
    labels = np.asarray(labels, dtype=np.int64)
    members = column_members(COLUMNS, len(labels), attributes)
    cells = []
    for failure in failures:
        failed = failure.failed & failure.counted
        rate = failed.sum() / max(failure.counted.sum(), 1)
        for column, member in zip(COLUMNS, members, strict=True):
            items, bad = (_by_category(labels[member & chosen]) for chosen in (failure.counted, failed))
            for name, count, wrong in zip((ALL_CATEGORIES, *CATEGORY_NAMES), items, bad, strict=True):
                cells.append(Cell(failure.name, column, name, count, wrong, float(wrong - count * rate)))
    return cells


def rank(cells: Sequence[Cell], least_items: int = 10) -> list[Cell]:
    """The cells in which more failed than elsewhere, most in excess first; of equal ones the larger share first.

    Cells of fewer than ``least_items`` items are left out, as is the one of everything, which has no excess.
    """
    telling = [
        cell
        for cell in cells
        if cell.excess > 0
        and cell.items >= least_items
        and not (cell.column == OVERALL and cell.category == ALL_CATEGORIES)
    ]
    return sorted(telling, key=lambda cell: (-cell.excess, -cell.share, cell.failure, cell.column, cell.category))


def _by_category(labels) -> list[int]:
    counts = np.bincount(labels, minlength=NUM_CATEGORIES).tolist()
    return [sum(counts), *counts]

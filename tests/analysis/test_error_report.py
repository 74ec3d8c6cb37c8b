"""Failures per subset and category against counts by loops, and the order of the ranking."""

import numpy as np
import pytest

from mmdf2.analysis.error_report import Failure, rank, tally
from mmdf2.categories import CATEGORY_NAMES
from mmdf2.evaluation.records import ATTRIBUTE_VALUES


def make_case():
    rng = np.random.default_rng(0)
    labels, attributes = rng.integers(0, 13, 300), rng.integers(0, 4, (300, 4))
    failures = [
        Failure('missed', rng.random(300) < 0.2, np.ones(300, bool)),
        Failure('poor', (labels == 4) & (attributes[:, 1] == 3), rng.random(300) < 0.8),
    ]
    return failures, labels, attributes


def test_cells_are_counts_by_loops():
    failures, labels, attributes = make_case()
    cells = {(cell.failure, cell.column, cell.category): cell for cell in tally(failures, labels, attributes)}
    assert len(cells) == 2 * 13 * 14
    for failure in failures:
        rate = sum(failure.failed & failure.counted) / sum(failure.counted)
        for axis, (attribute, names) in enumerate(ATTRIBUTE_VALUES.items()):
            for value, name in enumerate(names, 1):
                for label, category in ((None, 'all'), *enumerate(CATEGORY_NAMES)):
                    rows = [
                        row
                        for row in range(300)
                        if failure.counted[row] and attributes[row, axis] == value and label in (None, labels[row])
                    ]
                    cell = cells[failure.name, f'{attribute}/{name}', category]
                    assert cell.items == len(rows) and cell.failed == sum(failure.failed[row] for row in rows)
                    assert cell.excess == pytest.approx(cell.failed - rate * len(rows))
    assert cells['missed', 'overall', 'all'].items == 300 and cells['poor', 'overall', 'all'].excess == 0


def test_the_weakest_spot_comes_first():
    failures, labels, attributes = make_case()
    cells = tally(failures[1:], labels, attributes)
    best = rank(cells, least_items=1)[0]
    assert (best.column, best.category, best.share) == ('occlusion/heavy', 'vest', 1.0)
    assert all(cell.items >= 10 and cell.excess > 0 for cell in rank(cells))
    assert all((cell.column, cell.category) != ('overall', 'all') for cell in rank(cells, 0))
    assert np.isnan(tally([Failure('x', np.zeros(0, bool), np.zeros(0, bool))], [], np.zeros((0, 4), int))[0].share)

"""Compares which subsets are hard for a model with which are hard in the paper, by rank correlation.

    python benchmarks/compare_trends.py run_1/tables.json run_2/tables.json run_3/tables.json

Each file is the report of one seed, as tools/demo.py and `tools/evaluate.py --subsets` write it. For each of the
paper's Tables 2 to 5 the twelve subsets are ordered by a figure, and Spearman's correlation of this order with the
paper's is printed per seed and for the mean of the seeds, with the mean figure and the least number of items of every
subset.
"""

import argparse
import json
from pathlib import Path

from mmdf2.command_line import UserError, start

if __name__ == '__main__':
    start()

import numpy as np
from scipy.stats import spearmanr

from mmdf2.evaluation.records import SUBSETS
from mmdf2.evaluation.report.published import PAPER, published_precision, published_retrieval
from mmdf2.evaluation.report.tables import heading

# Table -> task, and figure of the report.
TABLES = {
    'Table 2, boxes, AP': ('bbox', 'AP'),
    'Table 3, visible landmarks, AP': ('keypoints_visible', 'AP'),
    'Table 3, all landmarks, AP': ('keypoints_all', 'AP'),
    'Table 4, masks, AP': ('segm', 'AP'),
    'Table 5, detected boxes, top-20': ('retrieval', 'top20'),
    'Table 5, ground-truth boxes, top-20': ('retrieval_gt', 'top20'),
}
VARIANT = 'pose+class'


def published_figures(task: str, figure: str) -> np.ndarray:
    """(12,) figures of the paper in the order of ``SUBSETS``."""
    if figure == 'AP':
        return np.array([published_precision(PAPER, task, column)[figure] for column in SUBSETS])
    return np.array([published_retrieval(PAPER, task, column)[VARIANT][20] for column in SUBSETS])


def trends(reports: list[dict]) -> dict[str, dict]:
    """Table -> its rank correlations with the paper, mean figures and least counts.

    Raises:
        UserError: A report has no figure of a subset.
    """
    found = {}
    for table, (task, figure) in TABLES.items():
        rows = [[report[task][column] for column in SUBSETS if column in report.get(task, {})] for report in reports]
        values = np.array([[np.nan if cell[figure] is None else cell[figure] for cell in row] for row in rows], float)
        if values.shape != (len(reports), len(SUBSETS)) or np.isnan(values).any():
            raise UserError(f'{table}: a report lacks the {figure} of a subset; make it with --subsets.')
        paper = published_figures(task, figure)
        found[table] = {
            'correlations': [float(spearmanr(row, paper).statistic) for row in values],
            'correlation_of_mean': float(spearmanr(values.mean(axis=0), paper).statistic),
            'figures': dict(zip(SUBSETS, values.mean(axis=0).tolist(), strict=True)),
            'counts': {
                column: min(
                    report[task][column].get('items', report[task][column].get('queries')) for report in reports
                )
                for column in SUBSETS
            },
        }
    return found


def read_report(path: Path) -> dict:
    """Reads the tables.json of one seed.

    Raises:
        UserError: It is no report.
    """
    try:
        report = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error}); give the tables.json of a run.') from error
    if not isinstance(report, dict):
        raise UserError(f'{path} holds no report, but a {type(report).__name__}; give the tables.json of a run.')
    return report


def main(argv: list[str] | None = None) -> None:
    """Prints the correlations and the figures they are made of, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('reports', type=Path, nargs='+', help='tables.json of each seed')
    args = parser.parse_args(argv)
    found = trends([read_report(path) for path in args.reports])
    print('| table | rank correlation with the paper, per seed | of the mean |\n| --- | --- | --- |')
    for table, row in found.items():
        seeds = ' / '.join(f'{value:.2f}' for value in row['correlations'])
        print(f'| {table} | {seeds} | {row["correlation_of_mean"]:.2f} |')
    names = [' '.join(reversed(heading(column))) for column in SUBSETS]
    print('\n| table | ' + ' | '.join(names) + ' |\n|' + ' --- |' * (len(names) + 1))
    for table, row in found.items():
        task, figure = TABLES[table]
        print(f'| {table} | ' + ' | '.join(f'{value:.3f}' for value in row['figures'].values()) + ' |')
        print('| published | ' + ' | '.join(f'{value:.3f}' for value in published_figures(task, figure)) + ' |')
        print('| items | ' + ' | '.join(str(count) for count in row['counts'].values()) + ' |')


if __name__ == '__main__':
    main()

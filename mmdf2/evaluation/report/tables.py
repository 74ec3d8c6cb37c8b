"""The paper's Tables 2 to 5 from a report, in the paper's layout, with the published figures beside.

Table 2: boxes; 3: landmarks; 4: masks, each with AP of every column. Table 5: retrieval, with top-20 of every subset
and top-1 to top-20 of all queries, by the paper's convention (queries with more than five matching gallery items) and
by the official evaluation's (all queries).
"""

from dataclasses import dataclass

from mmdf2.categories import CATEGORY_NAMES
from mmdf2.evaluation.published import PAPER, PUBLISHED, RELEASED, published_retrieval
from mmdf2.evaluation.report import CATEGORIES
from mmdf2.evaluation.retrieval import PAPER_MATCHES, TOP_K
from mmdf2.evaluation.subsets import COLUMNS, OVERALL

PRECISIONS = ('AP', 'AP50', 'AP75')
# Number and title of the paper's table -> its rows' names and tasks.
PRECISION_TABLES = {
    (2, 'clothes detection, boxes'): {'': 'bbox'},
    (3, 'landmark estimation'): {'visible': 'keypoints_visible', 'visible and occluded': 'keypoints_all'},
    (4, 'clothes segmentation, masks'): {'': 'segm'},
}
RETRIEVAL_ROWS = {'retrieval': 'detected boxes', 'retrieval_gt': 'ground-truth boxes'}
# Prefix of the figures -> which queries they count, and whose published figures count alike.
CONVENTIONS = {'': ('all queries', RELEASED), 'paper_': (f'queries with > {PAPER_MATCHES} matches', PAPER)}


@dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
        title: Above it.
        header: Group and name of each column but the first; columns of one group stand together.
        rows: Name and cells of each row: figures, counts, or None where undefined, '' where there is nothing.
    """

    title: str
    header: list[tuple[str, str]]
    rows: list[tuple[str, list]]


def paper_tables(report: dict) -> list[Table]:
    """The paper's tables of what the report holds, verification, and all tasks by category."""
    tables = [_precision_table(report, *key, rows) for key, rows in PRECISION_TABLES.items()]
    tables += [_retrieval_table(report), _verification_table(report), _category_table(report)]
    return [table for table in tables if table.rows]


def _precision_table(report, number: int, title: str, tasks: dict[str, str]) -> Table:
    tasks = {name: task for name, task in tasks.items() if task in report}
    columns = [column for column in COLUMNS if any(column in report[task] for task in tasks.values())]
    header = [_heading(column) for column in columns] + [('published', PAPER), ('published', 'released')]
    rows = []
    for name, task in tasks.items():
        for figure in PRECISIONS:
            cells = [report[task][column][figure] for column in columns]
            cells += [PUBLISHED[source][task][figure] for source in (PAPER, RELEASED)]
            rows.append((f'{figure} {name}'.strip(), cells))
    return Table(f'Table {number}: {title}', header, rows)


def _retrieval_table(report) -> Table:
    tasks = [task for task in RETRIEVAL_ROWS if task in report]
    subsets = [column for column in COLUMNS if column != OVERALL and any(column in report[task] for task in tasks)]
    header = [_heading(column) for column in subsets]
    header += [(OVERALL, f'top-{k}') for k in TOP_K] + [(OVERALL, 'queries'), (OVERALL, 'missed')]
    rows = []
    for task in tasks:
        for prefix, (which, source) in CONVENTIONS.items():
            rows.append((f'{RETRIEVAL_ROWS[task]}, {which}', _retrieval_cells(report[task], prefix, subsets)))
            for variant, shares in published_retrieval(source, task).items():
                cells = [''] * len(subsets) + [shares.get(k, '') for k in TOP_K] + ['', '']
                rows.append((f'  published, {variant} ({source})', cells))
    title = (
        'Table 5: consumer-to-shop retrieval, top-20 of subsets' if subsets else 'Table 5: consumer-to-shop retrieval'
    )
    return Table(title, header, rows)


def _retrieval_cells(columns: dict, prefix: str, subsets) -> list:
    overall = columns[OVERALL]
    # Without queries of the paper's kind there is no figure at all.
    shares = [columns[subset].get(f'{prefix}top{TOP_K[-1]}') for subset in subsets]
    shares += [overall.get(f'{prefix}top{k}') for k in TOP_K]
    return [*shares, overall[f'{prefix}queries'], overall['missed'] if not prefix else '']


def _verification_table(report) -> Table:
    figures = report.get('verification', {}).get(OVERALL, {})
    return Table('Verification of pairs', [('', 'value')], [(name, [value]) for name, value in figures.items()])


def _category_table(report) -> Table:
    precision = ('bbox', 'segm', 'keypoints_visible', 'keypoints_all')
    kinds = [(task, 'AP') for task in precision] + [(task, f'top{k}') for task in RETRIEVAL_ROWS for k in (1, 20)]
    columns = [(task, figure) for task, figure in kinds if task in report.get(CATEGORIES, {})]
    if not columns:
        return Table('', [], [])
    by_task = {task: report[CATEGORIES][task][OVERALL] for task, _ in columns}
    counted = next((task for task in precision[:2] if task in by_task), None)
    header = [
        *([('', 'items')] if counted else []),
        *((task, figure.replace('top', 'top-')) for task, figure in columns),
    ]
    rows = [
        (
            name,
            [
                *([by_task[counted][name]['items']] if counted else []),
                *(by_task[task][name][figure] for task, figure in columns),
            ],
        )
        for name in CATEGORY_NAMES
    ]
    return Table('By category', header, rows)


def _heading(column: str) -> tuple[str, str]:
    """Group and name, as the paper writes them."""
    if column == OVERALL:
        return '', OVERALL
    attribute, value = column.split('/')
    return attribute.replace('_', '-'), value.replace('side_or_back', 'side/back').replace('_', ' ')

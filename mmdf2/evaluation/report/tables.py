"""The tables of an evaluation as text, and a report written as JSON, Markdown and CSV.

The paper's tables show published figures beside the measured ones. Table 2 has boxes, Table 3 landmarks and Table 4
masks, each with AP of every column. Table 5 has retrieval, with top-20 of every subset and top-1 to top-20 of all
queries, by the paper's convention (queries with more than five matching gallery items) and by the official one (all
queries).
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mmdf2.categories import CATEGORY_NAMES
from mmdf2.evaluation.coco import TaskResult
from mmdf2.evaluation.records import COLUMNS, OVERALL
from mmdf2.evaluation.report.figures import ABOUT, CATEGORIES, metric_key
from mmdf2.evaluation.report.published import PAPER, RELEASED, published_precision, published_retrieval
from mmdf2.evaluation.retrieval import PAPER_MATCHES, TOP_K
from mmdf2.files import AnyPath, write_json, write_text

PRECISIONS = ('AP', 'AP50', 'AP75')
# Number and title of the paper's table -> its rows' names and tasks.
PRECISION_TABLES = {
    (2, 'clothes detection, boxes'): {'': 'bbox'},
    (3, 'landmark estimation'): {'visible': 'keypoints_visible', 'visible and occluded': 'keypoints_all'},
    (4, 'clothes segmentation, masks'): {'': 'segm'},
}
RETRIEVAL_ROWS = {'retrieval': 'detected boxes', 'retrieval_gt': 'ground-truth boxes'}
# Prefix of the figures -> which queries they count, and whose published figures count the same queries.
CONVENTIONS = {'': ('all queries', RELEASED), 'paper_': (f'queries with > {PAPER_MATCHES} matches', PAPER)}
# Row of the summary -> format of the metrics' keys.
SUMMARY_PRECISION = {
    'boxes': 'bbox_{}',
    'masks': 'segm_{}',
    'landmarks, visible only': 'keypoints_{}_visible',
    'landmarks, visible and occluded': 'keypoints_{}_all',
}
SUMMARY_RETRIEVAL = {
    'retrieval, detected boxes': 'retrieval_top{}',
    'retrieval, ground-truth boxes': 'retrieval_gt_top{}',
}
# Least widths of the summary's columns, in characters.
_SUMMARY_WIDTH, _SUMMARY_MARKDOWN_WIDTH = 8, 10


@dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
        title: Text above the table, or ''.
        header: Group and name of each column but the first; columns of one group stand together.
        rows: Name and cells of each row: figures, counts, None or NaN where undefined, '' where there is nothing.
        corner: Name of the first column.
    """

    title: str
    header: list[tuple[str, str]]
    rows: list[tuple[str, list]]
    corner: str = ''

    def plain(self) -> str:
        """Aligned plain text."""
        return plain_text([self])

    def markdown(self) -> str:
        """Markdown."""
        return markdown_text([self])

    def boxed(self) -> str:
        """Plain text within lines of ASCII characters."""
        labels, widths = self.widths(gap=0)
        rule = '+' + ''.join('-' * (width + 2) + '+' for width in (labels, *widths))
        lines = [_barred(label, cells, labels, widths) for label, cells in self.lines()]
        return '\n'.join([rule, lines[0], rule, *lines[1:], rule])

    def lines(self) -> list[tuple[str, list[str]]]:
        """Label and texts of the header and of each row."""
        head = (self.corner, [name for _, name in self.header])
        return [head, *((label, [_cell(value) for value in values]) for label, values in self.rows)]

    def widths(self, gap: int, least: int = 0) -> tuple[int, list[int]]:
        """Width of the first column, and of each other one: its longest text plus the gap, but at least ``least``."""
        labels, texts = zip(*self.lines(), strict=True)
        columns = [max(least, max(map(len, column)) + gap) for column in zip(*texts, strict=True)]
        return max(map(len, labels)), columns


def plain_text(tables: Sequence[Table], least_width: int = 0) -> str:
    """Tables as aligned plain text, one below the other, in columns of equal width.

    Args:
        tables: Tables with the same number of columns.
        least_width: Least width of each column but the first, in characters.
    """
    all_widths = [table.widths(2, least_width) for table in tables]
    label_width = max(labels for labels, _ in all_widths)
    widths = [max(column) for column in zip(*(columns for _, columns in all_widths), strict=True)]
    lines: list[str] = []
    for table in tables:
        groups = _group_line(table.header, widths)
        header, *rows = (
            f'{label:<{label_width}}' + ''.join(f'{text:>{width}}' for text, width in zip(texts, widths, strict=True))
            for label, texts in table.lines()
        )
        rule = '-' * (label_width + sum(widths))
        # A table below another one begins at the line that ends the other.
        lines = lines[:-1] + [table.title] * bool(table.title) + [rule]
        lines += [' ' * label_width + groups] * bool(groups.strip()) + [header, rule, *rows, rule]
    return '\n'.join(line.rstrip() for line in lines)


def markdown_text(tables: Sequence[Table], label_width: int = 0, cell_width: int = 0) -> str:
    """Tables as one Markdown table, which has one header: those of further tables stand among the rows, in bold.

    Args:
        tables: Tables with the same number of columns.
        label_width: Least width of the first column, in characters.
        cell_width: Least width of each other column.
    """
    widths = [cell_width] * len(tables[0].header)
    lines = [f'**{tables[0].title}**', ''] if tables[0].title else []
    for number, table in enumerate(tables):
        names = [f'{group}: {name}' if group else name for group, name in table.header]
        names = [f'**{name}**' if name and number else name for name in names]
        lines.append(_barred(table.corner, names, label_width, widths))
        if not number:
            dashes = [f'{"-" * (max(width, 4) - 1)}:' for width in widths]
            lines.append(_barred('-' * max(label_width, 3), dashes, label_width, widths))
        lines += [_barred(label.strip(), texts, label_width, widths) for label, texts in table.lines()[1:]]
    return '\n'.join(lines)


def _barred(label: str, texts: Iterable[str], label_width: int, widths: Iterable[int]) -> str:
    return f'| {label:<{label_width}} |' + ''.join(f' {x:>{width}} |' for x, width in zip(texts, widths, strict=True))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def _group_line(header: Sequence[tuple[str, str]], widths: list[int]) -> str:
    """The name of each group, at the right end of its columns; widens the last column where the name is longer."""
    line, first = '', 0
    for group, columns in groupby(header, key=lambda column: column[0]):
        last = first + len(list(columns))
        widths[last - 1] += max(0, len(group) + 2 - sum(widths[first:last]))
        line += f'{group:>{sum(widths[first:last])}}'
        first = last
    return line


def paper_tables(report: Mapping) -> list[Table]:
    """The tables of a report, as far as it holds them: the paper's four, verification, and all tasks by category."""
    tables = [_precision_table(report, *key, rows) for key, rows in PRECISION_TABLES.items()]
    tables += [_retrieval_table(report), _verification_table(report), _by_category_table(report)]
    return [table for table in tables if table.rows]


def _precision_table(report: Mapping, number: int, title: str, tasks: Mapping[str, str]) -> Table:
    tasks = {name: task for name, task in tasks.items() if task in report}
    columns = [column for column in COLUMNS if any(column in report[task] for task in tasks.values())]
    header = [heading(column) for column in columns] + [('published', PAPER), ('published', 'released')]
    rows = []
    for name, task in tasks.items():
        for figure in PRECISIONS:
            label = f'{figure} {name}'.strip()
            published = [published_precision(source, task)[figure] for source in (PAPER, RELEASED)]
            rows.append((label, [report[task][column][figure] for column in columns] + published))
            if columns != [OVERALL]:
                cells: list = [published_precision(PAPER, task, column)[figure] for column in columns]
                rows.append((f'  published ({PAPER})', [*cells, '', '']))
    return Table(f'Table {number}: {title}', header, rows)


def _retrieval_table(report: Mapping) -> Table:
    tasks = [task for task in RETRIEVAL_ROWS if task in report]
    subsets = [column for column in COLUMNS if column != OVERALL and any(column in report[task] for task in tasks)]
    header = [heading(column) for column in subsets]
    header += [(OVERALL, f'top-{k}') for k in TOP_K] + [(OVERALL, 'queries'), (OVERALL, 'missed')]
    rows = []
    for task in tasks:
        for prefix, (which, source) in CONVENTIONS.items():
            rows.append((f'{RETRIEVAL_ROWS[task]}, {which}', _retrieval_cells(report[task], prefix, subsets)))
            of_subsets = [published_retrieval(source, task, subset) for subset in subsets]
            for variant, shares in published_retrieval(source, task).items():
                cells = [figures.get(variant, {}).get(TOP_K[-1], '') for figures in of_subsets]
                cells += [shares.get(k, '') for k in TOP_K]
                rows.append((f'  published, {variant} ({source})', [*cells, '', '']))
    title = 'Table 5: consumer-to-shop retrieval' + (', top-20 of subsets' if subsets else '')
    return Table(title, header, rows)


def _retrieval_cells(columns: Mapping, prefix: str, subsets: Sequence[str]) -> list:
    overall = columns[OVERALL]
    # Without queries of the paper's kind there are no shares.
    shares = [columns[subset].get(f'{prefix}top{TOP_K[-1]}') for subset in subsets]
    shares += [overall.get(f'{prefix}top{k}') for k in TOP_K]
    return [*shares, overall[f'{prefix}queries'], overall['missed'] if not prefix else '']


def _verification_table(report: Mapping) -> Table:
    figures = report.get('verification', {}).get(OVERALL, {})
    return Table('Verification of pairs', [('', 'value')], [(name, [value]) for name, value in figures.items()])


def _by_category_table(report: Mapping) -> Table:
    precision = ('bbox', 'segm', 'keypoints_visible', 'keypoints_all')
    kinds = [(task, 'AP') for task in precision] + [(task, f'top{k}') for task in RETRIEVAL_ROWS for k in (1, 20)]
    columns = [(task, figure) for task, figure in kinds if task in report.get(CATEGORIES, {})]
    if not columns:
        return Table('', [], [])
    by_task = {task: report[CATEGORIES][task][OVERALL] for task, _ in columns}
    # Landmark tasks count only items with landmarks, so the number of items is that of boxes or masks.
    counted = next((task for task in precision[:2] if task in by_task), None)
    header = [('', 'items')] if counted else []
    header += [(task, figure.replace('top', 'top-')) for task, figure in columns]
    rows = []
    for name in CATEGORY_NAMES:
        cells = [by_task[counted][name]['items']] if counted else []
        rows.append((name, cells + [by_task[task][name][figure] for task, figure in columns]))
    return Table('By category', header, rows)


def heading(column: str) -> tuple[str, str]:
    """Group and name of a column, as the paper writes them."""
    if column == OVERALL:
        return '', OVERALL
    attribute, value = column.split('/')
    return attribute.replace('_', '-'), value.replace('side_or_back', 'side/back').replace('_', ' ')


def category_table(evaluated: Mapping[str, TaskResult]) -> Table:
    """Items and AP of each task for each category, then their mean AP, AP50 and AP75."""
    # Landmark tasks ignore items without landmarks, so the largest count is that of all items.
    counts = [result.num_truths[result.columns.index(OVERALL)] for result in evaluated.values()]
    items = [max(counts_of_label) for counts_of_label in zip(*counts, strict=True)]
    header = [('', 'items'), *(('', metric_key(task, 'AP')) for task in evaluated)]
    rows: list[tuple[str, list]] = [
        (name, [items[label], *(result.average_precision(label=label) for result in evaluated.values())])
        for label, name in enumerate(CATEGORY_NAMES)
    ]
    means = [result.figures() for result in evaluated.values()]
    rows += [(f'mean {figure}', [sum(items), *(mean[figure] for mean in means)]) for figure in PRECISIONS]
    return Table('', header, rows, corner='category')


def summary_table(metrics: Mapping[str, float], markdown: bool = False) -> str:
    """Boxes, masks and landmarks with AP, AP50 and AP75; retrieval with top-1 to top-20, and top-1 by chance.

    Args:
        metrics: What ``DeepFashion2Metric`` and ``RetrievalMetric`` return, with or without an MMEngine prefix such as
            'test/'. A row without any figure is left out, a missing or undefined figure is '-'.
        markdown: Whether to make a Markdown table instead of aligned plain text.

    Returns:
        The text, without a final line break.

    Raises:
        ValueError: None of the keys is known.
    """
    names = sorted(metrics)
    metrics = {key.rsplit('/', 1)[-1]: value for key, value in metrics.items()}
    precision = _summary_rows(metrics, SUMMARY_PRECISION, PRECISIONS)
    retrieval = _summary_rows(metrics, SUMMARY_RETRIEVAL, TOP_K)
    if 'retrieval_chance_top1' in metrics:
        retrieval.append(('retrieval, chance', [float(metrics['retrieval_chance_top1'])]))
    if not precision and not retrieval:
        raise ValueError(f'none of the metrics is one of DeepFashion2Metric or RetrievalMetric: {names}')
    blocks = [(PRECISIONS, precision), ([f'top-{k}' for k in TOP_K], retrieval)]
    count = max(len(cells) for _, rows in blocks for _, cells in rows)
    tables = [
        Table('', [('', name) for name in _filled(columns, count)], [(name, _filled(row, count)) for name, row in rows])
        for columns, rows in blocks
        if rows
    ]
    if markdown:
        label_width = max(len(label) for _, rows in blocks for label, _ in rows)
        return markdown_text(tables, label_width, _SUMMARY_MARKDOWN_WIDTH)
    return plain_text(tables, _SUMMARY_WIDTH)


def _summary_rows(metrics: Mapping[str, float], keys: Mapping[str, str], columns: Sequence) -> list[tuple[str, list]]:
    rows = []
    for name, key in keys.items():
        values = [metrics.get(key.format(column)) for column in columns]
        if any(value is not None for value in values):
            rows.append((name, [None if value is None else float(value) for value in values]))
    return rows


def _filled(cells: Sequence, count: int) -> list:
    return [*cells, *[''] * (count - len(cells))]


def report_text(report: Mapping) -> str:
    """The tables of a report as aligned plain text, and its notes."""
    blocks = [table.plain() for table in paper_tables(report)]
    return '\n\n'.join([*blocks, *(f'note: {note}' for note in report.get(ABOUT, {}).get('notes', ()))])


def report_markdown(report: Mapping) -> str:
    """The tables of a report as Markdown, and its notes."""
    blocks = [table.markdown() for table in paper_tables(report)]
    return '\n\n'.join([*blocks, *(f'Note: {note}.' for note in report[ABOUT]['notes'])]) + '\n'


def report_csv(report: Mapping) -> str:
    """The figures of a report as CSV, one per line.

    The columns are task, column, category ('all' for the mean over categories), figure and value, which is empty where
    the figure is undefined.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['task', 'column', 'category', 'figure', 'value'])
    for task, columns in report.items():
        if task in (ABOUT, CATEGORIES):
            continue
        for column, figures in columns.items():
            categories = {'all': figures, **report[CATEGORIES].get(task, {}).get(column, {})}
            for category, values in categories.items():
                writer.writerows([task, column, category, name, value] for name, value in values.items())
    return file.getvalue()


def write_report(report: Mapping, path: AnyPath) -> list[Path]:
    """Writes ``path`` (JSON), and files of the same name ending in .md and .csv; each appears complete or not at all.

    Raises:
        ValueError: The path does not end in .json.
    """
    path, markdown, table = report_paths(path)
    write_json(path, report)
    write_text(markdown, report_markdown(report))
    write_text(table, report_csv(report))
    return [path, markdown, table]


def report_paths(path: AnyPath) -> tuple[Path, Path, Path]:
    """The files that ``write_report`` writes: JSON, Markdown and CSV; ValueError if the path does not end in .json."""
    path = Path(path)
    if path.suffix != '.json':
        raise ValueError(f'the report is a .json file, with .md and .csv beside it; got {path}')
    return path, path.with_suffix('.md'), path.with_suffix('.csv')

"""A report as text, Markdown, CSV and JSON."""

import csv
import io
import json
import os
from itertools import groupby
from pathlib import Path

from mmdf2.evaluation.paper_tables import Table, paper_tables
from mmdf2.evaluation.report import ABOUT, CATEGORIES


def report_text(report: dict) -> str:
    """The tables of ``paper_tables`` as aligned plain text, and the notes, of whatever the report holds."""
    blocks = [_plain(table) for table in paper_tables(report)]
    return '\n\n'.join([*blocks, *(f'note: {note}' for note in report.get(ABOUT, {}).get('notes', ()))])


def report_markdown(report: dict) -> str:
    """The same as Markdown."""
    blocks = [_markdown(table) for table in paper_tables(report)]
    return '\n\n'.join([*blocks, *(f'Note: {note}.' for note in report[ABOUT]['notes'])]) + '\n'


def report_csv(report: dict) -> str:
    """One figure a line: task, column, category ('all' for the mean over categories), figure, value (may be empty)."""
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


def write_report(report: dict, path) -> list[Path]:
    """Writes ``path`` (JSON) and the same name ending in .md and .csv; each file appears complete or not at all.

    Raises:
        ValueError: A path that does not end in .json.
    """
    path = Path(path)
    if path.suffix != '.json':
        raise ValueError(f'the report is a .json file, with .md and .csv beside it; got {path}')
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = {
        path: json.dumps(report, indent=1, allow_nan=False) + '\n',
        path.with_suffix('.md'): report_markdown(report),
        path.with_suffix('.csv'): report_csv(report),
    }
    for name, text in contents.items():
        beside = name.with_name(f'{name.name}.{os.getpid()}.tmp')
        try:
            beside.write_text(text, encoding='utf-8')
            os.replace(beside, name)
        finally:
            beside.unlink(missing_ok=True)
    return list(contents)


def _cell(value) -> str:
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def _plain(table: Table) -> str:
    names = [name for _, name in table.header]
    cells = [[_cell(value) for value in values] for _, values in table.rows]
    label_width = max(len(label) for label, _ in table.rows)
    widths = [max(map(len, column)) + 2 for column in zip(names, *cells, strict=True)]
    groups = _group_line(table.header, widths)
    lines = [' ' * label_width + groups] if groups.strip() else []
    lines.append(' ' * label_width + ''.join(f'{name:>{width}}' for name, width in zip(names, widths, strict=True)))
    rule = '-' * len(lines[-1])
    for (label, _), row in zip(table.rows, cells, strict=True):
        lines.append(f'{label:<{label_width}}' + ''.join(f'{x:>{width}}' for x, width in zip(row, widths, strict=True)))
    head = len(lines) - len(table.rows)
    return '\n'.join(line.rstrip() for line in [table.title, rule, *lines[:head], rule, *lines[head:], rule])


def _group_line(header, widths: list[int]) -> str:
    """Each group's name over its columns; widens the last of them where the name is longer."""
    line, first = '', 0
    for group, columns in groupby(header, key=lambda column: column[0]):
        last = first + len(list(columns))
        widths[last - 1] += max(0, len(group) + 2 - sum(widths[first:last]))
        line += f'{group:>{sum(widths[first:last])}}'
        first = last
    return line


def _markdown(table: Table) -> str:
    names = [f'{group}: {name}' if group else name for group, name in table.header]
    lines = [f'**{table.title}**', '', _markdown_row('', names), '| --- |' + ' ---: |' * len(names)]
    return '\n'.join([*lines, *(_markdown_row(label.strip(), map(_cell, values)) for label, values in table.rows)])


def _markdown_row(label: str, cells) -> str:
    return f'| {label} | ' + ' | '.join(cells) + ' |'

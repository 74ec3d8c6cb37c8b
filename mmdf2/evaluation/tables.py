"""One compact table of all four tasks from the metrics' flat keys."""

import math
from collections.abc import Mapping

from mmdf2.evaluation.retrieval import TOP_K

PRECISIONS = ('AP', 'AP50', 'AP75')
# Row -> key of each precision.
PRECISION_ROWS = {
    'boxes': 'bbox_{}',
    'masks': 'segm_{}',
    'landmarks, visible only': 'keypoints_{}_visible',
    'landmarks, visible and occluded': 'keypoints_{}_all',
}
RETRIEVAL_ROWS = {
    'retrieval, detected boxes': 'retrieval_top{}',
    'retrieval, ground-truth boxes': 'retrieval_gt_top{}',
}
CHANCE_ROW = 'retrieval, chance'


def summary_table(metrics: Mapping[str, float], markdown: bool = False) -> str:
    """Boxes, masks and landmarks with AP, AP50 and AP75; retrieval with top-1 to top-20, and top-1 by chance.

    Args:
        metrics: What ``DeepFashion2Metric`` and ``RetrievalMetric`` return, with or without an MMEngine prefix such as
            'test/'. A row without any figure is left out, a missing or undefined figure is '-'.
        markdown: A Markdown table instead of aligned plain text.

    Returns:
        The text, without a final line break.

    Raises:
        ValueError: None of the keys is known.
    """
    names = sorted(metrics)
    metrics = {key.rsplit('/', 1)[-1]: value for key, value in metrics.items()}
    precision = _rows(metrics, PRECISION_ROWS, PRECISIONS)
    retrieval = _rows(metrics, RETRIEVAL_ROWS, TOP_K)
    if 'retrieval_chance_top1' in metrics:
        retrieval.append([CHANCE_ROW, _figure(metrics['retrieval_chance_top1'])])
    if not precision and not retrieval:
        raise ValueError(f'none of the metrics is one of DeepFashion2Metric or RetrievalMetric: {names}')
    blocks = [
        [['', *columns], *rows]
        for columns, rows in ((PRECISIONS, precision), ([f'top-{k}' for k in TOP_K], retrieval))
        if rows
    ]
    width = max(len(row[0]) for block in blocks for row in block)
    count = max(len(row) for block in blocks for row in block) - 1
    blocks = [[[*row, *[''] * (count + 1 - len(row))] for row in block] for block in blocks]
    return _markdown(blocks, width) if markdown else _plain(blocks, width)


def _rows(metrics, keys: dict[str, str], columns) -> list[list[str]]:
    figures = {name: [metrics.get(key.format(column)) for column in columns] for name, key in keys.items()}
    return [
        [name, *map(_figure, values)] for name, values in figures.items() if any(value is not None for value in values)
    ]


def _figure(value: float | None) -> str:
    return '-' if value is None or math.isnan(value) else f'{value:.3f}'


def _plain(blocks, width: int) -> str:
    rule = '-' * (width + 8 * (len(blocks[0][0]) - 1))
    lines = []
    for header, *rows in blocks:
        lines += [rule, _plain_row(header, width), rule, *(_plain_row(row, width) for row in rows)]
    return '\n'.join([*lines, rule])


def _plain_row(row, width: int) -> str:
    return (f'{row[0]:<{width}}' + ''.join(f'{cell:>8}' for cell in row[1:])).rstrip()


def _markdown(blocks, width: int) -> str:
    # Markdown has one header a table: the second block's stands among the rows, in bold.
    lines = []
    for header, *rows in blocks:
        lines.append(_markdown_row([f'**{cell}**' if cell and lines else cell for cell in header], width))
        if len(lines) == 1:
            lines.append(f'| {"-" * width} |' + ' ---------: |' * (len(header) - 1))
        lines += [_markdown_row(row, width) for row in rows]
    return '\n'.join(lines)


def _markdown_row(row, width: int) -> str:
    return f'| {row[0]:<{width}} |' + ''.join(f' {cell:>10} |' for cell in row[1:])

"""Charts as SVG text: bars, columns, curves and a heat map. Labels may be anything; they are escaped."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mmdf2.analysis import svg

COLOURS = ('#4078c8', '#e07b39', '#5a9a52', '#b04a8a', '#8a7a3c', '#3aa0a8', '#8c6bd1', '#c94f4f')
_ROW, _GAP = 16, 10
_TITLE = 30


def bar_chart(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    stacked: bool = False,
    show=svg.number,
    width: int = 760,
) -> str:
    """Horizontal bars, a group for each label.

    Args:
        title: Above the chart.
        labels: One for each group.
        series: Name -> a value for each label, 0 or more, NaN where undefined (no bar, '-').
        stacked: Bars of a group in one row, end to end, with their sum; otherwise below one another.
        show: Text of a value.
        width: Pixels.

    Raises:
        ValueError: A series of another length than the labels, or a negative or infinite value.
    """
    values = _checked(labels, series)
    left = 14 + max([svg.text_width(label) for label in labels], default=0)
    filled = np.nan_to_num(values)
    most = max(float((filled.sum(axis=0) if stacked else filled).max(initial=0)), 1e-9)
    texts = [show(value) for value in (filled.sum(axis=0) if stacked else values).ravel().tolist()]
    scale = (width - left - 16 - max([svg.text_width(t, 11) for t in texts], default=0)) / most
    rows = 1 if stacked else len(series)
    top = _TITLE + (22 if len(series) > 1 else 0)
    body = [_heading(title), *(_legend(list(series), left, _TITLE + 4) if len(series) > 1 else [])]
    for group, label in enumerate(labels):
        y = top + group * (rows * _ROW + _GAP)
        body.append(svg.text(left - 8, y + rows * _ROW / 2 + 4, label, anchor='end'))
        x = left
        for index, name in enumerate(series):
            value = values[index, group]
            row = y + (0 if stacked else index * _ROW)
            length = 0 if math.isnan(value) else value * scale
            tip = f'{label}, {name}: {show(float(value))}' if name else f'{label}: {show(float(value))}'
            body.append(svg.rectangle(x, row + 1, length, _ROW - 2, COLOURS[index % len(COLOURS)], tip))
            if stacked:
                x += length
            else:
                body.append(svg.text(left + length + 5, row + _ROW - 4, show(float(value)), 11))
        if stacked:
            body.append(svg.text(x + 5, y + _ROW - 4, show(float(filled[:, group].sum())), 11))
    return svg.picture(width, top + len(labels) * (rows * _ROW + _GAP), ''.join(body), title)


def column_chart(
    title: str, labels: Sequence[str], values: Sequence[float], x_label: str = '', width: int = 760
) -> str:
    """Vertical columns for a histogram, each with its value above and its label below."""
    counts = _checked(labels, {'': values})[0]
    step = (width - 20) / max(len(labels), 1)
    turned = max([svg.text_width(label, 11) for label in labels], default=0) > step - 4
    under = 12 + (max(svg.text_width(label, 11) for label in labels) * 0.71 if turned else 8)
    top, tall = _TITLE + 16, 150
    most = max(float(np.nanmax(counts, initial=0)), 1e-9)
    body = [_heading(title), svg.line(10, top + tall, width - 10, top + tall, svg.FAINT)]
    for index, (label, value) in enumerate(zip(labels, counts.tolist(), strict=True)):
        x, height = 10 + index * step, value / most * tall
        tip = f'{label}: {svg.number(int(value))}'
        body.append(svg.rectangle(x + step * 0.12, top + tall - height, step * 0.76, height, COLOURS[0], tip))
        body.append(svg.text(x + step / 2, top + tall - height - 4, svg.number(int(value)), 10, 'middle'))
        if turned:
            body.append(svg.text(x + step / 2 + 4, top + tall + 14, label, 11, 'end', -45))
        else:
            body.append(svg.text(x + step / 2, top + tall + 15, label, 11, 'middle'))
    height = top + tall + under
    if x_label:
        height += 18
        body.append(svg.text(width / 2, height - 4, x_label, 11, 'middle', fill=svg.FAINT))
    return svg.picture(width, height + 4, ''.join(body), title)


def curve_chart(
    title: str,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] = (0.0, 1.0),
    colours: Sequence[str] | None = None,
    x_ticks: Sequence[float] | None = None,
) -> str:
    """Curves over values of y from 0 to 1; a legend to the right.

    Args:
        title: Above the chart.
        curves: Name -> x and y of its points; points whose y is NaN are left out, and a curve without any is named
            '(none)'.
        x_label: Below the axis.
        y_label: Beside the axis.
        x_range: Least and largest x.
        colours: One for each curve.
        x_ticks: Where the axis is labelled; by default six places.
    """
    wide, tall, left, top = 330, 250, 52, _TITLE + 8
    legend = left + wide + 16
    low, high = x_range
    drawn = {name: bool(np.isfinite(np.asarray(ys, dtype=np.float64)).any()) for name, (_, ys) in curves.items()}
    names = {name: name if found else f'{name} (none)' for name, found in drawn.items()}
    width = legend + 28 + max([svg.text_width(name, 11) for name in names.values()], default=0)
    body = [_heading(title)]
    ticks = np.linspace(low, high, 6).tolist() if x_ticks is None else list(x_ticks)
    for tick in ticks:
        x = left + wide * (tick - low) / (high - low)
        body += [svg.line(x, top, x, top + tall), svg.text(x, top + tall + 16, f'{tick:g}', 11, 'middle')]
    for tick in np.linspace(0, 1, 6).tolist():
        y = top + tall * (1 - tick)
        body += [svg.line(left, y, left + wide, y), svg.text(left - 6, y + 4, f'{tick:.1f}', 11, 'end')]
    body.append(svg.text(left + wide / 2, top + tall + 34, x_label, 11, 'middle', fill=svg.FAINT))
    body.append(svg.text(14, top + tall / 2, y_label, 11, 'middle', -90, svg.FAINT))
    for index, (name, (xs, ys)) in enumerate(curves.items()):
        colour = (colours or COLOURS)[index % len(colours or COLOURS)]
        ys = np.asarray(ys, dtype=np.float64)
        kept = np.isfinite(ys)
        x = left + wide * (np.asarray(xs, dtype=np.float64)[kept] - low) / (high - low)
        y = top + tall * (1 - np.clip(ys[kept], 0, 1))
        if drawn[name]:
            body.append(svg.polyline(np.stack([x, y], axis=1).tolist(), colour, tip=name))
        row = top + 6 + 16 * index
        body += [svg.rectangle(legend, row - 4, 16, 4, colour)]
        body.append(svg.text(legend + 22, row + 2, names[name], 11))
    return svg.picture(width, max(top + tall + 44, top + 22 + 16 * len(curves)), ''.join(body), title)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    shares,
    texts: Sequence[Sequence[str]],
    x_label: str = '',
    y_label: str = '',
    diagonal: bool = False,
) -> str:
    """A matrix of coloured cells, each with a text.

    Args:
        title: Above the chart.
        rows: Names, r of them.
        columns: Names, c of them; turned where they are wider than a cell.
        shares: (r, c) from 0 (white) to 1, NaN for a cell that is left empty.
        texts: What stands in each cell.
        x_label: What the columns are.
        y_label: What the rows are.
        diagonal: Whether cells off the diagonal are mistakes, which are coloured red.

    Raises:
        ValueError: Shares or texts of another shape, or a share outside 0 to 1.
    """
    shares = np.asarray(shares, dtype=np.float64)
    shape = (len(rows), len(columns))
    if shares.shape != shape or len(texts) != len(rows) or any(len(line) != len(columns) for line in texts):
        raise ValueError(f'shares and texts must be {shape}, got {shares.shape} and {[len(line) for line in texts]}')
    if ((shares < 0) | (shares > 1)).any():
        raise ValueError(f'shares must be 0 to 1, got {shares.tolist()}')
    cell = max(25, 10 + round(max(svg.text_width(text, 10) for line in texts for text in line)))
    wide = max(svg.text_width(name, 11) for name in columns)
    turned = wide > cell - 4
    left = (34 if y_label else 8) + max(svg.text_width(name, 11) for name in rows)
    top = _TITLE + (20 if x_label else 0) + (0.71 * wide if turned else 12)
    body = [_heading(title)]
    body.append(svg.text(left + cell * len(columns) / 2, _TITLE + 4, x_label, 11, 'middle', fill=svg.FAINT))
    body.append(svg.text(13, top + 12 * len(rows), y_label, 11, 'middle', -90, svg.FAINT))
    for column, name in enumerate(columns):
        x = left + (column + 0.5) * cell
        body.append(svg.text(x, top - 6, name, 11, *(('start', -45) if turned else ('middle',))))
    for row, name in enumerate(rows):
        y = top + row * 24
        body.append(svg.text(left - 6, y + 16, name, 11, 'end'))
        for column, other in enumerate(columns):
            share, text, x = float(shares[row, column]), texts[row][column], left + column * cell
            if math.isnan(share):
                continue
            fill = _shade(share, not diagonal or row == column)
            body.append(svg.rectangle(x, y, cell - 1, 23, fill, f'{name} / {other}: {text} ({share:.1%})'))
            body.append(svg.text(x + cell / 2, y + 16, text, 10, 'middle', fill='#ffffff' if share > 0.35 else svg.INK))
    tail = 0.71 * wide if turned else 0
    return svg.picture(left + cell * len(columns) + tail, top + 24 * len(rows) + 8, ''.join(body), title)


def _shade(share: float, right: bool) -> str:
    """White at 0; towards 1 blue, or red for what is wrong."""
    full = np.array((38, 98, 176) if right else (200, 54, 54))
    return svg.rgb(np.round(246 + (full - 246) * share**0.6))


def _heading(title: str) -> str:
    return svg.text(0, 16, title, 14)


def _legend(names, x: float, y: float) -> list[str]:
    parts = []
    for index, name in enumerate(names):
        parts += [svg.rectangle(x, y - 8, 10, 10, COLOURS[index % len(COLOURS)]), svg.text(x + 14, y + 1, name, 11)]
        x += 30 + svg.text_width(name, 11)
    return parts


def _checked(labels, series) -> np.ndarray:
    values = [np.asarray(column, dtype=np.float64) for column in series.values()]
    for name, column in zip(series, values, strict=True):
        if column.shape != (len(labels),):
            raise ValueError(f'series {name!r} must have a value for each of {len(labels)} labels, got {column.shape}')
        if np.isinf(column).any() or (column < 0).any():
            raise ValueError(f'series {name!r} must be 0 or more, got {column.tolist()}')
    return np.stack(values) if values else np.zeros((0, len(labels)))

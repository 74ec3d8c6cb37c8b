"""Charts as SVG text: bars, columns, curves and a heat map, and the elements that they are drawn with.

Titles, labels and names may be any text; they are escaped.
"""

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

INK = '#24292f'
FAINT = '#8c959f'
GRID = '#e4e7eb'
# Mean width of a character of a sans-serif font over its size.
CHARACTER_WIDTH = 0.6
# Characters that neither HTML nor XML may hold, lone surrogates among them.
_FORBIDDEN = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]')
# Colours of series, in their order.
COLOURS = ('#4078c8', '#e07b39', '#5a9a52', '#b04a8a', '#8a7a3c', '#3aa0a8', '#8c6bd1', '#c94f4f')
# Pixels: height of a bar's row, space between groups of bars, height of a chart's title.
_ROW, _GAP, _TITLE = 16, 10, 30


def escape(text: object) -> str:
    """Escapes ``text`` for the content and the quoted attributes of HTML and SVG.

    Characters that neither format may hold become U+FFFD.
    """
    return html.escape(_FORBIDDEN.sub('\ufffd', str(text)), quote=True)


def svg_element(name: str, content: str = '', **attributes: str | float) -> str:
    """An element.

    Args:
        name: The element's name.
        content: Markup.
        **attributes: Names of attributes, in which '_' stands for '-', and their values, which are escaped.
    """
    pairs = ''.join(f' {key.strip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    return f'<{name}{pairs}>{content}</{name}>' if content else f'<{name}{pairs}/>'


def svg_text(
    x: float, y: float, content: object, size: int = 12, anchor: str = 'start', turn: float = 0, fill: str = INK
) -> str:
    """A line of text.

    Args:
        x: Where the anchor is.
        y: Where the baseline is.
        content: The text, which is escaped.
        size: Size of the font in pixels.
        anchor: Which point of the text is at ``x``: 'start', 'middle' or 'end'.
        turn: Rotation about (x, y) in degrees, clockwise.
        fill: Colour.
    """
    turned = {'transform': f'rotate({_value(turn)} {_value(x)} {_value(y)})'} if turn else {}
    return svg_element('text', escape(content), x=x, y=y, font_size=size, text_anchor=anchor, fill=fill, **turned)


def svg_rectangle(x: float, y: float, width: float, height: float, fill: str, tip: str = '') -> str:
    """A filled rectangle; the text ``tip`` is shown when the pointer rests on it."""
    content = svg_element('title', escape(tip)) if tip else ''
    return svg_element('rect', content, x=x, y=y, width=max(width, 0), height=max(height, 0), fill=fill)


def svg_line(x1: float, y1: float, x2: float, y2: float, stroke: str = GRID) -> str:
    """A thin line."""
    return svg_element('line', x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke)


def svg_polyline(points: Iterable[Sequence[float]], stroke: str, tip: str = '') -> str:
    """A line through (x, y) points; the text ``tip`` is shown when the pointer rests on it."""
    content = svg_element('title', escape(tip)) if tip else ''
    path = ' '.join(f'{_value(x)},{_value(y)}' for x, y in points)
    return svg_element('polyline', content, points=path, fill='none', stroke=stroke, stroke_width=1.8)


def svg_picture(width: float, height: float, body: str, label: str) -> str:
    """A whole picture that keeps its proportions when the page is narrow; ``label`` describes it to screen readers."""
    return svg_element(
        'svg',
        body,
        xmlns='http://www.w3.org/2000/svg',
        viewBox=f'0 0 {_value(width)} {_value(height)}',
        width=width,
        height=height,
        role='img',
        aria_label=label,
        font_family='system-ui, "Segoe UI", "DejaVu Sans", Arial, sans-serif',
    )


def text_width(content: object, size: int = 12) -> float:
    """The approximate width of a line of text in pixels."""
    return len(str(content)) * size * CHARACTER_WIDTH


def rgb(colour: Iterable[float]) -> str:
    """A colour (red, green, blue), 0 to 255 each, as SVG and CSS write it."""
    return '#{:02x}{:02x}{:02x}'.format(*(int(value) for value in colour))


def number(value: float | None) -> str:
    """A figure as people read it: integers with a comma per thousand, floats with three decimals, '-' for no figure."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return '-'
    return f'{value:,}' if float(value) == int(value) and not isinstance(value, float) else f'{value:.3f}'


def _value(value: str | float) -> str:
    """The value of an attribute: text is escaped, a number gets at most two decimals."""
    if isinstance(value, str):
        return escape(value)
    if not math.isfinite(value):
        raise ValueError(f'a coordinate of an SVG picture must be finite, got {value}')
    return f'{value:.2f}'.rstrip('0').rstrip('.')


def bar_chart(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    stacked: bool = False,
    show: Callable[[float], str] = number,
    width: int = 760,
) -> str:
    """Horizontal bars, one group of bars per label.

    Args:
        title: Text above the chart.
        labels: Name of each group.
        series: Name of a series -> one value per label, 0 or more; NaN where there is none (no bar, and '-' as text).
        stacked: Whether the bars of a group are put end to end in one row, with their sum as text; otherwise they lie
            below one another.
        show: Makes the text of a value.
        width: Width of the chart in pixels.

    Raises:
        ValueError: A series has another length than the labels, or a value is negative or infinite.
    """
    values = _checked(labels, series)
    left = 14 + max([text_width(label) for label in labels], default=0)
    filled = np.nan_to_num(values)
    most = max(float((filled.sum(axis=0) if stacked else filled).max(initial=0)), 1e-9)
    texts = [show(value) for value in (filled.sum(axis=0) if stacked else values).ravel().tolist()]
    scale = (width - left - 16 - max([text_width(t, 11) for t in texts], default=0)) / most
    rows = 1 if stacked else len(series)
    top = _TITLE + (22 if len(series) > 1 else 0)
    body = [_heading(title), *(_legend(list(series), left, _TITLE + 4) if len(series) > 1 else [])]
    for group, label in enumerate(labels):
        y = top + group * (rows * _ROW + _GAP)
        body.append(svg_text(left - 8, y + rows * _ROW / 2 + 4, label, anchor='end'))
        x = left
        for index, name in enumerate(series):
            value = values[index, group]
            row = y + (0 if stacked else index * _ROW)
            length = 0 if math.isnan(value) else value * scale
            tip = f'{label}, {name}: {show(float(value))}' if name else f'{label}: {show(float(value))}'
            body.append(svg_rectangle(x, row + 1, length, _ROW - 2, COLOURS[index % len(COLOURS)], tip))
            if stacked:
                x += length
            else:
                body.append(svg_text(left + length + 5, row + _ROW - 4, show(float(value)), 11))
        if stacked:
            body.append(svg_text(x + 5, y + _ROW - 4, show(float(filled[:, group].sum())), 11))
    return svg_picture(width, top + len(labels) * (rows * _ROW + _GAP), ''.join(body), title)


def column_chart(
    title: str, labels: Sequence[str], values: Sequence[float], x_label: str = '', width: int = 760
) -> str:
    """The columns of a histogram, each with its value above and its label below.

    Args:
        title: Text above the chart.
        labels: Name of each column; names are turned by 45 degrees where they are wider than a column.
        values: One value per label, 0 or more, shown as an integer.
        x_label: Text below the chart.
        width: Width of the chart in pixels.

    Raises:
        ValueError: There are more or fewer values than labels, or a value is negative or infinite.
    """
    counts = _checked(labels, {'': values})[0]
    step = (width - 20) / max(len(labels), 1)
    turned = max([text_width(label, 11) for label in labels], default=0) > step - 4
    under = 12 + (max(text_width(label, 11) for label in labels) * 0.71 if turned else 8)
    top, tall = _TITLE + 16, 150
    most = max(float(np.nanmax(counts, initial=0)), 1e-9)
    body = [_heading(title), svg_line(10, top + tall, width - 10, top + tall, FAINT)]
    for index, (label, value) in enumerate(zip(labels, counts.tolist(), strict=True)):
        x, height = 10 + index * step, value / most * tall
        tip = f'{label}: {number(int(value))}'
        body.append(svg_rectangle(x + step * 0.12, top + tall - height, step * 0.76, height, COLOURS[0], tip))
        body.append(svg_text(x + step / 2, top + tall - height - 4, number(int(value)), 10, 'middle'))
        if turned:
            body.append(svg_text(x + step / 2 + 4, top + tall + 14, label, 11, 'end', -45))
        else:
            body.append(svg_text(x + step / 2, top + tall + 15, label, 11, 'middle'))
    height = top + tall + under
    if x_label:
        height += 18
        body.append(svg_text(width / 2, height - 4, x_label, 11, 'middle', fill=FAINT))
    return svg_picture(width, height + 4, ''.join(body), title)


def curve_chart(
    title: str,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] = (0.0, 1.0),
    colours: Sequence[str] | None = None,
    x_ticks: Sequence[float] | None = None,
) -> str:
    """Curves whose y lies between 0 and 1, with a legend on the right.

    Args:
        title: Text above the chart.
        curves: Name of a curve -> x and y of its points. Points whose y is NaN are left out; the legend adds '(none)'
            to the name of a curve that has no other points.
        x_label: Text below the horizontal axis.
        y_label: Text beside the vertical axis.
        x_range: Smallest and largest x of the horizontal axis.
        colours: Colours of the curves, in their order; ``COLOURS`` by default.
        x_ticks: Values of x at which the horizontal axis has a label; by default six, equally far apart.
    """
    wide, tall, left, top = 330, 250, 52, _TITLE + 8
    legend = left + wide + 16
    low, high = x_range
    drawn = {name: bool(np.isfinite(np.asarray(ys, dtype=np.float64)).any()) for name, (_, ys) in curves.items()}
    names = {name: name if found else f'{name} (none)' for name, found in drawn.items()}
    width = legend + 28 + max([text_width(name, 11) for name in names.values()], default=0)
    body = [_heading(title)]
    ticks = np.linspace(low, high, 6).tolist() if x_ticks is None else list(x_ticks)
    for tick in ticks:
        x = left + wide * (tick - low) / (high - low)
        body += [svg_line(x, top, x, top + tall), svg_text(x, top + tall + 16, f'{tick:g}', 11, 'middle')]
    for tick in np.linspace(0, 1, 6).tolist():
        y = top + tall * (1 - tick)
        body += [svg_line(left, y, left + wide, y), svg_text(left - 6, y + 4, f'{tick:.1f}', 11, 'end')]
    body.append(svg_text(left + wide / 2, top + tall + 34, x_label, 11, 'middle', fill=FAINT))
    body.append(svg_text(14, top + tall / 2, y_label, 11, 'middle', -90, FAINT))
    for index, (name, (xs, ys)) in enumerate(curves.items()):
        colour = (colours or COLOURS)[index % len(colours or COLOURS)]
        ys = np.asarray(ys, dtype=np.float64)
        kept = np.isfinite(ys)
        x = left + wide * (np.asarray(xs, dtype=np.float64)[kept] - low) / (high - low)
        y = top + tall * (1 - np.clip(ys[kept], 0, 1))
        if drawn[name]:
            body.append(svg_polyline(np.stack([x, y], axis=1).tolist(), colour, tip=name))
        row = top + 6 + 16 * index
        body += [svg_rectangle(legend, row - 4, 16, 4, colour)]
        body.append(svg_text(legend + 22, row + 2, names[name], 11))
    return svg_picture(width, max(top + tall + 44, top + 22 + 16 * len(curves)), ''.join(body), title)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    shares: ArrayLike,
    texts: Sequence[Sequence[str]],
    x_label: str = '',
    y_label: str = '',
    diagonal: bool = False,
) -> str:
    """A matrix of coloured cells, each with a text.

    Args:
        title: Text above the chart.
        rows: Names of the r rows.
        columns: Names of the c columns; they are turned by 45 degrees where they are wider than a cell.
        shares: (r, c) values from 0 (white) to 1 (full colour); NaN leaves a cell empty.
        texts: r lists of c texts, one per cell.
        x_label: Text above the columns, which says what they are.
        y_label: Text beside the rows, which says what they are.
        diagonal: Whether the cells off the diagonal are mistakes; these are coloured red instead of blue.

    Raises:
        ValueError: Shares or texts have another shape, or a share lies outside 0 to 1.
    """
    shares = np.asarray(shares, dtype=np.float64)
    shape = (len(rows), len(columns))
    if shares.shape != shape or len(texts) != len(rows) or any(len(line) != len(columns) for line in texts):
        raise ValueError(f'shares and texts must be {shape}, got {shares.shape} and {[len(line) for line in texts]}')
    if ((shares < 0) | (shares > 1)).any():
        raise ValueError(f'shares must be 0 to 1, got {shares.tolist()}')
    cell = max(25, 10 + round(max(text_width(text, 10) for line in texts for text in line)))
    wide = max(text_width(name, 11) for name in columns)
    turned = wide > cell - 4
    left = (34 if y_label else 8) + max(text_width(name, 11) for name in rows)
    top = _TITLE + (20 if x_label else 0) + (0.71 * wide if turned else 12)
    body = [_heading(title)]
    body.append(svg_text(left + cell * len(columns) / 2, _TITLE + 4, x_label, 11, 'middle', fill=FAINT))
    body.append(svg_text(13, top + 12 * len(rows), y_label, 11, 'middle', -90, FAINT))
    for column, name in enumerate(columns):
        x = left + (column + 0.5) * cell
        body.append(svg_text(x, top - 6, name, 11, *(('start', -45) if turned else ('middle',))))
    for row, name in enumerate(rows):
        y = top + row * 24
        body.append(svg_text(left - 6, y + 16, name, 11, 'end'))
        for column, other in enumerate(columns):
            share, text, x = float(shares[row, column]), texts[row][column], left + column * cell
            if math.isnan(share):
                continue
            fill = _shade(share, not diagonal or row == column)
            body.append(svg_rectangle(x, y, cell - 1, 23, fill, f'{name} / {other}: {text} ({share:.1%})'))
            body.append(svg_text(x + cell / 2, y + 16, text, 10, 'middle', fill='#ffffff' if share > 0.35 else INK))
    tail = 0.71 * wide if turned else 0
    return svg_picture(left + cell * len(columns) + tail, top + 24 * len(rows) + 8, ''.join(body), title)


def _shade(share: float, right: bool) -> str:
    """Nearly white at a share of 0, and blue at 1 for what is right or red for what is wrong."""
    full = np.array((38, 98, 176) if right else (200, 54, 54))
    return rgb(np.round(246 + (full - 246) * share**0.6))


def _heading(title: str) -> str:
    return svg_text(0, 16, title, 14)


def _legend(names: Sequence[str], x: float, y: float) -> list[str]:
    parts = []
    for index, name in enumerate(names):
        parts += [svg_rectangle(x, y - 8, 10, 10, COLOURS[index % len(COLOURS)]), svg_text(x + 14, y + 1, name, 11)]
        x += 30 + text_width(name, 11)
    return parts


def _checked(labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> np.ndarray:
    """(s, n) values of s series for n labels, after the checks that the charts promise."""
    values = [np.asarray(column, dtype=np.float64) for column in series.values()]
    for name, column in zip(series, values, strict=True):
        if column.shape != (len(labels),):
            raise ValueError(f'series {name!r} must have a value for each of {len(labels)} labels, got {column.shape}')
        if np.isinf(column).any() or (column < 0).any():
            raise ValueError(f'series {name!r} must be 0 or more, got {column.tolist()}')
    return np.stack(values) if values else np.zeros((0, len(labels)))

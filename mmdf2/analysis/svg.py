"""Elements of SVG pictures as text: escaped, with short numbers."""

import html
import math
import re

INK = '#24292f'
FAINT = '#8c959f'
GRID = '#e4e7eb'
# Mean width of a character of a sans-serif font over its size.
CHARACTER_WIDTH = 0.6
# Characters that neither HTML nor XML may hold, lone surrogates among them.
_FORBIDDEN = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]')


def escape(text) -> str:
    """``text`` for use in HTML and SVG, in content as in quoted attributes; what neither may hold becomes U+FFFD."""
    return html.escape(_FORBIDDEN.sub('\ufffd', str(text)), quote=True)


def element(name: str, content: str = '', **attributes) -> str:
    """An element; ``content`` is markup, values of attributes are escaped, '_' in their names stands for '-'."""
    pairs = ''.join(f' {key.strip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    return f'<{name}{pairs}>{content}</{name}>' if content else f'<{name}{pairs}/>'


def text(x: float, y: float, content, size: int = 12, anchor: str = 'start', turn: float = 0, fill: str = INK) -> str:
    """A line of text with its baseline at ``y``; ``anchor`` is start, middle or end, ``turn`` in degrees."""
    turned = {'transform': f'rotate({_value(turn)} {_value(x)} {_value(y)})'} if turn else {}
    return element('text', escape(content), x=x, y=y, font_size=size, text_anchor=anchor, fill=fill, **turned)


def rectangle(x: float, y: float, width: float, height: float, fill: str, tip: str = '') -> str:
    """A filled rectangle; ``tip`` is shown when the pointer rests on it."""
    content = element('title', escape(tip)) if tip else ''
    return element('rect', content, x=x, y=y, width=max(width, 0), height=max(height, 0), fill=fill)


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = GRID) -> str:
    """A thin line."""
    return element('line', x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke)


def polyline(points, stroke: str, dashes: str = '', tip: str = '') -> str:
    """A line through (x, y) points."""
    content = element('title', escape(tip)) if tip else ''
    path = ' '.join(f'{_value(x)},{_value(y)}' for x, y in points)
    dashed = {'stroke_dasharray': dashes} if dashes else {}
    return element('polyline', content, points=path, fill='none', stroke=stroke, stroke_width=1.8, **dashed)


def picture(width: float, height: float, body: str, label: str) -> str:
    """A whole picture that keeps its proportions when the page is narrow; ``label`` describes it to screen readers."""
    return element(
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


def text_width(content, size: int = 12) -> float:
    """About how wide a line of text is, in pixels."""
    return len(str(content)) * size * CHARACTER_WIDTH


def rgb(colour) -> str:
    """An (r, g, b) colour, 0 to 255 each, for SVG and CSS."""
    return '#{:02x}{:02x}{:02x}'.format(*(int(value) for value in colour))


def number(value) -> str:
    """A figure for people: thousands set apart, three decimals of a fraction, '-' where it is undefined."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return '-'
    return f'{value:,}' if float(value) == int(value) and not isinstance(value, float) else f'{value:.3f}'


def _value(value) -> str:
    if isinstance(value, str):
        return escape(value)
    if not math.isfinite(value):
        raise ValueError(f'a coordinate of an SVG picture must be finite, got {value}')
    return f'{value:.2f}'.rstrip('0').rstrip('.')

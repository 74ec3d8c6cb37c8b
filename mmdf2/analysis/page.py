"""One self-contained HTML page: sections with a table of contents, tables, charts and embedded pictures.

Blocks are markup that the functions of this module and of ``charts`` make; they escape every text. The content security
policy of the page keeps a browser from loading or running anything.
"""

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mmdf2.analysis.charts import escape
from mmdf2.files import write_json

_STYLE = """
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", Arial, sans-serif; color: #24292f; background: #fff;
  margin: 0 auto; max-width: 1280px; padding: 0 28px 60px; }
h1 { margin: 28px 0 4px; } h2 { margin: 44px 0 8px; border-bottom: 1px solid #d8dee4; padding-bottom: 4px; }
h3 { margin: 26px 0 6px; } p { max-width: 900px; margin: 6px 0 12px; }
nav a { margin-right: 18px; white-space: nowrap; }
nav { position: sticky; top: 0; background: #fff; border-bottom: 1px solid #d8dee4; padding: 8px 0; }
section { scroll-margin-top: 60px; } h3 { scroll-margin-top: 60px; }
a { color: #1f5fae; text-decoration: none; } svg { display: block; max-width: 100%; height: auto; margin: 12px 0; }
table { border-collapse: collapse; margin: 10px 0 18px; font-size: 14px; }
th, td { padding: 3px 10px; border-bottom: 1px solid #e4e7eb; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child, td.words, th.words { text-align: left; } thead th { border-bottom: 2px solid #afb8c1; }
.scroll { overflow-x: auto; } .row { display: flex; flex-wrap: wrap; gap: 20px 28px; align-items: flex-start; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 16px; }
figure { margin: 0 0 12px; } figure img { max-width: 100%; border-radius: 3px; background: #eee; }
figcaption { font-size: 12.5px; line-height: 1.35; overflow-wrap: anywhere; }
.note { color: #57606a; font-size: 13.5px; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass
class Section:
    """A section of the page.

    Attributes:
        name: Anchor of the section, of letters and dashes.
        title: Heading of the section, and its entry in the table of contents.
        blocks: Markup of the section's content.
    """

    name: str
    title: str
    blocks: list[str] = field(default_factory=list)


def paragraph(text: str, note: bool = False) -> str:
    """A paragraph of text; a ``note`` has a smaller font."""
    return f'<p class="note">{escape(text)}</p>' if note else f'<p>{escape(text)}</p>'


def heading(text: str) -> str:
    """A heading within a section."""
    return f'<h3>{escape(text)}</h3>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], words: Sequence[int] = ()) -> str:
    """A table of texts.

    Args:
        header: Names of the columns.
        rows: Rows with one cell per column.
        words: Numbers, from 0, of the columns that are aligned left as the first one is; the others hold figures and
            are aligned right.

    Raises:
        ValueError: A row has more or fewer cells than the header.
    """
    lines = [_row(header, 'th', words)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f'a row must have {len(header)} cells as the header has, got {len(row)}: {list(row)}')
        lines.append(_row(row, 'td', words))
    return f'<div class="scroll"><table><thead>{lines[0]}</thead><tbody>{"".join(lines[1:])}</tbody></table></div>'


def row(blocks: Iterable[str]) -> str:
    """Blocks side by side where the page is wide enough."""
    return f'<div class="row">{"".join(f"<div>{block}</div>" for block in blocks)}</div>'


def figure(image: np.ndarray, caption: str, quality: int = 84) -> str:
    """An embedded picture with its caption.

    Args:
        image: (H, W, 3) uint8 RGB.
        caption: Text below the picture; line breaks are kept.
        quality: Quality of the JPEG, 1 to 100.
    """
    _, data = cv2.imencode('.jpg', np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    source = base64.b64encode(data.tobytes()).decode('ascii')
    height, width = image.shape[:2]
    lines = '<br>'.join(escape(line) for line in caption.split('\n'))
    return (
        f'<figure><img src="data:image/jpeg;base64,{source}" width="{width}" height="{height}" '
        f'style="height:auto" alt="{escape(caption)}"><figcaption>{lines}</figcaption></figure>'
    )


def sheet(figures: Iterable[str]) -> str:
    """A grid of figures."""
    return f'<div class="sheet">{"".join(figures)}</div>'


def build_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The text of the page.

    Args:
        title: Heading of the page.
        lead: Paragraph below the heading.
        sections: Sections in their order; the table of contents names each of them.
    """
    links = ''.join(f'<a href="#{escape(section.name)}">{escape(section.title)}</a>' for section in sections)
    bodies = ''.join(
        f'<section id="{escape(section.name)}"><h2>{escape(section.title)}</h2>{"".join(section.blocks)}</section>\n'
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f'<body><h1>{escape(title)}</h1>{paragraph(lead)}<nav>{links}</nav>\n{bodies}</body></html>\n'
    )


def write_numbers(path: str | Path, numbers: object) -> None:
    """Replaces a file by JSON of nested dicts, lists and numbers, NumPy's included; NaN becomes null.

    Raises:
        ValueError: A number is infinite.
    """
    write_json(path, _plain(numbers))


def _plain(value: object) -> object:
    """A value as JSON can hold it: keys become text, arrays lists, NaN None."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _row(cells: Sequence[object], tag: str, words: Sequence[int]) -> str:
    """A row of a table whose cells are ``tag`` elements."""
    parts = [
        f'<{tag} class="words">{escape(cell)}</{tag}>' if place in words else f'<{tag}>{escape(cell)}</{tag}>'
        for place, cell in enumerate(cells)
    ]
    return f'<tr>{"".join(parts)}</tr>'

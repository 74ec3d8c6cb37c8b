"""Charts are well-formed SVG whose shapes are as large as the values."""

from xml.etree import ElementTree

import numpy as np
import pytest

from mmdf2.analysis.charts import bar_chart, column_chart, curve_chart, heat_map, number, svg_rectangle

HOSTILE = '<script>"&\'\x00\ud800</script>'


def parse(picture):
    root = ElementTree.fromstring(picture)
    for parent in root.iter():
        parent.tag = parent.tag.removeprefix('{http://www.w3.org/2000/svg}')
    return root


def with_tips(root, tag):
    """The shapes with a tip: text of the tip -> element."""
    return {shape.find('title').text: shape for shape in root.iter(tag) if shape.find('title') is not None}


def texts(root):
    return [''.join(text.itertext()) for text in root.iter('text')]


def test_bars_are_as_long_as_their_values():
    root = parse(bar_chart('t', ['a', 'b'], {'x': [10, 5], 'y': [0, float('nan')]}))
    widths = {tip: float(bar.get('width')) for tip, bar in with_tips(root, 'rect').items()}
    assert widths['a, x: 10.000'] == pytest.approx(2 * widths['b, x: 5.000'], abs=0.02)
    assert widths['a, y: 0.000'] == widths['b, y: -'] == 0
    assert '-' in texts(root)


def test_stacked_bars_end_to_end():
    root = parse(bar_chart('t', ['a'], {'x': [2], 'y': [6]}, stacked=True))
    first, second = with_tips(root, 'rect').values()
    assert float(second.get('x')) == pytest.approx(float(first.get('x')) + float(first.get('width')), abs=0.02)
    assert float(second.get('width')) == pytest.approx(3 * float(first.get('width')), abs=0.05)
    assert '8.000' in texts(root)


def test_columns_stand_on_the_axis():
    root = parse(column_chart('t', ['a', 'b', 'c'], [4, 0, 2]))
    bars = list(with_tips(root, 'rect').values())
    heights = [float(bar.get('height')) for bar in bars]
    assert heights == [150, 0, 75]
    assert {float(bar.get('y')) + float(bar.get('height')) for bar in bars} == {196.0}


def test_wide_labels_of_columns_are_turned():
    turned = column_chart('t', ['a very long label indeed'] * 20, np.ones(20))
    assert turned.count('rotate(-45') == 20 and 'rotate' not in column_chart('t', ['a'], [1])


def test_curve_goes_through_its_points_and_leaves_undefined_ones_out():
    curves = {'up': ([0, 0.5, 1], [0, np.nan, 1]), 'none': ([0, 1], [np.nan] * 2)}
    root = parse(curve_chart('t', curves, 'x', 'y'))
    (line,) = root.iter('polyline')
    (x1, y1), (x2, y2) = (map(float, point.split(',')) for point in line.get('points').split())
    assert (x2 - x1, y1 - y2) == (330, 250)
    assert 'none (none)' in texts(root) and 'up' in texts(root)


def test_heat_map_leaves_undefined_cells_empty():
    root = parse(heat_map('t', ['r', 's'], ['c', 'd'], [[0, 1], [np.nan, 0.5]], [['1', '2'], ['', '3']]))
    cells = with_tips(root, 'rect')
    assert set(cells) == {'r / c: 1 (0.0%)', 'r / d: 2 (100.0%)', 's / d: 3 (50.0%)'}
    assert cells['r / c: 1 (0.0%)'].get('fill') == '#f6f6f6' and cells['r / d: 2 (100.0%)'].get('fill') == '#2662b0'


@pytest.mark.parametrize(
    'chart',
    [
        lambda name: bar_chart(name, [name], {name: [1], 'b': [2]}),
        lambda name: column_chart(name, [name], [1], name),
        lambda name: curve_chart(name, {name: ([0, 1], [0, 1])}, name, name),
        lambda name: heat_map(name, [name], [name], [[1]], [[name]], name, name),
    ],
    ids=['bars', 'columns', 'curves', 'heat map'],
)
def test_hostile_names_are_text(chart):
    picture = chart(HOSTILE)
    assert '<script' not in picture
    assert HOSTILE.replace('\x00', '\ufffd').replace('\ud800', '\ufffd') in texts(parse(picture))
    picture.encode('utf-8')


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="series 'x' must have a value for each of 2 labels"):
        bar_chart('t', ['a', 'b'], {'x': [1]})
    with pytest.raises(ValueError, match='must be 0 or more'):
        bar_chart('t', ['a'], {'x': [-1]})
    with pytest.raises(ValueError, match=r'shares and texts must be \(1, 2\)'):
        heat_map('t', ['a'], ['b', 'c'], [[0.1]], [['x']])
    with pytest.raises(ValueError, match='shares must be 0 to 1'):
        heat_map('t', ['a'], ['b'], [[1.5]], [['x']])
    with pytest.raises(ValueError, match='must be finite'):
        svg_rectangle(float('inf'), 0, 1, 1, '#000')


def test_numbers_for_people():
    assert [number(value) for value in (1234567, 0.12345, 2.0, None, float('nan'))] == [
        '1,234,567',
        '0.123',
        '2.000',
        '-',
        '-',
    ]

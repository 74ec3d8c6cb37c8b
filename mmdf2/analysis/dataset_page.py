"""The page that shows the statistics of a dataset, from the counts of ``statistics.dataset_statistics``."""

import math
from collections.abc import Sequence

from mmdf2.analysis.charts import bar_chart, column_chart, heat_map, number
from mmdf2.analysis.page import Section, build_page, paragraph, row, table
from mmdf2.analysis.statistics import PUBLISHED_SHARES, PUBLISHED_TABLE
from mmdf2.evaluation.records import ATTRIBUTE_VALUES


def dataset_page(statistics: dict, name: str) -> str:
    """The text of the page.

    Args:
        statistics: The counts, as ``dataset_statistics`` returns them.
        name: Name of the dataset or split that was counted.
    """
    images = statistics['images']
    lead = (
        f'{name}: {images["user"]:,} consumer images, {images["shop"]:,} shop images; '
        f'{images["without items"]:,} without an item.'
    )
    sections = [
        Section('table', 'Sizes', _sizes(statistics)),
        Section('attributes', 'Attributes', _attributes(statistics['attributes'])),
        Section('categories', 'Categories', _categories(statistics['categories'])),
        Section('landmarks', 'Landmarks', _landmarks(statistics)),
        Section('identities', 'Identities and pairs', _identities(statistics)),
        Section('boxes', 'Boxes', _boxes(statistics)),
    ]
    return build_page('Statistics of the dataset', lead, sections)


def _sizes(statistics: dict) -> list[str]:
    """The paper's Table 1, counted here and as published."""
    names = list(statistics['table'])
    rows = [
        [name, number(statistics['table'][name]), number(PUBLISHED_TABLE[name]) if name in PUBLISHED_TABLE else '']
        for name in names
    ]
    note = (
        "The paper's Table 1 describes the whole dataset, of which a part was released. 'landmarks' and 'masks' count "
        'the items that have them; a pair is a consumer item and a shop item of one identity.'
    )
    return [table(['', 'here', 'paper (whole dataset)'], rows), paragraph(note, note=True)]


def _attributes(attributes: dict[str, dict[str, int]]) -> list[str]:
    """The paper's Figure 3, counted here and as published."""
    charts, unknown = [], []
    for attribute, names in ATTRIBUTE_VALUES.items():
        counts = [attributes[attribute][value] for value in names]
        total = sum(counts)
        shares = [count / total if total else float('nan') for count in counts]
        labels = [value.replace('_', ' ') for value in names]
        series = {'here': shares, 'paper, Figure 3': PUBLISHED_SHARES[attribute]}
        charts.append(bar_chart(attribute.replace('_', '-'), labels, series, show=_percent, width=480))
        if attributes[attribute]['unknown']:
            unknown.append(f'{attribute}: {attributes[attribute]["unknown"]:,}')
    blocks = [row(charts)]
    if unknown:
        blocks.append(
            paragraph(f'Items whose attribute is unknown, which no share includes: {", ".join(unknown)}.', note=True)
        )
    return blocks


def _percent(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.1%}'


def _categories(categories: dict[str, dict[str, int]]) -> list[str]:
    """Items per category and source."""
    series = {'consumer': [c['user'] for c in categories.values()], 'shop': [c['shop'] for c in categories.values()]}
    chart = bar_chart('Items per category', list(categories), series, stacked=True, show=_whole, width=900)
    total = max(sum(map(sum, series.values())), 1)
    rows = [
        [name, number(c['user']), number(c['shop']), number(c['user'] + c['shop']), _percent(sum(c.values()) / total)]
        for name, c in categories.items()
    ]
    return [chart, table(['category', 'consumer', 'shop', 'items', 'share'], rows)]


def _whole(value: float) -> str:
    return f'{value:,.0f}'


def _landmarks(statistics: dict) -> list[str]:
    """Landmarks per category, per item, and how often each is visible."""
    counts = statistics['landmarks']
    sums = {name: [sum(column) for column in zip(*rows, strict=True)] for name, rows in counts.items()}
    series = {
        label: [sums[name][visibility] for name in counts]
        for visibility, label in ((2, 'visible'), (1, 'occluded'), (0, 'not labelled'))
    }
    chart = bar_chart('Landmarks per category', list(counts), series, stacked=True, show=_whole, width=900)
    most = max(map(len, counts.values()))
    shares = [[_visible_share(triple) for triple in rows] + [math.nan] * (most - len(rows)) for rows in counts.values()]
    texts = [['' if math.isnan(share) else f'{100 * share:.0f}' for share in line] for line in shares]
    return [
        chart,
        column_chart('Labelled landmarks per item', *_bars(statistics['landmarks_per_item'])),
        heat_map(
            'Share of each landmark that is visible, percent of all items of the category',
            list(counts),
            [str(landmark) for landmark in range(1, most + 1)],
            shares,
            texts,
            'number in the published figure',
        ),
    ]


def _visible_share(triple: Sequence[int]) -> float:
    """The share of visible ones among the numbers of landmarks with visibility 0, 1 and 2; NaN without landmarks."""
    return triple[2] / sum(triple) if sum(triple) else math.nan


def _identities(statistics: dict) -> list[str]:
    """Identities with one side or both, and what belongs to an identity."""
    identities = statistics['identities']
    sides = ('with both sides', 'consumer only', 'shop only')
    rows = [[f'identities {side}', number(identities[side])] for side in sides]
    rows += [['identities', number(statistics['table']['identities'])], ['pairs', number(statistics['table']['pairs'])]]
    names = ('pairs per identity', 'consumer items per identity', 'shop items per identity')
    charts = [
        column_chart(name.capitalize(), *_bars(identities[name]), x_label='each column counts identities', width=560)
        for name in names
    ]
    return [table(['', 'count'], rows), row(charts)]


def _boxes(statistics: dict) -> list[str]:
    """Sizes of boxes, and items per image."""
    return [
        column_chart('Box size: square root of its area, pixels', *_bars(statistics['box_side_pixels']), width=900),
        row(
            [
                column_chart("Box's share of the image", *_bars(statistics['box_share_of_image']), width=560),
                column_chart('Items per image', *_bars(statistics['items_per_image']), width=560),
            ]
        ),
    ]


def _bars(counts: dict[str, int]) -> tuple[list[str], list[int]]:
    """Labels and values of a column chart."""
    return list(counts), list(counts.values())

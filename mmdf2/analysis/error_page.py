"""The page that shows the failures of a system, and its figures as numbers, both from an ``ErrorReport``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmdf2.analysis.charts import bar_chart, curve_chart, heat_map, number, rgb
from mmdf2.analysis.detection_errors import DETECTION_KINDS
from mmdf2.analysis.error_report import (
    ALL_CATEGORIES,
    Cell,
    ErrorReport,
    failures_of,
    kinds_by_category,
    rank,
    right_share,
    tally,
)
from mmdf2.analysis.landmark_errors import landmark_table
from mmdf2.analysis.page import Section, build_page, heading, paragraph, row, table
from mmdf2.analysis.pictures import case_figures, cases_of, wrong_identity_figures
from mmdf2.analysis.retrieval_errors import RetrievalErrors, image_names, match_characteristic
from mmdf2.categories import CATEGORIES, CATEGORY_NAMES, MAX_LANDMARKS, PALETTE
from mmdf2.datasets.store import Store
from mmdf2.evaluation.coco import RECALL_THRESHOLDS
from mmdf2.evaluation.records import COLUMNS, OVERALL, column_members
from mmdf2.evaluation.retrieval import MAX_HITS

TASK_NAMES = {
    'bbox': 'boxes',
    'segm': 'masks',
    'keypoints_visible': 'landmarks, visible only',
    'keypoints_all': 'landmarks, visible and occluded',
}
# Rows of the ranking of subsets and categories that the page shows, and of the table of the poorest landmarks.
RANKED = 30
POOREST = 20


def error_page(report: ErrorReport, store: Store, images: Path, limit: int) -> str:
    """The text of the page.

    Args:
        report: The failures.
        store: The store of the split.
        images: Folder of the images.
        limit: Pictures of each kind of failure, at most.
    """
    cells = tally(failures_of(report), report.truth.labels, report.truth.attributes)
    sections = [
        Section('summary', 'Summary', _summary(report)),
        Section('weak', 'Where it fails', _weak_spots(cells)),
        Section('curves', 'Precision and recall', _curves(report)),
    ]
    if report.confusion is not None:
        sections.append(Section('confusion', 'Confusion', _confusion(report)))
    if report.landmarks is not None:
        sections.append(Section('landmarks', 'Landmarks', _landmarks(report)))
    if report.retrieval:
        sections.append(Section('retrieval', 'Retrieval', _retrieval(report, store, images, limit)))
    names = image_names(store)
    blocks = [paragraph('The ground truth is drawn in green, the prediction in red.', note=True)]
    for title, (kind, cases) in cases_of(report, limit).items():
        blocks += [heading(title), case_figures(report, kind, cases, images, names)]
    sections.append(Section('worst', 'The worst', blocks))
    kept = ', '.join(f'{kind} {threshold:.3f}' for kind, threshold in report.thresholds.items())
    lead = f'{store.folder.name}: {len(store):,} images, {len(report.truth.labels):,} items.'
    if kept:
        why = ', where F1 at IoU or OKS 0.5 is largest' if report.automatic else ''
        lead += (
            f' Precision and recall use all detections; failures are counted from these scores upwards{why}: {kept}.'
        )
    return build_page('Failures', lead, sections)


def error_numbers(report: ErrorReport) -> dict:
    """The figures of the page as nested dicts."""
    cells = tally(failures_of(report), report.truth.labels, report.truth.attributes)
    numbers: dict = {
        'thresholds': report.thresholds,
        'tasks': {
            task: {column: result.figures(column) for column in COLUMNS} for task, result in report.tasks.items()
        },
        'failures': [_cell(cell) for cell in cells],
        'ranking': [_cell(cell) for cell in rank(cells)],
    }
    for kind, errors in (('bbox', report.boxes), ('segm', report.masks)):
        if errors is not None:
            counts = kinds_by_category(report, errors, kind)
            numbers[f'{kind}_detections'] = {
                name: dict(zip(CATEGORY_NAMES, values.tolist(), strict=True)) for name, values in counts.items()
            }
    if report.confusion is not None:
        numbers['confusion'] = {'names': [*CATEGORY_NAMES, 'background'], 'counts': report.confusion}
    if report.landmarks is not None:
        numbers['landmarks'] = landmark_table(report.truth, report.landmarks)
    for name, found in report.retrieval.items():
        outcome = found.outcome
        numbers.setdefault('retrieval', {})[name] = {
            'queries': len(outcome.queries),
            'missed': int(outcome.missed.sum()),
            'wrong identity': int(found.wrong.sum()),
            'cmc': [outcome.top_k(k) for k in range(1, 21)],
        }
    return numbers


def _cell(cell: Cell) -> dict:
    """A cell as a dict, with its share."""
    return {**vars(cell), 'share': cell.share}


def _summary(report: ErrorReport) -> list[str]:
    """AP of every task, and what the detections are, per category."""
    blocks = []
    if report.tasks:
        figures = {task: result.figures() for task, result in report.tasks.items()}
        rows = [[TASK_NAMES[task], *(number(value) for value in line.values())] for task, line in figures.items()]
        blocks.append(table(['', 'AP', 'AP50', 'AP75', 'AR'], rows))
    for kind, errors in (('bbox', report.boxes), ('segm', report.masks)):
        if errors is None:
            continue
        what = 'boxes' if kind == 'bbox' else 'masks'
        counts = kinds_by_category(report, errors, kind)
        rows = [
            [category, *(number(counts[name][label]) for name in DETECTION_KINDS)]
            for label, category in enumerate(CATEGORY_NAMES)
        ]
        rows.append(['all', *(number(int(counts[name].sum())) for name in DETECTION_KINDS)])
        blocks += [heading(f'What the detections are, by {what}, per category of the detection')]
        blocks += [table(['category', *DETECTION_KINDS], rows)]
        blocks.append(paragraph(f'{right_share(errors):.1%} of the items are found by their {what}.'))
    note = (
        'Right: the best-scored detection of its category with IoU 0.5 or more on an item. Duplicate: any other '
        'detection of its category with IoU 0.5 or more on that item. Wrong category: IoU 0.5 or more with an item of '
        'another category. Poor position: IoU 0.1 to 0.5 with an item of its category. Wrong category and position: '
        'IoU 0.1 to 0.5 with an item of another category. Background: IoU below 0.1 with every item.'
    )
    return [*blocks, paragraph(note, note=True)]


def _weak_spots(cells: Sequence[Cell]) -> list[str]:
    """Where failures concentrate: the ranking of subsets and categories, and the shares of all of them."""
    names = list(dict.fromkeys(cell.failure for cell in cells))
    found = {(cell.failure, cell.column, cell.category): cell for cell in cells}
    total = {name: found[name, OVERALL, ALL_CATEGORIES] for name in names}
    order = sorted(names, key=lambda name: -np.nan_to_num(total[name].share))
    shares = [total[name].share for name in order]
    blocks = [bar_chart('Share of items that fail', order, {'': shares}, show=_percent)] if order else []
    rows = [
        [
            cell.failure,
            _column(cell.column),
            cell.category,
            number(cell.failed),
            number(cell.items),
            _percent(cell.share),
            _percent(total[cell.failure].share),
            f'{cell.excess:.1f}',
        ]
        for cell in rank(cells)[:RANKED]
    ]
    header = ['failure', 'subset', 'category', 'failed', 'of items', 'share', 'of all items', 'in excess']
    note = (
        'The ranking is by how many more items fail there than would fail at the rate of all items. It shows the first '
        f'{RANKED} combinations of a subset and a category with at least 10 items; the JSON file has all of them.'
    )
    blocks += [heading('Ranked'), paragraph(note, note=True), table(header, rows, words=(1, 2))]
    for title, keys, pick in (
        ('Per category, percent of items', CATEGORY_NAMES, lambda name, key: found[name, OVERALL, key]),
        ('Per subset, percent of items', COLUMNS, lambda name, key: found[name, key, ALL_CATEGORIES]),
    ):
        values = [[pick(name, key).share for name in order] for key in keys]
        texts = [['-' if np.isnan(share) else f'{100 * share:.0f}' for share in line] for line in values]
        if order:
            blocks.append(heat_map(title, [_column(key) for key in keys], order, values, texts))
    return [*blocks[:-2], row(blocks[-2:])] if order else blocks


def _curves(report: ErrorReport) -> list[str]:
    """Curves of precision over recall, and AP per subset."""
    blocks = []
    for task, result in report.tasks.items():
        precision = result.precision[result.columns.index(OVERALL)]
        measure = 'OKS' if task.startswith('keypoints') else 'IoU'
        means = {'0.5': precision[0], '0.75': precision[5], '0.5 to 0.95': _mean(precision, 0)}
        overall = {
            f'{measure} {name}: {number(float(_mean(curve.ravel(), 0)))}': (RECALL_THRESHOLDS, _mean(curve, 1))
            for name, curve in means.items()
        }
        single = {
            f'{name}: {number(result.average_precision(iou=0.5, label=label))}': (
                RECALL_THRESHOLDS,
                precision[0, :, label],
            )
            for label, name in enumerate(CATEGORY_NAMES)
        }
        charts = [
            curve_chart(f'{TASK_NAMES[task].capitalize()}, mean of categories', overall, 'recall', 'precision'),
            curve_chart(
                f'{TASK_NAMES[task].capitalize()}, {measure} 0.5', single, 'recall', 'precision', colours=_colours()
            ),
        ]
        blocks.append(row(charts))
        rows = [[_column(column), *map(number, result.figures(column).values())] for column in COLUMNS]
        blocks.append(table([TASK_NAMES[task], 'AP', 'AP50', 'AP75', 'AR'], rows))
    return blocks or [paragraph('No detections were given.')]


def _confusion(report: ErrorReport) -> list[str]:
    """The confusion matrix of categories."""
    totals = np.maximum(report.confusion.sum(axis=1, keepdims=True), 1)
    texts = [[number(count) if count else '' for count in line] for line in report.confusion.tolist()]
    names = [*CATEGORY_NAMES]
    chart = heat_map(
        'Items against detections, IoU 0.5, regardless of category',
        [*names, 'background'],
        [*names, 'missed'],
        report.confusion / totals,
        texts,
        'detected as',
        'item',
        diagonal=True,
    )
    note = 'The colour of a cell is its share of the row. The last row counts detections that match no item.'
    return [chart, paragraph(note, note=True)]


def _landmarks(report: ErrorReport) -> list[str]:
    """OKS of each landmark, and the poorest landmarks."""
    lines = landmark_table(report.truth, report.landmarks)
    shares = np.full((len(CATEGORIES), MAX_LANDMARKS), np.nan)
    for line in lines:
        shares[CATEGORY_NAMES.index(line['category']), line['landmark'] - 1] = line['oks']
    texts = [['' if np.isnan(share) else f'{100 * share:.0f}' for share in row] for row in shares.tolist()]
    numbers = [str(place) for place in range(1, MAX_LANDMARKS + 1)]
    chart = heat_map(
        'OKS of each landmark, percent', list(CATEGORY_NAMES), numbers, shares, texts, 'number in the published figure'
    )
    worst = sorted(
        (line for line in lines if line['compared']), key=lambda line: -line['below_half'] * line['compared']
    )
    rows = [
        [
            f'{line["category"]} {line["landmark"]}',
            number(line['compared']),
            number(line['oks']),
            _percent(line['below_half']),
            _percent(line['offset']),
            number(line['worst']),
        ]
        for line in worst[:POOREST]
    ]
    header = ['landmark', 'compared', 'OKS', 'below 0.5', 'offset', 'worst of a poor item']
    note = (
        'Landmarks with v > 0 of items that a detection represents (OKS 0.1 or more). The offset is the median '
        "distance divided by the square root of the box's area. The ranking is by the number of terms of OKS below 0.5."
    )
    return [chart, heading('The poorest'), paragraph(note, note=True), table(header, rows)]


def _retrieval(report: ErrorReport, store: Store, images: Path, limit: int) -> list[str]:
    """CMC curves, figures per category and subset, and queries of wrong identity; details are of the first file."""
    ranks = np.arange(1, MAX_HITS + 1)
    curves = {name: (ranks, match_characteristic(errors.outcome)) for name, errors in report.retrieval.items()}
    name, errors = next(iter(report.retrieval.items()))
    labels = report.truth.labels[errors.rows]
    single = {
        category: (ranks, match_characteristic(errors.outcome, labels == label))
        for label, category in enumerate(CATEGORY_NAMES)
    }
    colours = _colours()
    ticks = [1, 5, 10, 15, 20]
    charts = [
        curve_chart('All queries', curves, 'among the first', 'queries found', (1, MAX_HITS), x_ticks=ticks),
        curve_chart(f'Per category: {name}', single, 'among the first', 'queries found', (1, MAX_HITS), colours, ticks),
    ]
    rows = [_retrieval_row(name, errors, np.ones(len(errors.rows), bool)) for name, errors in report.retrieval.items()]
    members = column_members(COLUMNS, len(report.truth.labels), report.truth.attributes)[:, errors.rows]
    parts = [_retrieval_row(_column(c), errors, m) for c, m in zip(COLUMNS, members, strict=True)]
    header = ['', 'queries', 'top-1', 'top-5', 'top-10', 'top-20', 'missed', 'wrong identity', 'no match']
    note = (
        'Official protocol, all queries. Missed: no detection represents the item. Wrong identity: no right box among '
        'the first 20. No match: the gallery has no item of the identity, which counts as wrong in the shares.'
    )
    blocks = [row(charts), table(header, rows), heading(f'Per subset: {name}'), table(header, parts)]
    blocks += [paragraph(note, note=True), heading(f'Wrong identity: {name}, the best-scored queries first')]
    figures = wrong_identity_figures(errors, report.lists[name], store, images, max(1, limit // 2))
    return [*blocks, *(figures or [paragraph('None.')])]


def _retrieval_row(name: str, errors: RetrievalErrors, counted: np.ndarray) -> list[str]:
    """A row of figures of the queries that are counted, (q,) bool."""
    outcome = errors.outcome
    curve = match_characteristic(outcome, counted)
    counts = [outcome.missed & counted, errors.wrong & counted, (outcome.matches == 0) & counted]
    shares = [number(float(curve[k - 1])) for k in (1, 5, 10, 20)]
    return [name, number(int(counted.sum())), *shares, *(number(int(flags.sum())) for flags in counts)]


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis without NaN; NaN where there is nothing else."""
    kept = ~np.isnan(values)
    count = kept.sum(axis=axis)
    return np.where(count > 0, np.where(kept, values, 0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def _colours() -> list[str]:
    """The colours of the categories."""
    return [rgb(colour) for colour in PALETTE]


def _percent(share: float) -> str:
    return '-' if np.isnan(share) else f'{share:.1%}'


def _column(name: str) -> str:
    """The name of a column as the page shows it."""
    return name.replace('/', ': ').replace('_', ' ')

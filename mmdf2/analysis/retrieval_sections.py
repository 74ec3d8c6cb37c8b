"""The page's section on retrieval: CMC curves, figures per category and subset, and queries of wrong identity."""

from pathlib import Path

import numpy as np

from mmdf2.analysis.charts import curve_chart
from mmdf2.analysis.error_report import ErrorReport
from mmdf2.analysis.page import figure, heading, paragraph, row, table
from mmdf2.analysis.retrieval_errors import RetrievalErrors, match_characteristic, right_hits
from mmdf2.analysis.svg import number, rgb
from mmdf2.categories import CATEGORY_NAMES, PALETTE
from mmdf2.datasets.store import Store
from mmdf2.evaluation.records import COLUMNS, column_members
from mmdf2.evaluation.retrieval import MAX_HITS, RetrievedLists
from mmdf2.visualization import RetrievalRow, draw_retrieval_rows

RANKS = np.arange(1, MAX_HITS + 1)
SHOWN_HITS = 8


def retrieval_section(report: ErrorReport, store: Store, images: Path, limit: int) -> list[str]:
    """The section's blocks; details and pictures are of the first file."""
    curves = {name: (RANKS, match_characteristic(errors.outcome)) for name, errors in report.retrieval.items()}
    name, errors = next(iter(report.retrieval.items()))
    labels = report.truth.labels[errors.rows]
    single = {
        category: (RANKS, match_characteristic(errors.outcome, labels == label))
        for label, category in enumerate(CATEGORY_NAMES)
    }
    colours = [rgb(colour) for colour in PALETTE]
    ticks = [1, 5, 10, 15, 20]
    charts = [
        curve_chart('All queries', curves, 'among the first', 'queries found', (1, MAX_HITS), x_ticks=ticks),
        curve_chart(f'Per category: {name}', single, 'among the first', 'queries found', (1, MAX_HITS), colours, ticks),
    ]
    rows = [_figures(name, errors, np.ones(len(errors.rows), bool)) for name, errors in report.retrieval.items()]
    members = column_members(COLUMNS, len(report.truth.labels), report.truth.attributes)[:, errors.rows]
    parts = [_figures(c.replace('/', ': ').replace('_', ' '), errors, m) for c, m in zip(COLUMNS, members, strict=True)]
    header = ['', 'queries', 'top-1', 'top-5', 'top-10', 'top-20', 'missed', 'wrong identity', 'no match there']
    note = (
        'Official protocol, all queries. Missed: no detection represents the item. Wrong identity: no right box among '
        'the first 20. No match there: the gallery has no item of the identity, which counts as wrong in the shares.'
    )
    blocks = [row(charts), table(header, rows), heading(f'Per subset: {name}'), table(header, parts)]
    blocks += [paragraph(note, note=True), heading(f'Wrong identity: {name}, the best-scored queries first')]
    return [*blocks, *_pictures(errors, report.lists[name], store, images, limit)]


def _figures(name: str, errors: RetrievalErrors, counted) -> list[str]:
    outcome = errors.outcome
    curve = match_characteristic(outcome, counted)
    counts = [outcome.missed & counted, errors.wrong & counted, (outcome.matches == 0) & counted]
    shares = [number(float(curve[k - 1])) for k in (1, 5, 10, 20)]
    return [name, number(int(counted.sum())), *shares, *(number(int(flags.sum())) for flags in counts)]


def _pictures(errors: RetrievalErrors, lists: RetrievedLists, store: Store, images: Path, limit: int) -> list[str]:
    wrong = np.flatnonzero(errors.wrong)
    wrong = wrong[np.argsort(-lists.scores[errors.lists[wrong]], kind='stable')][: max(1, limit // 2)]
    if not len(wrong):
        return [paragraph('None.')]
    names = {int(i): name.decode('ascii') for i, name in zip(store.image_ids, store.file_names, strict=True)}
    figures = []
    for query in wrong.tolist():
        entry = int(errors.lists[query])
        ids, boxes = (hits[:SHOWN_HITS] for hits in lists.hits(entry))
        file = names[int(lists.image_ids[entry])]
        right = right_hits(store, ids, boxes, int(errors.identities[query]))
        category = CATEGORY_NAMES[lists.labels[entry]]
        text = (
            f'{file}: {category} {lists.scores[entry]:.2f}, {errors.outcome.matches[query]} items of it in the gallery'
        )
        unknown = [int(i) for i in ids.tolist() if int(i) not in names]
        if unknown:
            figures.append(paragraph(f'{text}; no picture: image {unknown[0]} is not in the store', note=True))
            continue
        line = RetrievalRow(
            images / file, lists.boxes[entry], [images / names[int(i)] for i in ids], boxes, right, title='query'
        )
        try:
            figures.append(figure(draw_retrieval_rows([line], cell=110), text))
        except OSError as error:
            figures.append(paragraph(f'{text}; no picture: {error}', note=True))
    return figures

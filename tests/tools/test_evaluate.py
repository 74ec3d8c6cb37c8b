"""tools/evaluate.py as a user starts it: what it prints and writes, and how it ends on files that are not right."""

import csv
import json

import numpy as np
import pytest
from evaluation.small_split import predict, write_split
from tiny_run import run_tool

from mmdf2.datasets.store import open_or_prepare
from mmdf2.evaluation.metrics import DeepFashion2Metric, RetrievalMetric

KINDS = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """``data``: a split; ``results.*.json``: predictions for it."""
    folder = tmp_path_factory.mktemp('evaluate')
    write_split(folder / 'data', np.random.default_rng(1), 30)
    store = open_or_prepare(folder / 'data', 'validation')
    similarity = {'weight': np.array([[-1], [1]], 'f4') * np.ones(8, 'f4'), 'bias': np.zeros(2, 'f4')}
    samples = predict(store, np.random.default_rng(2), similarity)
    for metric in (DeepFashion2Metric, RetrievalMetric):
        metric = metric(str(folder / 'data'), outfile_prefix=str(folder / 'results'))
        metric.process(None, samples)
        metric.evaluate(len(samples))
    return folder


@pytest.fixture(scope='module')
def printed(folder):
    options = [word for kind in KINDS for word in (f'--{kind.replace("_", "-")}', folder / f'results.{kind}.json')]
    return run_tool('evaluate.py', '--gt', folder / 'data', *options, '--subsets', '--out', folder / 'out/report.json')


def test_tables_of_the_paper_are_printed_beside_the_published_figures(printed):
    for title in (
        'Table 2: clothes detection, boxes',
        'Table 3: landmark estimation',
        'Table 4: clothes segmentation, masks',
        'Table 5: consumer-to-shop retrieval, top-20 of subsets',
        'By category',
    ):
        assert f'\n{title}\n' in f'\n{printed}'
    published = {'AP': ('0.667', '0.638'), 'AP50': ('0.814', '0.789'), 'AP75': ('0.773', '0.745')}
    lines = printed.split('Table 3')[0].splitlines()
    for name, figures in published.items():
        (line,) = [line.split() for line in lines if line.split()[:1] == [name]]
        assert tuple(line[-2:]) == figures and len(line) == 1 + 13 + 2


def test_json_markdown_and_csv_say_the_same(folder, printed):
    report = json.loads((folder / 'out/report.json').read_text())
    with open(folder / 'out/report.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(
        len(figures) + sum(map(len, report['categories'].get(task, {}).get(column, {}).values()))
        for task, columns in report.items()
        if task not in ('about', 'categories')
        for column, figures in columns.items()
    )
    for row in rows:
        part = report if row['category'] == 'all' else report['categories']
        figures = part[row['task']][row['column']]
        figures = figures if row['category'] == 'all' else figures[row['category']]
        value = figures[row['figure']]
        assert row['value'] == ('' if value is None else str(value))
    markdown = (folder / 'out/report.md').read_text()
    for title in ('Table 2', 'Table 3', 'Table 4', 'Table 5', 'By category'):
        assert f'**{title}' in markdown
    overall = report['bbox']['overall']['AP']
    assert f'| {overall:.3f} | 0.667 | 0.638 |' in markdown
    assert 'wrote' in printed and sorted(path.name for path in (folder / 'out').iterdir()) == [
        'report.csv',
        'report.json',
        'report.md',
    ]


def test_every_table_of_markdown_is_rectangular(folder, printed):
    for table in (folder / 'out/report.md').read_text().split('\n\n'):
        rows = [line.count('|') for line in table.splitlines() if line.startswith('|')]
        assert len(set(rows)) <= 1


def test_overall_alone_without_subsets(folder):
    printed = run_tool('evaluate.py', '--gt', folder / 'data', '--bbox', folder / 'results.bbox.json')
    assert 'overall' in printed and 'moderate' not in printed and 'Table 5' not in printed


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda text: text.replace('"score": 0.', '"score": "0.', 1), 'line 2, entry 0: not JSON'),
        (lambda text: text[: len(text) // 2], 'the file ends within it'),
        (
            lambda text: text.replace('"image_id": ', '"image_id": 77', 1),
            'line 2, entry 0: image_id should be the id of',
        ),
        (lambda text: '{}', 'line 1: expected a list of objects'),
    ],
)
def test_malformed_files_end_with_one_line_that_says_where(folder, tmp_path, change, message):
    path = tmp_path / 'bad.json'
    path.write_text(change((folder / 'results.bbox.json').read_text()))
    printed = run_tool('evaluate.py', '--gt', folder / 'data', '--bbox', path, expect=1)
    assert f'error: {path}' in printed and message in printed and 'Traceback' not in printed


def test_a_report_of_another_ending_is_refused_before_anything_is_read(tmp_path):
    arguments = ('--gt', 'nowhere', '--bbox', 'nothing.json', '--out', tmp_path / 'report.txt')
    assert 'the report is a .json file' in run_tool('evaluate.py', *arguments, expect=2)


def test_files_that_are_not_there(folder, tmp_path):
    printed = run_tool('evaluate.py', '--gt', folder / 'data', '--bbox', tmp_path / 'no.json', expect=1)
    assert f'error: {tmp_path / "no.json"} cannot be read: No such file' in printed
    printed = run_tool('evaluate.py', '--gt', tmp_path / 'no', '--bbox', folder / 'results.bbox.json', expect=1)
    assert 'is no ground truth' in printed

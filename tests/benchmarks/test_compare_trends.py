"""benchmarks/compare_trends.py: the correlations of made reports, against ranks counted by hand."""

import json

from tiny_run import run_tool

from mmdf2.evaluation.records import SUBSETS
from mmdf2.evaluation.report.published import PAPER, published_precision

# The paper's order of the boxes' subsets, from the hardest to the easiest.
ORDER = sorted(SUBSETS, key=lambda column: published_precision(PAPER, 'bbox', column)['AP'])


def report(path, value):
    """Writes a report in which the figure of every subset is ``value`` of its place in the paper's order."""
    precision = {column: {'AP': value(ORDER.index(column)), 'items': 300} for column in SUBSETS}
    retrieval = {column: {'top20': value(ORDER.index(column)), 'queries': 40} for column in SUBSETS}
    tasks = dict.fromkeys(('bbox', 'segm', 'keypoints_visible', 'keypoints_all'), precision)
    path.write_text(json.dumps(tasks | dict.fromkeys(('retrieval', 'retrieval_gt'), retrieval)))
    return path


def boxes(*paths, expect=0):
    printed = run_tool('compare_trends.py', *paths, folder='benchmarks', expect=expect)
    return printed if expect else next(line for line in printed.splitlines() if line.startswith('| Table 2'))


def test_the_same_order_the_opposite_and_a_swap(tmp_path):
    same = report(tmp_path / 'same.json', lambda place: 0.01 * place**2)
    opposite = report(tmp_path / 'opposite.json', lambda place: 1 - 0.05 * place)
    # The first and the last place are swapped: 1 - 6 * 2 * 11^2 / (12 * 143).
    swapped = report(tmp_path / 'swapped.json', lambda place: {0: 11, 11: 0}.get(place, place))
    assert '1.00 / -1.00 / 0.15' in boxes(same, opposite, swapped)


def test_a_report_without_subsets_is_named(tmp_path):
    path = report(tmp_path / 'report.json', float)
    content = json.loads(path.read_text())
    del content['bbox'][SUBSETS[3]]
    path.write_text(json.dumps(content))
    assert 'make it with --subsets' in boxes(path, expect=1)


def test_counts_of_items_and_of_queries_are_printed(tmp_path):
    path = report(tmp_path / 'report.json', float)
    printed = run_tool('compare_trends.py', path, folder='benchmarks')
    assert printed.count('| items | ' + ' | '.join(['300'] * 12)) == 4
    assert printed.count('| items | ' + ' | '.join(['40'] * 12)) == 2


def test_what_is_no_report_is_named(tmp_path):
    assert 'check the path' in boxes(tmp_path / 'missing.json', expect=1)
    for content, complaint in (('{', 'is not JSON'), ('[]', 'holds no report, but a list'), ('{}', 'make it with')):
        path = tmp_path / 'report.json'
        path.write_text(content)
        assert complaint in boxes(path, expect=1)

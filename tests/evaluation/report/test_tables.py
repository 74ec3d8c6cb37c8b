"""The paper's tables, the summary, and the written report."""

import csv
import json

import pytest

from mmdf2 import files
from mmdf2.categories import CATEGORY_NAMES
from mmdf2.evaluation.evaluate import evaluate_files
from mmdf2.evaluation.records import COLUMNS, SUBSETS
from mmdf2.evaluation.report.published import published_precision
from mmdf2.evaluation.report.tables import paper_tables, report_text, summary_table, write_report
from mmdf2.evaluation.retrieval import TOP_K

from ..small_split import files_of


class TestTables:
    def test_cells_of_table_2(self, report):
        table = next(table for table in paper_tables(report) if table.title.startswith('Table 2'))
        measured, published = table.rows[::2], table.rows[1::2]
        assert [name for name, _ in measured] == ['AP', 'AP50', 'AP75']
        assert [name for name, _ in published] == ['  published (paper)'] * 3
        for (name, cells), (_, cells_of_paper) in zip(measured, published, strict=True):
            overall = [published_precision(source, 'bbox')[name] for source in ('paper', 'released subset')]
            assert cells == [*(report['bbox'][column][name] for column in COLUMNS), *overall]
            paper = [published_precision('paper', 'bbox', column)[name] for column in COLUMNS]
            assert cells_of_paper == [*paper, '', '']
        assert [group for group, _ in table.header[:3]] == ['scale'] * 3
        assert table.header[12:] == [('', 'overall'), ('published', 'paper'), ('published', 'released')]

    def test_table_5_has_both_conventions_and_the_published_figures_that_count_alike(self, report):
        table = next(table for table in paper_tables(report) if table.title.startswith('Table 5'))
        rows = dict(table.rows)
        overall = report['retrieval']['overall']
        assert rows['detected boxes, all queries'][-7:] == [
            *(overall[f'top{k}'] for k in TOP_K),
            overall['queries'],
            overall['missed'],
        ]
        assert rows['detected boxes, queries with > 5 matches'][-2] == overall['paper_queries'] < overall['queries']
        assert rows['detected boxes, queries with > 5 matches'][-1] == ''
        for which, name in (('all queries', 'top20'), ('queries with > 5 matches', 'paper_top20')):
            expected = [report['retrieval'][subset].get(name) for subset in SUBSETS]
            assert rows[f'detected boxes, {which}'][: len(SUBSETS)] == expected
        names = list(rows)
        assert names.index('  published, pose (released subset)') < names.index(
            'detected boxes, queries with > 5 matches'
        )
        assert rows['  published, pose+class (paper)'][-7:] == [0.268, '', 0.574, '', 0.665, '', '']
        # The rows of ground-truth boxes have the same names as those of detected boxes and stand last.
        assert rows['  published, pose+class (paper)'][:3] == [0.752, 0.786, 0.733]
        assert rows['  published, pose (released subset)'][: len(SUBSETS)] == [''] * len(SUBSETS)

    def test_items_of_categories_are_all_that_there_are(self, report):
        """The column is not the count of landmark tasks, which leaves out items without landmarks."""
        table = paper_tables(report)[-1]
        assert table.title == 'By category' and table.header[0] == ('', 'items')
        counts = {name: cells[0] for name, cells in table.rows}
        assert counts == {name: figures['items'] for name, figures in report['categories']['bbox']['overall'].items()}
        landmarks = report['categories']['keypoints_visible']['overall']
        assert sum(counts.values()) > sum(figures['items'] for figures in landmarks.values())

    def test_text_is_aligned_and_complete(self, report):
        text = report_text(report)
        for number in (2, 3, 4, 5):
            assert f'Table {number}: ' in text
        assert 'By category' in text and all(name in text for name in CATEGORY_NAMES)
        lines = text.split('\n\n')[0].splitlines()
        published = [line for line in lines if line.startswith('  published')]
        assert len({len(line) for line in lines[3:] if line not in published}) == 1
        # The published rows end under the overall column, which stands left of the two published columns.
        assert {len(line) for line in published} == {lines[3].index('overall') + len('overall')}
        assert f'{report["bbox"]["overall"]["AP"]:.3f}' in text

    def test_tables_of_a_report_of_one_task(self, folder):
        report = evaluate_files(files_of(folder, 'segm'), folder / 'data')
        assert [table.title for table in paper_tables(report)] == [
            'Table 4: clothes segmentation, masks',
            'By category',
        ]
        assert [name for _, name in paper_tables(report)[0].header] == ['overall', 'paper', 'released']


def test_written_files_hold_the_same_figures(report, tmp_path):
    paths = write_report(report, tmp_path / 'new' / 'report.json')
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['report.csv', 'report.json', 'report.md']
    assert json.loads(paths[0].read_text()) == report
    rows = list(csv.DictReader(paths[2].read_text().splitlines()))
    for row in rows:
        source = report if row['category'] == 'all' else report['categories']
        figures = source[row['task']][row['column']]
        figures = figures if row['category'] == 'all' else figures[row['category']]
        value = figures[row['figure']]
        assert row['value'] == ('' if value is None else str(value))
    assert len({(row['task'], row['column'], row['category'], row['figure']) for row in rows}) == len(rows)
    assert sum(row['task'] == 'bbox' for row in rows) == 13 * 14 * 5
    tables = paths[1].read_text()
    assert tables.count('| --- |') == 5 and '| scale: small |' in tables


def test_a_file_that_cannot_be_written_leaves_the_old_one(report, tmp_path, monkeypatch):
    old = tmp_path / 'report.md'
    old.write_text('old')
    written = []

    def open_on_a_full_disk(path, mode, **options):
        file = open(path, mode, **options)  # noqa: SIM115, closed by the caller
        if mode != 'w':
            return file
        written.append(path.suffix)
        if len(written) == 2:
            write = file.write

            def fill(text):
                write(text[:100])
                raise OSError(28, 'No space left on device')

            file.write = fill
        return file

    monkeypatch.setattr(files, 'open', open_on_a_full_disk, raising=False)
    with pytest.raises(OSError, match='No space left'):
        write_report(report, tmp_path / 'report.json')
    assert written == ['.json', '.md'] and old.read_text() == 'old'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['report.json', 'report.md']
    assert json.loads((tmp_path / 'report.json').read_text()) == report


def test_the_report_is_a_json_file(report, tmp_path):
    with pytest.raises(ValueError, match=r'a \.json file, with \.md and \.csv beside it; got .*report\.txt'):
        write_report(report, tmp_path / 'report.txt')


FIGURES = {
    'test/bbox_AP': 0.6125,
    'test/bbox_AP50': 0.7,
    'test/bbox_AP75': 0.65,
    'test/segm_AP': float('nan'),
    'test/keypoints_AP_visible': 0.5,
    'test/keypoints_AP_all': 0.4,
    'test/retrieval_top1': 0.5,
    'test/retrieval_top20': 1,
    'test/retrieval_gt_top5': 0.25,
    'test/retrieval_chance_top1': 0.0123,
    'test/retrieval_missed': 3,
}


def test_every_row_stands_under_its_columns():
    lines = summary_table(FIGURES).splitlines()
    rows = {line[:31].strip(): line[31:].split() for line in lines if not line.startswith('---')}
    assert rows['boxes'] == ['0.613', '0.700', '0.650'] or rows['boxes'] == ['0.612', '0.700', '0.650']
    assert rows['masks'] == ['-', '-', '-']
    assert rows['landmarks, visible only'] == ['0.500', '-', '-']
    assert rows['landmarks, visible and occluded'] == ['0.400', '-', '-']
    assert rows['retrieval, detected boxes'] == ['0.500', '-', '-', '-', '1.000']
    assert rows['retrieval, ground-truth boxes'] == ['-', '0.250', '-', '-', '-']
    assert rows['retrieval, chance'] == ['0.012']
    headers = [line.split() for line in lines if 'AP75' in line or 'top-1' in line]
    assert headers == [['AP', 'AP50', 'AP75'], ['top-1', 'top-5', 'top-10', 'top-15', 'top-20']]
    assert len({len(line) for line in lines if line.startswith('---')}) == 1


def test_markdown_is_one_table_with_equal_cells():
    lines = summary_table(FIGURES, markdown=True).splitlines()
    assert {line.count('|') for line in lines} == {7}
    assert all(line.startswith('| ') and line.endswith('|') for line in lines)
    assert set(lines[1]) <= set('|-: ')
    assert any('**top-20**' in line for line in lines)


def test_rows_without_figures_are_left_out():
    table = summary_table({'bbox_AP': 0.5})
    assert 'boxes' in table
    assert 'masks' not in table
    assert 'retrieval' not in table


def test_unknown_metrics():
    with pytest.raises(ValueError, match=r"none of the metrics .*\['coco/bbox_mAP'\]"):
        summary_table({'coco/bbox_mAP': 0.5})

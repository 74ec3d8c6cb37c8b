"""Reports of result files: subsets and categories against single evaluations, the paper's tables, the written files."""

import csv
import json

import numpy as np
import pytest

from mmdf2 import files
from mmdf2.categories import CATEGORY_NAMES, Source
from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.datasets.store import Store
from mmdf2.evaluation.coco import evaluate_task
from mmdf2.evaluation.evaluate import ResultFiles, evaluate_files
from mmdf2.evaluation.files.detections import read_detections
from mmdf2.evaluation.files.retrieval import evaluate_retrieval_results
from mmdf2.evaluation.metrics import DeepFashion2Metric, RetrievalMetric
from mmdf2.evaluation.records import COLUMNS, SUBSETS, EvaluationError, GroundTruth
from mmdf2.evaluation.report.published import published_precision
from mmdf2.evaluation.report.tables import paper_tables, report_text, write_report
from mmdf2.evaluation.retrieval import TOP_K, RetrievalItems
from mmdf2.evaluation.truth import open_truth, retrieval_items, with_attributes

from ..small_split import DIMS, predict, write_split


@pytest.fixture(scope='module', name='folder')
def fixture_folder(tmp_path_factory):
    """A split, its exchange files and results of all kinds: data/, gt/, r.<kind>.json."""
    folder = tmp_path_factory.mktemp('report')
    rng = np.random.default_rng(5)
    write_split(folder / 'data', rng, 40)
    store = open_or_prepare(str(folder / 'data'), 'validation')
    weight = np.stack([-np.ones(DIMS), np.ones(DIMS)]).astype(np.float32)
    samples = predict(store, rng, {'weight': weight, 'bias': np.zeros(2, np.float32)})
    for metric_class in (DeepFashion2Metric, RetrievalMetric):
        metric = metric_class(str(folder / 'data'), outfile_prefix=str(folder / 'r'))
        metric.process(None, samples)
        metric.compute_metrics(metric.results)
    export(store, folder / 'gt', 'validation')
    return folder


def files_of(folder, *kinds):
    return ResultFiles(**{kind: folder / f'r.{kind}.json' for kind in kinds})


@pytest.fixture(scope='module', name='report')
def fixture_report(folder):
    kinds = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')
    return evaluate_files(files_of(folder, *kinds), folder / 'data', subsets=True)


def test_every_task_has_every_column_and_every_category(report):
    tasks = ('bbox', 'segm', 'keypoints_visible', 'keypoints_all', 'retrieval', 'retrieval_gt')
    assert set(report) == {'about', 'categories', *tasks}
    for task in tasks:
        assert tuple(report[task]) == COLUMNS
        assert all(tuple(report['categories'][task][column]) == CATEGORY_NAMES for column in COLUMNS)
    assert report['about']['images'] == 40 and report['about']['items'] == report['bbox']['overall']['items']


def test_a_store_a_folder_and_json_files_are_the_same_ground_truth(folder, report):
    files = files_of(folder, 'bbox')
    for gt in (folder / 'data' / 'validation', folder / 'data' / 'validation.store'):
        assert evaluate_files(files, gt, subsets=True)['bbox'] == report['bbox']
    instances = folder / 'gt' / 'instances_val.json'
    for task in ('bbox', 'segm'):
        found = evaluate_files(files_of(folder, task), instances)[task]['overall']
        assert found == pytest.approx(report[task]['overall'], abs=1e-9)
    for name, task in (('vis', 'keypoints_visible'), ('vis_and_occ', 'keypoints_all')):
        single = evaluate_files(files_of(folder, 'keypoints'), folder / 'gt' / f'keypoints_val_{name}.json')
        assert single[task]['overall'] == pytest.approx(report[task]['overall'], abs=1e-9)
        assert ('keypoints_all' in single) == (name == 'vis_and_occ')
        assert any('no occluded landmarks' in note for note in single['about']['notes']) == (name == 'vis')


def test_retrieval_of_subsets_and_categories_counts_the_queries_that_are_in_them(folder, report):
    results, query_gt, gallery_gt = (
        json.loads((folder / name).read_text())
        for name in ('r.retrieval.json', 'gt/val_query.json', 'gt/val_gallery.json')
    )
    outcome = evaluate_retrieval_results(results, query_gt, gallery_gt)
    store = Store.open(folder / 'data' / 'validation.store')
    items = retrieval_items(store, Source.USER)
    labels, attributes = items.labels[outcome.queries], items.attributes[outcome.queries]
    assert len(labels) == report['retrieval']['overall']['queries']
    for place, subset in enumerate(SUBSETS):
        rows = attributes[:, place // 3] == place % 3 + 1
        figures = report['retrieval'][subset]
        assert figures['queries'] == rows.sum() > 0
        assert figures['missed'] == outcome.missed[rows].sum()
        for k in TOP_K:
            assert figures[f'top{k}'] == pytest.approx((outcome.first_right[rows] < k).mean())
        for label, name in enumerate(CATEGORY_NAMES):
            both = rows & (labels == label)
            figures = report['categories']['retrieval'][subset][name]
            assert figures['queries'] == both.sum()
            expected = (outcome.first_right[both] < 1).mean() if both.any() else None
            assert figures['top1'] == (expected if expected is None else pytest.approx(expected))


def test_lists_of_queries_take_their_attributes_from_the_ground_truth(folder, report):
    lists = {'query_gt': folder / 'gt/val_query.json', 'gallery_gt': folder / 'gt/val_gallery.json'}
    files = files_of(folder, 'retrieval')
    assert evaluate_files(files, folder / 'data', subsets=True, **lists)['retrieval'] == report['retrieval']
    alone = evaluate_files(files, **lists)['retrieval']
    assert alone == {'overall': report['retrieval']['overall']}
    with pytest.raises(EvaluationError, match='subsets need the attributes of query items'):
        evaluate_files(files, subsets=True, **lists)


def test_query_items_of_another_split_are_refused(folder):
    source = open_truth(folder / 'data', masks=False)
    items = retrieval_items(source.store, Source.USER)
    assert np.array_equal(with_attributes(items, source.ground_truth).attributes, items.attributes)
    items.boxes[3] += 20
    with pytest.raises(EvaluationError, match=r'1 of .* items of the query list are not in the ground truth'):
        with_attributes(items, source.ground_truth)


def test_attributes_are_those_of_the_item_of_the_category_that_the_box_fits_best():
    boxes = np.array([[0.0, 0, 1000, 1000], [0, 0, 1000, 1001], [0, 0, 1000, 1000.5]])
    truth = GroundTruth(
        np.array([4]), np.full(3, 4), np.array([1, 1, 2]), boxes, attributes=np.arange(1, 13).reshape(3, 4)
    )

    def attributes_of(label, height):
        box = np.array([[0.0, 0, 1000, height]])
        items = RetrievalItems(np.array([4]), box, np.array([0]), np.array([label]))
        return with_attributes(items, truth).attributes.tolist()

    assert attributes_of(1, 1000.1) == [[1, 2, 3, 4]]
    assert attributes_of(1, 1000.9) == [[5, 6, 7, 8]]
    assert attributes_of(2, 1000.1) == [[9, 10, 11, 12]]
    with pytest.raises(EvaluationError, match='1 of 1 items of the query list are not in the ground truth'):
        attributes_of(3, 1000.1)


def test_categories_are_those_of_the_evaluator(folder, report):
    source = open_truth(folder / 'data', masks=False)
    found = read_detections(folder / 'r.bbox.json', 'bbox', source.sizes)
    result = evaluate_task(source.ground_truth, found, 'bbox', ('scale/small',))
    for label in (0, 7, 8):
        figures = report['categories']['bbox']['scale/small'][CATEGORY_NAMES[label]]
        assert {name: figures[name] for name in ('AP', 'AP50', 'AR')} == {
            name: value for name, value in result.figures('scale/small', label).items() if name != 'AP75'
        }
        assert figures['items'] == result.num_truths[0, label]


class TestTables:
    def test_cells_of_table_2(self, report):
        table = next(table for table in paper_tables(report) if table.title.startswith('Table 2'))
        measured, published = table.rows[::2], table.rows[1::2]
        assert [name for name, _ in measured] == ['AP', 'AP50', 'AP75']
        assert [name for name, _ in published] == [f'  published {name} (paper)' for name in ('AP', 'AP50', 'AP75')]
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
        # Those of ground-truth boxes stand last, and have the same name as those of detected boxes.
        assert rows['  published, pose+class (paper)'][:3] == [0.752, 0.786, 0.733]
        assert rows['  published, pose (released subset)'][: len(SUBSETS)] == [''] * len(SUBSETS)

    def test_items_of_categories_are_all_that_there_are(self, report):
        """Not those with landmarks alone, as landmark tasks count them."""
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
        # The published rows end under the overall column, which is left of the two published columns.
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


def test_verification_of_pairs(tmp_path):
    path = tmp_path / 'pairs.json'
    path.write_text(json.dumps([{'score': score, 'same': score > 2} for score in range(5)]))
    report = evaluate_files(ResultFiles(verification=path))
    assert report['verification']['overall']['auc'] == 1
    assert report['verification']['overall']['positives'] == 2
    assert 'Verification of pairs' in report_text(report)


def test_refusals(folder):
    with pytest.raises(EvaluationError, match='nothing to evaluate: give one of bbox, segm'):
        evaluate_files(ResultFiles(), folder / 'data')
    with pytest.raises(EvaluationError, match='results of bbox need ground truth'):
        evaluate_files(files_of(folder, 'bbox'))
    with pytest.raises(EvaluationError, match=r'instances_val\.json has no scale, occlusion, zoom_in and viewpoint'):
        evaluate_files(files_of(folder, 'bbox'), folder / 'gt/instances_val.json', subsets=True)
    with pytest.raises(EvaluationError, match='retrieval needs its ground truth'):
        evaluate_files(files_of(folder, 'retrieval'))
    with pytest.raises(EvaluationError, match='both the list of query items and that of gallery items'):
        evaluate_files(files_of(folder, 'retrieval'), query_gt=folder / 'gt/val_query.json')
    with pytest.raises(EvaluationError, match='keypoints is missing; it should be 882 finite numbers'):
        evaluate_files(files_of(folder, 'keypoints'), folder / 'gt/instances_val.json')

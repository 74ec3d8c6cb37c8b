"""Reports of result files: the same figures as the metrics, as pycocotools and as the protocol in loops."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO

from mmdf2.categories import CATEGORY_NAMES
from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.coco import TASKS
from mmdf2.evaluation.evaluate import ResultFiles, evaluate_files
from mmdf2.evaluation.files.json_list import write_results
from mmdf2.evaluation.metrics import DeepFashion2Metric, RetrievalMetric
from mmdf2.evaluation.records import COLUMNS, OVERALL, EvaluationError, column_members
from mmdf2.evaluation.report.tables import report_text
from mmdf2.evaluation.truth import ground_truth

from .coco_reference import flagged_result
from .small_split import DIMS, files_of, predict, write_split
from .test_retrieval import official

KINDS = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')
# Exported ground truth of each task, without and with occluded landmarks.
TRUTH_FILES = {
    'bbox': 'instances_val.json',
    'segm': 'instances_val.json',
    'keypoints_visible': 'keypoints_val_vis.json',
    'keypoints_all': 'keypoints_val_vis_and_occ.json',
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """``data``: a split; ``gt``: its exchange files; ``results.*.json`` as the metrics write them."""
    folder = tmp_path_factory.mktemp('files')
    write_split(folder / 'data', np.random.default_rng(5), 40)
    return folder


@pytest.fixture(scope='module')
def store(folder):
    store = open_or_prepare(folder / 'data', 'validation')
    export(store, folder / 'gt', 'validation')
    return store


@pytest.fixture(scope='module')
def printed(folder, store):
    """What the metrics return; the fixture also writes the result files."""
    similarity = {'weight': np.stack([-np.ones(DIMS), np.ones(DIMS)]).astype('f4'), 'bias': np.zeros(2, 'f4')}
    samples = predict(store, np.random.default_rng(6), similarity)
    figures = {}
    for metric in (DeepFashion2Metric, RetrievalMetric):
        metric = metric(str(folder / 'data'), subsets=True, outfile_prefix=str(folder / 'results'))
        metric.process(None, samples)
        figures.update(metric.evaluate(len(samples)))
    return figures


@pytest.fixture(scope='module')
def files(folder, printed):
    return ResultFiles(**{kind: folder / f'results.{kind}.json' for kind in KINDS})


@pytest.fixture(scope='module')
def report(folder, files):
    return evaluate_files(files, folder / 'data', subsets=True)


def as_printed(report):
    """The report's figures under the metrics' names."""
    figures = {}
    for task in (*TASKS, 'retrieval', 'retrieval_gt'):
        stream, _, setting = task.partition('_') if task in TASKS else (task, '', '')
        for column, cells in report[task].items():
            parts = [setting] * bool(setting) + column.split('/') * (column != OVERALL)
            for name, value in cells.items():
                if task not in TASKS or name != 'items':
                    figures['_'.join([stream, name, *parts])] = math.nan if value is None else value
    return figures


def test_figures_are_those_that_the_metrics_printed(report, printed):
    figures = as_printed(report)
    others = {name for name in printed if name.startswith('verification') or name == 'retrieval_chance_top1'}
    expected = {name: value for name, value in printed.items() if name not in others}
    # NaN is not equal to itself, but counts as equal here.
    assert figures == pytest.approx(expected, abs=0, rel=0, nan_ok=True)
    assert len(others) == 13 and {'bbox_AP', 'keypoints_AP50_all_viewpoint_side_or_back'} <= set(figures)
    assert 0 < figures['retrieval_missed_scale_small'] < figures['retrieval_missed'] < figures['retrieval_queries']


@pytest.mark.parametrize('task', TASKS)
def test_every_cell_is_pycocotools(folder, store, report, task):
    kind = task.split('_')[0]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(folder / 'gt' / TRUTH_FILES[task]))
        found = gt.loadRes(str(folder / f'results.{kind}.json'))
    truth = ground_truth(store, masks=False)
    members = column_members(COLUMNS, len(truth.labels), truth.attributes)
    decided = 0
    for column, counted in zip(COLUMNS, members, strict=True):
        for annotation, counts in zip(gt.dataset['annotations'], counted, strict=True):
            annotation['flag'] = not counts
        precision, recall = flagged_result(gt, found, kind)
        for category, label in {'all': slice(None), **{name: [i] for i, name in enumerate(CATEGORY_NAMES)}}.items():
            cells = report[task][column] if category == 'all' else report['categories'][task][column][category]
            expected = {
                'AP': mean_or_none(precision[..., label]),
                'AP50': mean_or_none(precision[0][..., label]),
                'AP75': mean_or_none(precision[5][..., label]),
                'AR': mean_or_none(recall[..., label]),
            }
            assert {name: cells[name] for name in expected} == pytest.approx(expected, abs=1e-9), (column, category)
            decided += cells['AP'] is not None and 0.01 < cells['AP'] < 0.99
    assert decided > 20


def mean_or_none(values):
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


@pytest.mark.parametrize('task', ['retrieval', 'retrieval_gt'])
def test_retrieval_of_every_subset_and_category_is_the_protocol(folder, store, report, task):
    results = json.loads((folder / f'results.{task}.json').read_text())
    query_gt, gallery_gt = (
        json.loads((folder / 'gt' / f'val_{name}.json').read_text()) for name in ('query', 'gallery')
    )
    rows = np.flatnonzero(store.sources[store.item_images] == 0)
    columns = (store.scales, store.occlusions, store.zoom_ins, store.viewpoints)
    attributes = np.stack([column[rows] for column in columns], axis=1)
    queried = np.array([query['style'] > 0 for query in query_gt])
    outcome = official(results, query_gt, gallery_gt)
    labels = np.array([query['cls'] for query in query_gt])[queried] - 1
    members = column_members(COLUMNS, len(query_gt), attributes)[:, queried]
    for column, counted in zip(COLUMNS, members, strict=True):
        categories = {'all': counted, **{name: counted & (labels == i) for i, name in enumerate(CATEGORY_NAMES)}}
        for category, wanted in categories.items():
            cells = report[task][column] if category == 'all' else report['categories'][task][column][category]
            chosen = [entry for entry, is_wanted in zip(outcome, wanted, strict=True) if is_wanted]
            assert cells['queries'] == len(chosen)
            assert cells['missed'] == sum(missed for *_, missed in chosen)
            for prefix, counting in (('', chosen), ('paper_', [entry for entry in chosen if entry[0] > 5])):
                for k in (1, 5, 10, 15, 20):
                    expected = np.mean([place is not None and place < k for _, place, *_ in counting] or [math.nan])
                    assert cells.get(f'{prefix}top{k}') == (pytest.approx(expected) if counting else None)
    assert report[task][OVERALL]['paper_queries'] > 3


def test_a_report_without_any_result_of_images(folder, store, tmp_path):
    (tmp_path / 'none.json').write_text('[]')
    report = evaluate_files(ResultFiles(bbox=tmp_path / 'none.json'), folder / 'data')
    assert report['bbox'] == {
        OVERALL: {'AP': 0, 'AP50': 0, 'AP75': 0, 'AR': 0, 'items': len(store.category_ids)},
    }
    assert report['about']['notes'] == ['bbox: 40 of 40 images have no result']


def test_results_of_another_split(folder, files, tmp_path):
    (tmp_path / 'r.json').write_text(files.bbox.read_text().replace('"image_id": ', '"image_id": 9'))
    with pytest.raises(EvaluationError, match=r'line 2, entry 0: image_id should be the id of an image of the ground'):
        evaluate_files(ResultFiles(bbox=tmp_path / 'r.json'), folder / 'data')


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('query_image_id', 777, 'query_image_id should be the id of an image of the ground truth, got 777'),
        ('gallery_image_id', [777], r'gallery_image_id should be ids of images of the ground truth, which 777 is not'),
    ],
)
def test_retrieval_of_an_image_that_the_dataset_does_not_have(folder, files, tmp_path, field, value, message):
    results = json.loads(files.retrieval.read_text())
    results[2] = {**results[2], 'gallery_image_id': [2], 'gallery_bbox': [[0, 0, 1, 1]], field: value}
    path = write_results(tmp_path / 'r.json', results)
    with pytest.raises(EvaluationError, match=rf'r\.json, line 4, entry 2: {message}'):
        evaluate_files(ResultFiles(retrieval=path), folder / 'data')
    # The lists do not name images without items.
    lists = {'query_gt': folder / 'gt' / 'val_query.json', 'gallery_gt': folder / 'gt' / 'val_gallery.json'}
    assert evaluate_files(ResultFiles(retrieval=path), **lists)['retrieval'][OVERALL]['queries'] > 3


def test_verification_of_pairs(tmp_path):
    path = tmp_path / 'pairs.json'
    path.write_text(json.dumps([{'score': score, 'same': score > 2} for score in range(5)]))
    report = evaluate_files(ResultFiles(verification=path))
    assert report['verification']['overall']['auc'] == 1
    assert report['verification']['overall']['positives'] == 2
    assert 'Verification of pairs' in report_text(report)


def test_refusals(result_folder):
    with pytest.raises(EvaluationError, match='nothing to evaluate: give one of bbox, segm'):
        evaluate_files(ResultFiles(), result_folder / 'data')
    with pytest.raises(EvaluationError, match='results of bbox need ground truth'):
        evaluate_files(files_of(result_folder, 'bbox'))
    with pytest.raises(EvaluationError, match=r'instances_val\.json has no scale, occlusion, zoom_in and viewpoint'):
        evaluate_files(files_of(result_folder, 'bbox'), result_folder / 'gt/instances_val.json', subsets=True)
    with pytest.raises(EvaluationError, match='retrieval needs its ground truth'):
        evaluate_files(files_of(result_folder, 'retrieval'))
    with pytest.raises(EvaluationError, match='both the list of query items and that of gallery items'):
        evaluate_files(files_of(result_folder, 'retrieval'), query_gt=result_folder / 'gt/val_query.json')
    with pytest.raises(EvaluationError, match='keypoints is missing; it should be 882 finite numbers'):
        evaluate_files(files_of(result_folder, 'keypoints'), result_folder / 'gt/instances_val.json')

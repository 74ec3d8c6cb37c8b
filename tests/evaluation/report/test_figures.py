"""The figures of a report: every column and category, against single evaluations."""

import json

import pytest

from mmdf2.categories import CATEGORY_NAMES, Source
from mmdf2.datasets.store import Store
from mmdf2.evaluation.coco import evaluate_task
from mmdf2.evaluation.files.detections import read_detections
from mmdf2.evaluation.files.retrieval import evaluate_retrieval_results
from mmdf2.evaluation.records import COLUMNS, SUBSETS
from mmdf2.evaluation.retrieval import TOP_K
from mmdf2.evaluation.truth import open_truth, retrieval_items


def test_every_task_has_every_column_and_every_category(report):
    tasks = ('bbox', 'segm', 'keypoints_visible', 'keypoints_all', 'retrieval', 'retrieval_gt')
    assert set(report) == {'about', 'categories', *tasks}
    for task in tasks:
        assert tuple(report[task]) == COLUMNS
        assert all(tuple(report['categories'][task][column]) == CATEGORY_NAMES for column in COLUMNS)
    assert report['about']['images'] == 40 and report['about']['items'] == report['bbox']['overall']['items']


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

"""Ground truth of every kind of source, and attributes for the official list of query items."""

import numpy as np
import pytest

from mmdf2.categories import Source
from mmdf2.evaluation.evaluate import evaluate_files
from mmdf2.evaluation.records import EvaluationError, GroundTruth
from mmdf2.evaluation.retrieval import RetrievalItems
from mmdf2.evaluation.truth import open_truth, retrieval_items, with_attributes

from .small_split import files_of


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
        image_ids=np.array([4]),
        item_image_ids=np.full(3, 4),
        labels=np.array([1, 1, 2]),
        boxes=boxes,
        attributes=np.arange(1, 13).reshape(3, 4),
    )

    def attributes_of(label, height):
        box = np.array([[0.0, 0, 1000, height]])
        items = RetrievalItems(image_ids=np.array([4]), boxes=box, identities=np.array([0]), labels=np.array([label]))
        return with_attributes(items, truth).attributes.tolist()

    assert attributes_of(1, 1000.1) == [[1, 2, 3, 4]]
    assert attributes_of(1, 1000.9) == [[5, 6, 7, 8]]
    assert attributes_of(2, 1000.1) == [[9, 10, 11, 12]]
    with pytest.raises(EvaluationError, match='1 of 1 items of the query list are not in the ground truth'):
        attributes_of(3, 1000.1)


def test_a_folder_that_is_no_ground_truth(tmp_path):
    with pytest.raises(EvaluationError, match='is no ground truth: a JSON file in COCO format, the folder of a store'):
        open_truth(tmp_path)

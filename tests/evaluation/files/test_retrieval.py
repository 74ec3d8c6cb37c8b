"""The official files of retrieval, and pairs for verification: identities, fields, and refusals that name the entry."""

import json

import numpy as np
import pytest

from mmdf2.evaluation.evaluate import ResultFiles, evaluate_files
from mmdf2.evaluation.files.retrieval import evaluate_retrieval_results, read_pairs, retrieval_result
from mmdf2.evaluation.records import EvaluationError

from ..test_retrieval import LEFT, random_files

OFFICIAL_RETRIEVAL = {
    'query_image_id': int,
    'query_bbox': list,
    'query_cls': int,
    'query_score': float,
    'gallery_image_id': list,
    'gallery_bbox': list,
}


def test_retrieval_has_the_fields_of_the_official_example():
    result = retrieval_result(1, np.ones(4), 12, np.float32(0.5), np.arange(3), np.ones((3, 4), np.float32))
    assert {key: type(value) for key, value in result.items()} == OFFICIAL_RETRIEVAL
    assert result['query_cls'] == 13


class TestFiles:
    def test_identities_are_pairs_of_pair_id_and_style(self):
        query = {'query_image_id': 1, 'style': 1, 'cls': 2, 'pair_id': 5, 'bbox': LEFT}
        hit = {'gallery_image_id': 9, 'bbox': LEFT}
        result = {
            'query_image_id': 1, 'query_bbox': LEFT, 'query_cls': 2, 'query_score': 0.5,
            'gallery_image_id': [9], 'gallery_bbox': [LEFT],
        }  # fmt: skip
        for pair_id, style, top1 in ((5, 1, 1), (5, 2, 0), (6, 1, 0), (5, 0, 0)):
            outcome = evaluate_retrieval_results([result], [query], [{**hit, 'pair_id': pair_id, 'style': style}])
            assert outcome.top_k(1) == top1

    @pytest.mark.parametrize(
        ('field', 'value', 'message'),
        [
            ('query_score', float('nan'), 'entry 3 of the results: query_score should be a finite number, got nan'),
            ('query_score', None, 'query_score should be a finite number, got None'),
            ('query_bbox', [1, 2, 3], r'query_bbox should be x1, y1, x2, y2, finite, got \[1, 2, 3\]'),
            ('query_cls', 14, 'query_cls should be a category_id from 1 to 13, got 14'),
            ('gallery_bbox', [[0, 0, 1, 1]] * 30, 'gallery_bbox should be a list of 1 boxes .*, got 30'),
            ('gallery_bbox', [[0, 0, 1]], 'gallery_bbox should be a list of 1 boxes'),
            ('gallery_image_id', 'all', "gallery_image_id should be a list of image ids, got 'all'"),
        ],
    )
    def test_malformed_results_name_entry_and_field(self, field, value, message):
        results, *truth = random_files(np.random.default_rng(1))
        results[3] = {**results[3], 'gallery_image_id': [20], 'gallery_bbox': [[0, 0, 1, 1]], field: value}
        with pytest.raises(EvaluationError, match=message):
            evaluate_retrieval_results(results, *truth)

    @pytest.mark.parametrize('box', [[50, 50, 20, 80], [50, 50, 80, 20], [50, 50, 49.5, 50]])
    @pytest.mark.parametrize('place', [(0, 'query_bbox'), (0, 'gallery_bbox'), (1, 'bbox'), (2, 'bbox')])
    def test_boxes_of_x_y_width_and_height_are_refused(self, tmp_path, box, place):
        files = random_files(np.random.default_rng(1))
        number, field = place
        if field == 'gallery_bbox':
            # The official files list 20 boxes; a faulty one behind them is named too.
            files[0][3] |= {'gallery_image_id': [20] * 22, field: [*[[0, 0, 1, 1]] * 21, box]}
        else:
            files[number][3][field] = box
        expected = r'entry 3.*bbox should be x1, y1, x2, y2 with x1 <= x2 and y1 <= y2: corners, not x, y, width and he'
        with pytest.raises(EvaluationError, match=expected):
            evaluate_retrieval_results(*files)
        paths = [tmp_path / name for name in ('results.json', 'query.json', 'gallery.json')]
        for path, content in zip(paths, files, strict=True):
            path.write_text(json.dumps(content))
        with pytest.raises(EvaluationError, match=rf'{paths[number].name}, line 1, {expected}'):
            evaluate_files(ResultFiles(retrieval=paths[0]), query_gt=paths[1], gallery_gt=paths[2])

    def test_boxes_that_look_like_shares_are_noted(self, tmp_path):
        results, *truth = random_files(np.random.default_rng(1))
        paths = [tmp_path / name for name in ('results.json', 'query.json', 'gallery.json')]
        largest = max(
            max(result['query_bbox'] + [x for box in result['gallery_bbox'] for x in box]) for result in results
        )
        for scale, noted in ((1 / largest, True), (1, False)):
            for result in results:
                result['query_bbox'] = [x * scale for x in result['query_bbox']]
                result['gallery_bbox'] = [[x * scale for x in box] for box in result['gallery_bbox']]
            if not noted:
                results[0]['query_bbox'] = [0, 0, 1.5, 1]
            for path, content in zip(paths, (results, *truth), strict=True):
                path.write_text(json.dumps(content))
            report = evaluate_files(ResultFiles(retrieval=paths[0]), query_gt=paths[1], gallery_gt=paths[2])
            assert any('results.json: no coordinate of' in note for note in report['about']['notes']) == noted

    def test_a_box_without_width_is_a_box(self):
        files = random_files(np.random.default_rng(1))
        files[0][3]['query_bbox'] = [5, 5, 5, 5]
        evaluate_retrieval_results(*files)

    def test_missing_field(self):
        results, query_gt, gallery_gt = random_files(np.random.default_rng(1))
        del gallery_gt[2]['style']
        with pytest.raises(EvaluationError, match='entry 2 of the gallery ground truth: style is missing'):
            evaluate_retrieval_results(results, query_gt, gallery_gt)

    @pytest.mark.parametrize(('field', 'largest'), [('pair_id', 2**31 - 1), ('style', 2**16 - 1)])
    def test_numbers_that_no_identity_can_hold(self, field, largest):
        results, query_gt, gallery_gt = random_files(np.random.default_rng(1))
        gallery_gt[2][field] = largest
        evaluate_retrieval_results(results, query_gt, gallery_gt)
        gallery_gt[2][field] = largest + 1
        with pytest.raises(
            EvaluationError,
            match=f'entry 2 of the gallery ground truth: {field} should be an integer from 0 to {largest}',
        ):
            evaluate_retrieval_results(results, query_gt, gallery_gt)

    def test_files_of_different_splits(self):
        results, query_gt, gallery_gt = random_files(np.random.default_rng(1))
        for query in query_gt:
            query['query_image_id'] += 1000
        with pytest.raises(EvaluationError, match='no query_image_id of the results is in the ground truth'):
            evaluate_retrieval_results(results, query_gt, gallery_gt)

    def test_no_results_miss_every_query(self):
        _, query_gt, gallery_gt = random_files(np.random.default_rng(1))
        outcome = evaluate_retrieval_results([], query_gt, gallery_gt)
        assert outcome.missed.all()
        assert outcome.top_k(20) == 0


def test_file_of_pairs(tmp_path):
    path = tmp_path / 'pairs.json'
    path.write_text(json.dumps([{'score': 1.5, 'same': True}, {'score': -2, 'same': 0}]))
    scores, same = read_pairs(path)
    assert scores.tolist() == [1.5, -2] and same.tolist() == [True, False]
    path.write_text('[{"score": 1, "same": 1},\n {"score": 1, "same": 2}]')
    with pytest.raises(EvaluationError, match=r'pairs.json, line 2, entry 1: same should be true or false, .*, got 2'):
        read_pairs(path)

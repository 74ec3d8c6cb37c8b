"""RetrievalMetric from data samples to figures, against the protocol in loops over the official files."""

import json

import numpy as np
import pytest

from mmdf2.analysis.retrieval_errors import retrieval_errors, rows_of_results
from mmdf2.datasets.exchange import export
from mmdf2.evaluation.files.json_list import list_entries
from mmdf2.evaluation.files.retrieval import evaluate_retrieval_results, retrieved_lists
from mmdf2.evaluation.metrics import RetrievalMetric, retrieval_metric
from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.retrieval import summarize
from mmdf2.ops import pair_topk

from ..small_split import collected, run
from ..test_retrieval import iou, official
from ..test_verification import by_brute_force


class TestRetrievalMetric:
    def test_equals_the_protocol_in_loops_over_the_official_files(self, root, store, samples, similarity, tmp_path):
        figures = run(RetrievalMetric(str(root), outfile_prefix=str(tmp_path / 'run')), samples)
        export(store, tmp_path, 'validation')
        results, query_gt, gallery_gt = (
            json.loads((tmp_path / name).read_text())
            for name in ('run.retrieval.json', 'val_query.json', 'val_gallery.json')
        )
        every = brute_force_lists(samples, store, similarity)
        outcome = official(every, query_gt, gallery_gt)
        # The file holds the detections that represent a query item, and no others.
        assert all(result in every for result in results)
        assert 5 < len(results) == sum(not missed for *_, missed in outcome) < len(every)
        assert official(results, query_gt, gallery_gt) == outcome
        for k in (1, 5, 10, 15, 20):
            expected = np.mean([place is not None and place < k for _, place, *_ in outcome])
            assert figures[f'retrieval_top{k}'] == pytest.approx(expected)
        assert figures['retrieval_missed'] == sum(missed for *_, missed in outcome)
        assert 0.1 < figures['retrieval_top1'] < figures['retrieval_top20'] < 1
        from_files = summarize(evaluate_retrieval_results(results, query_gt, gallery_gt))
        assert from_files == {key: figures[f'retrieval_{key}'] for key in from_files}
        assert figures == run(RetrievalMetric(str(root)), samples), 'writing the files changes the figures'

    def test_the_analysis_finds_the_same_in_the_file_as_in_lists_of_every_detection(
        self, root, store, samples, similarity, tmp_path
    ):
        run(RetrievalMetric(str(root), outfile_prefix=str(tmp_path / 'run')), samples)
        results = json.loads((tmp_path / 'run.retrieval.json').read_text())
        every = brute_force_lists(samples, store, similarity)
        one, other = (retrieval_errors(store, retrieved_lists(list_entries('', found))) for found in (results, every))
        for name in ('queries', 'first_right', 'missed', 'matches', 'average_precision'):
            np.testing.assert_array_equal(getattr(one.outcome, name), getattr(other.outcome, name))
        assert one.wrong.sum() == other.wrong.sum()
        shown, expected = (rows_of_results(found, store, tmp_path, count=50) for found in (results, every))
        assert [row.hit_images for row in shown] == [row.hit_images for row in expected]
        assert [list(row.box) for row in shown] == [list(row.box) for row in expected]

    @pytest.mark.parametrize('writes', [False, True])
    def test_each_represented_query_item_is_searched_for_once(self, root, samples, monkeypatch, tmp_path, writes):
        searched = []

        def counted(queries, *arguments, **options):
            searched.append(len(queries))
            return pair_topk(queries, *arguments, **options)

        monkeypatch.setattr(retrieval_metric, 'pair_topk', counted)
        prefix = str(tmp_path / 'run') if writes else None
        figures = run(RetrievalMetric(str(root), outfile_prefix=prefix), samples)
        protocols = ('retrieval', 'retrieval_gt')
        assert searched == [figures[f'{name}_queries'] - figures[f'{name}_missed'] for name in protocols]
        if writes:
            files = [json.loads((tmp_path / f'run.{name}.json').read_text()) for name in protocols]
            assert [len(entries) for entries in files] == searched

    def test_ground_truth_boxes(self, root, store, samples, similarity):
        figures = run(RetrievalMetric(str(root)), samples)
        by_id = {sample['img_id']: sample['gt_box_instances']['embeddings'].double() for sample in samples}
        weight = (similarity['weight'][0] - similarity['weight'][1]).double()
        users, shops = ([store.image(i) for i in range(len(store)) if store.sources[i] == source] for source in (0, 1))
        gallery = [(image, item, by_id[image.image_id][row]) for image in shops for row, item in enumerate(image.items)]
        right, by_chance = [], []
        for image in users:
            for row, item in enumerate(image.items):
                if not item.style:
                    continue
                query = by_id[image.image_id][row]
                best = max(gallery, key=lambda entry: float((weight * (query - entry[2]) ** 2).sum()))
                right.append(self.is_right(image, item, best))
                by_chance.append(np.mean([self.is_right(image, item, entry) for entry in gallery]))
        assert figures['retrieval_gt_top1'] == pytest.approx(np.mean(right))
        assert figures['retrieval_gt_missed'] == 0
        assert figures['retrieval_gt_queries'] == len(right) > 5
        assert figures['retrieval_chance_top1'] == pytest.approx(np.mean(by_chance))
        assert 0 < figures['retrieval_chance_top1'] < figures['retrieval_gt_top1']

    def test_verification_is_brute_force_over_all_pairs_of_items(self, root, store, samples, similarity):
        figures = run(RetrievalMetric(str(root)), samples)
        by_id = {sample['img_id']: sample['gt_box_instances']['embeddings'].double() for sample in samples}
        weight = (similarity['weight'][0] - similarity['weight'][1]).double()
        items = {'user': [], 'shop': []}
        for image in map(store.image, range(len(store))):
            rows = zip(image.items, by_id[image.image_id], strict=True)
            items[image.source] += [((image.pair_id, item.style), row) for item, row in rows if item.style]
        pairs = [(first, second) for first in items['user'] for second in items['shop']]
        assert len(items['shop']) < 200, 'some negative pairs would be left out by chance'
        bias = float(similarity['bias'][0] - similarity['bias'][1])
        scores = np.array([float((weight * (a - b) ** 2).sum()) + bias for (_, a), (_, b) in pairs])
        same = np.array([first == second for (first, _), (second, _) in pairs])
        for name, value in by_brute_force(scores, same).items():
            assert figures[f'verification_{name}'] == pytest.approx(value, abs=1e-5), name
        assert 0.6 < figures['verification_auc'] < 1

    @staticmethod
    def is_right(image, item, entry):
        """Whether an entry's box overlaps an item of the query's pair_id and style in the entry's image."""
        found, box = entry[0], entry[1].bbox
        return any(
            (found.pair_id, other.style) == (image.pair_id, item.style) and iou(box, other.bbox) >= 0.5
            for other in found.items
        )

    @pytest.mark.parametrize('subsets', [False, True])
    @pytest.mark.parametrize('embedded', [False, True])
    def test_names_of_the_figures_are_known_before(self, root, samples, subsets, embedded):
        if not embedded:
            for sample in samples:
                del sample['gt_box_instances']
        metric = RetrievalMetric(str(root), subsets=subsets)
        metric.process(None, samples[:1])
        found = set(run(RetrievalMetric(str(root), subsets=subsets), samples))
        # Queries with more than five matching gallery items may be missing.
        assert {name for name in metric.figure_names() - found if '_paper_' not in name} == set()
        assert found <= metric.figure_names()

    def test_without_ground_truth_embeddings(self, root, samples, log):
        for sample in samples:
            del sample['gt_box_instances']
        figures = run(RetrievalMetric(str(root)), samples)
        assert not any(key.startswith('retrieval_gt') for key in figures)
        assert 'retrieval with ground-truth boxes is left out' in log.text

    def test_gallery_without_detections(self, root, store, samples):
        shops = set(store.image_ids[store.sources == 1].tolist())
        for sample in samples:
            if sample['img_id'] in shops:
                sample['pred_instances'] = {key: value[:0] for key, value in sample['pred_instances'].items()}
        figures = run(RetrievalMetric(str(root)), samples)
        assert figures['retrieval_top20'] == 0
        assert figures['retrieval_gt_top20'] > 0

    def test_no_user_images(self, root, store, samples):
        users = set(store.image_ids[store.sources == 0].tolist())
        figures = run(RetrievalMetric(str(root)), [sample for sample in samples if sample['img_id'] not in users])
        assert figures['retrieval_queries'] == 0
        assert np.isnan(figures['retrieval_top1'])
        assert np.isnan(figures['retrieval_chance_top1'])

    def test_queries_without_a_partner_are_counted_and_said(self, root, store, samples, log):
        shops = store.image_ids[store.sources == 1]
        rest = [sample for sample in samples if sample['img_id'] not in shops[store.pair_ids[store.sources == 1] == 1]]
        whole, part = (run(RetrievalMetric(str(root)), some) for some in (samples, rest))
        assert 'have no matching item in the gallery' in log.text
        assert part['retrieval_queries'] == whole['retrieval_queries']

    def test_weights_are_kept_once(self, root, samples):
        for sample in samples:
            sample['match_similarity'] = {name: value.clone() for name, value in sample['match_similarity'].items()}
        results = collected(RetrievalMetric(str(root)), samples)
        assert len({id(result['similarity']) for result in results}) == 1

    def test_newer_weights_replace_older_ones(self, root, samples):
        metric = RetrievalMetric(str(root))
        before = run(metric, samples)
        for sample in samples:
            sample['match_similarity'] = {name: -value for name, value in sample['match_similarity'].items()}
        after = run(metric, samples)
        assert after['retrieval_gt_top1'] < before['retrieval_gt_top1']
        assert after == run(RetrievalMetric(str(root)), samples)

    def test_a_model_without_match_head(self, root, samples):
        del samples[0]['match_similarity']
        with pytest.raises(ValueError, match='predicts neither without a match_head'):
            run(RetrievalMetric(str(root)), samples)

    def test_ground_truth_rows_that_are_not_the_stores(self, root, samples):
        rows = samples[2]['gt_box_instances']
        rows['labels'], rows['embeddings'] = rows['labels'][:-1], rows['embeddings'][:-1]
        with pytest.raises(EvaluationError, match=f'gt_box_instances of image {samples[2]["img_id"]} have labels'):
            run(RetrievalMetric(str(root)), samples)

    def test_nothing_predicted(self, root):
        with pytest.raises(ValueError, match='got no predictions'):
            run(RetrievalMetric(str(root)), [])


def brute_force_lists(samples, store, similarity):
    """Official results of every detection on a user image: the best 20 of all boxes on shop images.

    They are ranked by the direct formula in double precision.
    """
    weight = (similarity['weight'][0] - similarity['weight'][1]).double()
    shops = set(store.image_ids[store.sources == 1].tolist())
    gallery, queries = [], []
    for sample in sorted(samples, key=lambda sample: sample['img_id']):
        rows = [sample['pred_instances'][name] for name in ('bboxes', 'labels', 'scores', 'embeddings')]
        boxes = gallery if sample['img_id'] in shops else queries
        boxes += [(sample['img_id'], *row) for row in zip(*rows, strict=True)]
    results = []
    for image, box, label, score, embedding in queries:
        ranked = sorted(gallery, key=lambda entry: -float((weight * (embedding.double() - entry[4]) ** 2).sum()))[:20]
        results.append(
            {
                'query_image_id': image,
                'query_bbox': box.tolist(),
                'query_cls': int(label) + 1,
                'query_score': score.item(),
                'gallery_image_id': [entry[0] for entry in ranked],
                'gallery_bbox': [entry[1].tolist() for entry in ranked],
            }
        )
    assert len(results) > 10 and len(gallery) > 5
    return results

"""The metrics from data samples to figures, against pycocotools and the protocol in loops over the official files."""

import contextlib
import io
import json
import logging
import pickle

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdf2.categories import CATEGORIES
from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.files.retrieval import evaluate_retrieval_results
from mmdf2.evaluation.metrics import DeepFashion2Metric, RetrievalMetric
from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.retrieval import summarize
from mmdf2.registry import METRICS

from ..small_split import DIMS, predict, write_split
from ..test_retrieval import iou, official
from ..test_verification import by_brute_force


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('split')
    write_split(root, np.random.default_rng(3))
    return root


@pytest.fixture(scope='module')
def store(root):
    return open_or_prepare(root, 'validation')


@pytest.fixture
def similarity():
    generator = torch.Generator().manual_seed(0)
    weight = torch.stack([-torch.rand(DIMS, generator=generator), torch.rand(DIMS, generator=generator)])
    return {'weight': weight, 'bias': torch.tensor([0.3, -0.1])}


@pytest.fixture
def samples(store, similarity):
    return predict(store, np.random.default_rng(4), similarity)


@pytest.fixture
def log(caplog):
    """Text of warnings; MMEngine's logger does not propagate by itself."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def run(metric, samples, batch=3):
    for start in range(0, len(samples), batch):
        metric.process(None, samples[start : start + batch])
    return metric.evaluate(len(samples))


def pycocotools_figures(truth_file, result_file, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_file))
        evaluation = COCOeval(truth, truth.loadRes(str(result_file)), kind)
        evaluation.params.kpt_oks_sigmas = np.concatenate([category.oks_sigmas for category in CATEGORIES])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval['precision'][..., 0, -1], evaluation.eval['recall'][..., 0, -1]
    return [p[p > -1].mean() for p in (precision, precision[0], precision[5], recall)]


class TestDeepFashion2Metric:
    def test_equals_pycocotools_on_the_exchange_files(self, root, store, samples, tmp_path):
        figures = run(DeepFashion2Metric(str(root), outfile_prefix=str(tmp_path / 'out' / 'run')), samples)
        export(store, tmp_path, 'validation')
        for kind, truth, ending in (
            ('bbox', 'instances_val', ''),
            ('segm', 'instances_val', ''),
            ('keypoints', 'keypoints_val_vis', '_visible'),
            ('keypoints', 'keypoints_val_vis_and_occ', '_all'),
        ):
            expected = pycocotools_figures(tmp_path / f'{truth}.json', tmp_path / 'out' / f'run.{kind}.json', kind)
            found = [figures[f'{kind}_{name}{ending}'] for name in ('AP', 'AP50', 'AP75', 'AR')]
            np.testing.assert_allclose(found, expected, atol=1e-9, rtol=0)
            assert 0.02 < found[0] < 0.9
        assert len(figures) == 16

    def test_logs_a_row_for_each_category(self, root, store, samples, log):
        figures = run(DeepFashion2Metric(str(root)), samples)
        lines = [line for line in log.text.splitlines() if line.startswith('|')]
        rows = {line.split('|')[1].strip(): [cell.strip() for cell in line.split('|')[2:-1]] for line in lines}
        assert rows['category'] == ['items', 'bbox_AP', 'segm_AP', 'keypoints_AP_visible', 'keypoints_AP_all']
        assert rows['sling dress'] == ['0', '-', '-', '-', '-']
        assert rows['mean AP75'][1:] == [
            f'{figures[key]:.3f}' for key in ('bbox_AP75', 'segm_AP75', 'keypoints_AP75_visible', 'keypoints_AP75_all')
        ]
        assert int(rows['trousers'][0]) == (store.category_ids == 8).sum()
        assert len(rows) == 1 + 13 + 3
        assert max(map(len, lines)) < 110

    def test_one_metric_alone_and_by_config(self, root, samples):
        metric = METRICS.build({'type': 'mmdf2.DeepFashion2Metric', 'data_root': str(root), 'metrics': ['bbox']})
        evaluator = Evaluator(metric)
        evaluator.process(data_samples=samples, data_batch=None)
        assert set(evaluator.evaluate(len(samples))) == {'bbox_AP', 'bbox_AP50', 'bbox_AP75', 'bbox_AR'}

    def test_order_and_half_precision_of_predictions(self, root, samples):
        expected = run(DeepFashion2Metric(str(root), metrics='bbox'), samples)
        for sample in samples:
            sample['pred_instances']['scores'] = sample['pred_instances']['scores'].to(torch.bfloat16)
        assert run(DeepFashion2Metric(str(root), metrics='bbox'), samples[::-1]) == pytest.approx(expected)

    def test_absent_stream(self, root, samples, log):
        for sample in samples:
            del sample['pred_instances']['masks']
        figures = run(DeepFashion2Metric(str(root)), samples)
        assert not any(key.startswith('segm') for key in figures)
        assert 'Not predicted, so not evaluated: segm' in log.text
        with pytest.raises(ValueError, match=r"\['segm'\] need masks in pred_instances"):
            run(DeepFashion2Metric(str(root), metrics=['bbox', 'segm']), samples)

    def test_a_stream_that_comes_and_goes(self, root, samples):
        del samples[3]['pred_instances']['keypoints']
        with pytest.raises(ValueError, match="25 of 26 images were predicted with 'keypoints'"):
            run(DeepFashion2Metric(str(root)), samples)

    def test_part_of_a_split_is_evaluated_alone_and_said_loudly(self, root, samples, log):
        part = run(DeepFashion2Metric(str(root), metrics='bbox'), samples[:5])
        assert '5 of the 26 images' in log.text
        assert 'OF THESE IMAGES ALONE' in log.text
        assert part['bbox_AP'] != run(DeepFashion2Metric(str(root), metrics='bbox'), samples)['bbox_AP']

    def test_images_predicted_without_detections_are_missed(self, root, samples):
        empty = {key: value[:0] for key, value in samples[0]['pred_instances'].items()}
        figures = run(DeepFashion2Metric(str(root)), [{**sample, 'pred_instances': empty} for sample in samples])
        assert figures['bbox_AP'] == figures['segm_AR'] == figures['keypoints_AP_all'] == 0

    def test_repeated_images_count_once(self, root, samples, log):
        metric = DeepFashion2Metric(str(root), metrics='bbox')
        figures = metric.compute_metrics(collected(metric, samples + samples[:3]))
        assert figures == metric.compute_metrics(collected(metric, samples))
        assert '3 results repeat an image' in log.text

    def test_results_are_compact_and_survive_pickling(self, root, samples):
        metric = DeepFashion2Metric(str(root))
        results = collected(metric, samples)
        assert metric.compute_metrics(pickle.loads(pickle.dumps(results))) == metric.compute_metrics(results)
        detections = sum(len(result['scores']) for result in results)
        assert len(pickle.dumps(results)) < 700 * detections + 1000 * len(results)

    def test_refuses_foreign_images_bad_scores_and_unknown_metrics(self, root, samples):
        with pytest.raises(EvaluationError, match=r'1 predicted images are not in Store.* the first has id 99'):
            run(DeepFashion2Metric(str(root)), [*samples, {**samples[0], 'img_id': 99}])
        busy = next(sample for sample in samples if len(sample['pred_instances']['scores']))
        busy['pred_instances']['scores'][0] = float('nan')
        with pytest.raises(EvaluationError, match=rf'image {busy["img_id"]}.* score that is not finite'):
            run(DeepFashion2Metric(str(root)), samples)
        with pytest.raises(ValueError, match="got 'boxes'"):
            DeepFashion2Metric(str(root), metrics='boxes')
        with pytest.raises(KeyError, match="no 'img_id'"):
            DeepFashion2Metric(str(root)).process(None, [{'pred_instances': samples[0]['pred_instances']}])


def collected(metric, samples):
    metric.process(None, samples)
    results = list(metric.results)
    metric.results.clear()
    return results


class TestRetrievalMetric:
    def test_equals_the_protocol_in_loops_over_the_official_files(self, root, store, samples, similarity, tmp_path):
        figures = run(RetrievalMetric(str(root), outfile_prefix=str(tmp_path / 'run')), samples)
        export(store, tmp_path, 'validation')
        results, query_gt, gallery_gt = (
            json.loads((tmp_path / name).read_text())
            for name in ('run.retrieval.json', 'val_query.json', 'val_gallery.json')
        )
        assert_lists_are_brute_force(results, samples, store, similarity)
        outcome = official(results, query_gt, gallery_gt)
        for k in (1, 5, 10, 15, 20):
            expected = np.mean([place is not None and place < k for _, place, *_ in outcome])
            assert figures[f'retrieval_top{k}'] == pytest.approx(expected)
        assert figures['retrieval_missed'] == sum(missed for *_, missed in outcome)
        assert 0.1 < figures['retrieval_top1'] < figures['retrieval_top20'] < 1
        from_files = summarize(evaluate_retrieval_results(results, query_gt, gallery_gt))
        assert from_files == {key: figures[f'retrieval_{key}'] for key in from_files}
        assert figures == run(RetrievalMetric(str(root)), samples), 'writing the files changes the figures'

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


def assert_lists_are_brute_force(results, samples, store, similarity):
    """Every list is the best 20 of all boxes on shop images, by the direct formula in double precision."""
    weight = (similarity['weight'][0] - similarity['weight'][1]).double()
    shops = set(store.image_ids[store.sources == 1].tolist())
    gallery, queries = [], {}
    for sample in sorted(samples, key=lambda sample: sample['img_id']):
        rows = sample['pred_instances']
        for box, label, embedding in zip(rows['bboxes'], rows['labels'], rows['embeddings'].double(), strict=True):
            if sample['img_id'] in shops:
                gallery.append((sample['img_id'], box.tolist(), embedding))
            else:
                queries[sample['img_id'], tuple(box.tolist()), int(label) + 1] = embedding
    assert len(results) == len(queries) > 10
    assert len(gallery) > 5
    for result in results:
        query = queries[result['query_image_id'], tuple(result['query_bbox']), result['query_cls']]
        ranked = sorted(gallery, key=lambda entry: -float((weight * (query - entry[2]) ** 2).sum()))[:20]
        assert result['gallery_image_id'] == [entry[0] for entry in ranked]
        assert result['gallery_bbox'] == [entry[1] for entry in ranked]


def ranked_samples(store):
    """Predictions for an odd number of images."""
    weight = torch.stack([-torch.ones(DIMS), torch.ones(DIMS)])
    return predict(store, np.random.default_rng(4), {'weight': weight, 'bias': torch.zeros(2)})[:25]


def evaluate_on_rank(rank, root, folder):
    """One of two processes: its share of the images, padded as mmengine's DefaultSampler does."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    samples = ranked_samples(open_or_prepare(root, 'validation'))
    share = (samples + samples[:1])[rank::2]
    figures = {}
    for metric in (DeepFashion2Metric, RetrievalMetric):
        evaluated = metric(str(root), collect_dir=f'{folder}/{metric.__name__}')
        evaluated.process(None, share)
        figures.update(evaluated.evaluate(len(samples)))
    (folder / f'{rank}.json').write_text(json.dumps(figures))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_figures_of_one(root, store, tmp_path):
    torch.multiprocessing.spawn(evaluate_on_rank, (root, tmp_path), nprocs=2)
    samples = ranked_samples(store)
    alone = {**run(DeepFashion2Metric(str(root)), samples), **run(RetrievalMetric(str(root)), samples)}
    for rank in range(2):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == pytest.approx(alone, abs=1e-12)

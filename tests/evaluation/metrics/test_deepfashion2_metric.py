"""DeepFashion2Metric from data samples to figures, against pycocotools on the exchange files."""

import contextlib
import io
import pickle

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdf2.categories import CATEGORIES
from mmdf2.datasets.exchange import export
from mmdf2.evaluation.metrics import DeepFashion2Metric, RetrievalMetric
from mmdf2.evaluation.records import EvaluationError
from mmdf2.registry import METRICS

from ..small_split import collected, run, write_split


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

    @pytest.mark.parametrize('metric', [DeepFashion2Metric, RetrievalMetric])
    def test_ground_truth_comes_from_the_store_that_is_named(self, metric, root, samples, tmp_path):
        expected = run(metric(str(root)), samples)
        write_split(tmp_path / 'same', np.random.default_rng(3))
        found = run(metric(str(tmp_path / 'same'), store=str(tmp_path / 'mine')), samples)
        assert found == pytest.approx(expected, nan_ok=True)
        assert (tmp_path / 'mine').is_dir() and not (tmp_path / 'same' / 'validation.store').exists()

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

    @pytest.mark.parametrize('subsets', [False, True])
    def test_names_of_the_figures_are_known_before(self, root, samples, subsets):
        for metrics in ('auto', ['bbox', 'keypoints']):
            metric = DeepFashion2Metric(str(root), metrics=metrics, subsets=subsets)
            metric.process(None, samples[:1])
            assert metric.figure_names() == set(
                run(DeepFashion2Metric(str(root), metrics=metrics, subsets=subsets), samples)
            )

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

"""The trial of the validation, on the paper's validation with a tiny model."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from models.tiny import build_tiny
from tiny_run import ROOT, write_config

from mmdf2.command_line import UserError
from mmdf2.engine import ValidationTrialHook


class Foreign(BaseMetric):
    """A metric that does not say which figures it gives."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {'foreign': 1.0}


@pytest.fixture(scope='module')
def validation(tmp_path_factory, tiny_root):
    """The config with a tiny model, and a loader of its test data."""
    init_default_scope('mmdet')
    config = Config.fromfile(write_config(tmp_path_factory.mktemp('trial'), tiny_root))
    return config, Runner.build_dataloader(config.test_dataloader)


def tried(validation, metrics=None, save_best='as in the config', **roi_head) -> Evaluator:
    """Tries the validation; returns the evaluator."""
    config, loader = validation
    default = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py').default_hooks
    assert default.validation_trial == {'type': 'mmdf2.ValidationTrialHook'}
    settings = {**default.checkpoint} | ({} if save_best == 'as in the config' else {'save_best': save_best})
    hook = CheckpointHook(**{name: value for name, value in settings.items() if name != 'type'})
    evaluator = Evaluator(config.test_evaluator if metrics is None else metrics)
    loop = SimpleNamespace(dataloader=loader, evaluator=evaluator, fp16=False)
    ValidationTrialHook().before_train(
        SimpleNamespace(val_loop=loop, model=build_tiny(**roi_head), hooks=[ValidationTrialHook(), hook])
    )
    assert all(metric.results == [] for metric in evaluator.metrics)
    return evaluator


def test_the_validation_of_the_paper_gives_the_figure_of_the_best_checkpoint(validation):
    evaluator, (_, loader) = tried(validation), validation
    model = build_tiny().eval()
    with torch.no_grad():
        for batch in loader:
            evaluator.process(data_samples=model.val_step(batch), data_batch=batch)
    assert {'retrieval_top1', 'bbox_AP'} <= set(evaluator.evaluate(len(loader.dataset)))


def test_a_model_without_a_matching_stream_is_told_at_the_start(validation):
    with pytest.raises(UserError, match=r'cannot be done: RetrievalMetric needs embeddings .* leave the metric out'):
        tried(validation, match_head=None)
    boxes = validation[0].test_evaluator[:1]
    with pytest.raises(
        UserError, match=r'the best retrieval_top1, but .* no such figure; set default_hooks\.checkpoint'
    ):
        tried(validation, boxes, match_head=None)
    tried(validation, boxes, 'bbox_AP', match_head=None)


@pytest.mark.slow
def test_a_figure_by_another_name_and_none_at_all(validation):
    with pytest.raises(UserError, match=r'set default_hooks\.checkpoint\.save_best=bbox_AP, or'):
        tried(validation, save_best=['retrieval_top1', 'bbox_mAP'])
    for value in (None, 'auto', ['segm_AP75', 'keypoints_AP_all', 'verification_auc']):
        tried(validation, save_best=value)


def test_names_are_not_checked_beside_a_foreign_metric(validation):
    tried(validation, [Foreign()], 'foreign')


def test_a_run_without_validation_is_left_alone():
    ValidationTrialHook().before_train(SimpleNamespace(val_loop=None))

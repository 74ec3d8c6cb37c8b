"""The results of two processes give the figures of one process."""

import json

import numpy as np
import pytest
import torch

from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.metrics import DeepFashion2Metric, RetrievalMetric

from ..small_split import DIMS, predict, run


def ranked_samples(store):
    """Predictions for an odd number of images."""
    weight = torch.stack([-torch.ones(DIMS), torch.ones(DIMS)])
    return predict(store, np.random.default_rng(4), {'weight': weight, 'bias': torch.zeros(2)})[:25]


def evaluate_on_rank(rank, root, folder):
    """Evaluates the share of one of two processes, padded as MMEngine's DefaultSampler pads it."""
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

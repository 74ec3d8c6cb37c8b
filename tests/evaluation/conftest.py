"""A small split, results of all kinds for it, and their report."""

import numpy as np
import pytest

from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.evaluate import evaluate_files
from mmdf2.evaluation.metrics import DeepFashion2Metric, RetrievalMetric

from .small_split import DIMS, files_of, predict, write_split


@pytest.fixture(scope='module')
def result_folder(tmp_path_factory):
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


@pytest.fixture(scope='module')
def folder(result_folder):
    """``result_folder`` under a shorter name; a module with a folder of its own overrides this one."""
    return result_folder


@pytest.fixture(scope='module')
def report(result_folder):
    """The report of all results, with the thirteen columns."""
    kinds = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')
    return evaluate_files(files_of(result_folder, *kinds), result_folder / 'data', subsets=True)

"""The results of two processes give the figures of one process."""

import os

import numpy as np
import pytest
import torch
from processes import run_in_processes

from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.metrics import DeepFashion2Metric, RetrievalMetric, retrieval_metric, threads

from ..small_split import DIMS, predict, run


def ranked_samples(store):
    """Predictions for an odd number of images."""
    weight = torch.stack([-torch.ones(DIMS), torch.ones(DIMS)])
    return predict(store, np.random.default_rng(4), {'weight': weight, 'bias': torch.zeros(2)})[:25]


def watch_threads():
    """A list to which each search adds the number of threads that it computes with, on a machine of three cores."""
    counts, search = [], retrieval_metric.pair_topk

    def watched(*arguments, **options):
        counts.append(torch.get_num_threads())
        return search(*arguments, **options)

    retrieval_metric.pair_topk = watched
    threads.usable_cores = lambda: 3
    return counts


def evaluate_on_rank(rank, root, folder):
    """Evaluates the share of one of two processes, padded as MMEngine's DefaultSampler pads it."""
    os.environ['OMP_NUM_THREADS'] = '1'  # as torchrun starts it
    samples = ranked_samples(open_or_prepare(root, 'validation'))
    counts = watch_threads()
    share = (samples + samples[:1])[rank::2]
    figures = {}
    for metric in (DeepFashion2Metric, RetrievalMetric):
        evaluated = metric(str(root), collect_dir=f'{folder}/{metric.__name__}')
        evaluated.process(None, share)
        figures.update(evaluated.evaluate(len(samples)))
    return {name: float(value) for name, value in figures.items()}, counts, torch.get_num_threads()


def test_two_processes_give_the_figures_of_one(root, store, tmp_path):
    found = run_in_processes(evaluate_on_rank, 2, root, tmp_path)
    samples = ranked_samples(store)
    alone = {**run(DeepFashion2Metric(str(root)), samples), **run(RetrievalMetric(str(root)), samples)}
    for figures, *_ in found:
        assert figures == pytest.approx(alone, abs=1e-12)
    # The first process computes with all cores while the other one waits, and has its one thread again afterwards.
    assert found[0][1:] == ([3, 3], 1)
    assert found[1][1:] == ([], 1)


def test_images_that_could_not_be_used_are_left_out_and_named(root, store, monkeypatch):
    samples = ranked_samples(store)
    lines = []
    monkeypatch.setattr('mmdf2.evaluation.metrics.data_samples.print_log', lambda text, *others: lines.append(text))
    for metric in (DeepFashion2Metric, RetrievalMetric):
        # What the model saw in place of the images says nothing about them.
        marked = [
            {**sample, 'unreadable': f'{sample["img_id"]}.jpg is no image'} if number in (0, 7) else sample
            for number, sample in enumerate(samples)
        ]
        others = [sample for number, sample in enumerate(samples) if number not in (0, 7)]
        expected = run(metric(str(root)), others)
        lines.clear()
        assert run(metric(str(root)), marked) == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert f'{metric.__name__}: 2 of 25 images could not be used and are left out of the figures:' in lines[0]
        assert all(f'{samples[number]["img_id"]}.jpg is no image' in lines[0] for number in (0, 7))
        trial = metric(str(root))
        trial.process(None, marked)
        assert trial.figure_names()


@pytest.mark.parametrize(
    ('processes', 'backend', 'given', 'expected'),
    [(1, None, '1', 2), (8, 'gloo', None, 2), (8, 'gloo', '1', 12), (8, 'nccl', '1', 5), (16, 'nccl', '1', 2)],
)
def test_only_a_process_that_was_given_a_share_takes_the_cores_of_those_that_wait(
    monkeypatch, processes, backend, given, expected
):
    monkeypatch.setattr(threads, 'get_dist_info', lambda: (0, processes))
    monkeypatch.setattr(threads, 'get_backend', lambda: backend)
    monkeypatch.setattr(threads, 'usable_cores', lambda: 12)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    monkeypatch.setenv('OMP_NUM_THREADS', given or '')
    if given is None:
        monkeypatch.delenv('OMP_NUM_THREADS')
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), threads.cores_of_waiting_processes():
            assert torch.get_num_threads() == expected
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

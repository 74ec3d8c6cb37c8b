"""The benchmark of the evaluation runs on a small split, with the figures of pycocotools."""

import re

from tiny_run import run_tool


def test_small_split_is_measured_and_figures_agree(tmp_path):
    options = ('--dir', tmp_path, '--images', 60, '--part', 40)
    output = run_tool('benchmark_evaluation.py', *options, folder='benchmarks')
    assert '60 images, four tasks, thirteen columns' in output
    rows = re.findall(r'^ +(\w+) +(mmdf2|pycocotools) +[\d.]+ +[\d.]+ +\d+ +([\d.]+)$', output, flags=re.MULTILINE)
    precision = {(task, evaluator): float(value) for task, evaluator, value in rows}
    assert len(precision) == 6
    for task in ('bbox', 'segm', 'keypoints_all'):
        assert precision[task, 'mmdf2'] == precision[task, 'pycocotools'] > 0.1
    assert (tmp_path / '60' / 'report.json').exists()

"""benchmarks/benchmark_evaluation.py as a user starts it, on a small split."""

import json
import re

from tiny_run import run_tool


def test_benchmark_prints_the_same_precision_for_every_evaluator(tmp_path):
    printed = run_tool('benchmark_evaluation.py', '--dir', tmp_path, '--images', 60, '--part', 60, folder='benchmarks')
    read = r'60 images, four tasks, thirteen columns, \d+ MB of results read:\s+[\d.]+ s, peak memory \d+ MB'
    assert re.search(read, printed)
    for task in ('bbox', 'segm', 'keypoints_all'):
        found = dict(re.findall(rf'{task} +(mmdf2|pycocotools) .* ([\d.]+)$', printed, flags=re.MULTILINE))
        assert found['mmdf2'] == found['pycocotools'] and 0.1 < float(found['mmdf2']) < 0.9
    report = json.loads((tmp_path / '60' / 'report.json').read_text())
    assert 0 < report['retrieval']['overall']['top20'] < 1

"""benchmarks/benchmark_ops.py: that all runs and agrees; how fast is for its user to see."""

import importlib.util
import json

import pytest
import torch
from tiny_run import ROOT, run_tool

from mmdf2.ops import build_info


@pytest.mark.slow
def test_quick_run_prints_tables_and_writes_the_numbers(tmp_path):
    out = tmp_path / 'numbers.json'
    printed = run_tool('benchmark_ops.py', '--quick', '--threads', 1, '--out', out, folder='benchmarks')
    result = json.loads(out.read_text())
    assert result['machine']['torch'] == torch.__version__ and result['machine']['threads'] == 1
    assert result['machine']['compiler'] == build_info()['compiler'] and result['machine']['processor'] in printed
    (search,) = result['searches']
    assert (search['queries'], search['gallery']) == (40, 3000)
    for name, fact in search['contenders'].items():
        assert f'| {name} ' in printed
        if 'missing' in fact:
            assert fact['missing'] == 'not installed: pip install faiss-cpu' and fact['missing'] in printed
            assert importlib.util.find_spec('faiss') is None
            continue
        assert fact['seconds'] > 0 and fact['memory'] >= 0
        assert fact.get('same_neighbours', 1) > 0.99 and fact.get('score_error', 0) < 1e-2
    ours = search['contenders']['mmdf2.ops.pair_topk']
    assert ours['same_neighbours'] == 1 and ours['score_error'] < 1e-4
    assert {'naive broadcast', 'torch, expanded form', 'mmdf2.ops.pair_similarity'} == set(result['training'])
    assert [path.name for path in tmp_path.iterdir()] == ['numbers.json']


def test_a_slow_contender_does_a_part_of_the_queries(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import benchmark_ops

    naive = benchmark_ops.SEARCHES['naive broadcast']._replace(pairs=1000)
    monkeypatch.setitem(benchmark_ops.SEARCHES, 'naive broadcast', naive)
    names = ['matrix product alone', 'naive broadcast']
    facts = benchmark_ops.search_times(names, (30, 100), 'cpu', torch.get_num_threads(), repeat=1)
    assert [facts[name]['queries'] for name in names] == [30, 10]
    for name in names:
        facts[name]['memory'] = 0
    _, rows = benchmark_ops.search_table((30, 100), facts)
    assert rows[1][-1] == '30' and rows[2][-1] == '10, scaled'


def test_a_size_is_two_numbers():
    printed = run_tool('benchmark_ops.py', '--sizes', '12x', expect=2, folder='benchmarks')
    assert "a size is queries x gallery rows, such as 256x1000000, got '12x'" in printed

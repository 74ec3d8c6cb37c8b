"""benchmarks/benchmark_milvus.py on a few items in a file of milvus-lite."""

import re

import pytest
from tiny_run import run_tool

pytestmark = pytest.mark.slow


def test_measures_the_gallery_beside_bare_pymilvus(tmp_path):
    pytest.importorskip('milvus_lite', reason='galleries in Milvus are an extra: pip install pymilvus milvus-lite')
    printed = run_tool('benchmark_milvus.py', '--dir', tmp_path, '--items', 600, '--categories', 2, folder='benchmarks')
    recalls = dict(re.findall(r'^(.*?), exact +([\d.]+)', printed, re.MULTILINE))
    assert recalls['folder'] == recalls['Milvus'] == '1.000' and float(recalls['bare pymilvus']) > 0.9
    assert 'Milvus, graph' in printed and 'bare pymilvus, graph' in printed
    assert re.search(r'transferred at [\d,]+ items per second', printed)

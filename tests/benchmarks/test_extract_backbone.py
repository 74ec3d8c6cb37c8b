"""benchmarks/extract_backbone.py on made-up checkpoints."""

import torch
from safetensors.torch import load_file
from tiny_run import run_tool

from mmdf2.models.packaged_weights import unpack


def test_writes_the_backbone_and_nothing_else(tmp_path):
    weights = {'backbone.conv.weight': torch.randn(4, 3, 3, 3), 'backbone.norm.bias': torch.ones(4)}
    torch.save({'state_dict': {**weights, 'neck.weight': torch.ones(2)}, 'meta': {}}, tmp_path / 'trained.pth')
    printed = run_tool(
        'extract_backbone.py', tmp_path / 'trained.pth', tmp_path / 'out.safetensors', folder='benchmarks'
    )
    assert '112 weights' in printed
    restored = unpack(load_file(tmp_path / 'out.safetensors'))
    assert set(restored) == {'conv.weight', 'norm.bias'}
    torch.testing.assert_close(restored['conv.weight'], weights['backbone.conv.weight'], atol=0.02, rtol=0)
    assert [path.name for path in tmp_path.glob('*.tmp')] == []


def test_a_checkpoint_without_backbone_is_refused(tmp_path):
    torch.save({'state_dict': {'neck.weight': torch.ones(2)}}, tmp_path / 'trained.pth')
    printed = run_tool(
        'extract_backbone.py', tmp_path / 'trained.pth', tmp_path / 'out.safetensors', expect=1, folder='benchmarks'
    )
    assert "no weight whose name starts with 'backbone.'" in printed
    assert not (tmp_path / 'out.safetensors').exists()

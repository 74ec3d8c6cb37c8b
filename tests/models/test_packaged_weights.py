"""The weights in the wheel are small, close to the trained ones, and found by name."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from mmdf2.models import packaged_weights
from mmdf2.models.packaged_weights import pack, unpack


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return {
        'conv.weight': torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-4, 4, 6)[:, None, None, None],
        'dead.weight': torch.zeros(2, 3, 1, 1),
        'norm.weight': torch.rand(6, generator=generator),
        'norm.num_batches_tracked': torch.tensor(70_000),
    }


def test_rounding_is_at_most_half_a_step_of_each_channel(weights):
    restored = unpack(pack(weights))
    assert restored.keys() == weights.keys()
    step = weights['conv.weight'].abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    assert ((restored['conv.weight'] - weights['conv.weight']).abs() <= step * 0.5001).all()
    assert torch.equal(restored['dead.weight'], weights['dead.weight'])
    torch.testing.assert_close(restored['norm.weight'], weights['norm.weight'], rtol=1e-3, atol=0)
    assert restored['norm.num_batches_tracked'] == 70_000


def test_convolutions_take_a_quarter_of_their_bytes():
    packed = pack({'conv.weight': torch.randn(64, 64, 3, 3)})
    assert sum(value.nbytes for value in packed.values()) < 64 * 64 * 9 * 1.02


def test_mmengine_finds_them_by_name(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(packaged_weights, 'FOLDER', tmp_path)
    save_file(pack(weights), tmp_path / 'tiny.safetensors')
    loaded = CheckpointLoader.load_checkpoint('mmdf2://tiny', map_location='cpu', logger=None)
    torch.testing.assert_close(loaded['state_dict'], unpack(pack(weights)))
    with pytest.raises(FileNotFoundError, match=r"mmdf2://other.*'tiny'"):
        CheckpointLoader.load_checkpoint('mmdf2://other', map_location='cpu', logger=None)


def test_every_name_in_a_config_is_there_and_fits_its_backbone(repo_configs):
    named = [model for model in repo_configs if 'mmdf2://' in str(model.backbone.get('init_cfg'))]
    assert named
    for model in named:
        backbone = MODELS.build({**model.backbone, '_scope_': 'mmdet'})
        loaded = CheckpointLoader.load_checkpoint(model.backbone.init_cfg.checkpoint, map_location='cpu', logger=None)
        assert {name: value.shape for name, value in loaded['state_dict'].items()} == {
            name: value.shape for name, value in backbone.state_dict().items()
        }
        backbone.init_weights()
        torch.testing.assert_close(backbone.state_dict(), loaded['state_dict'])


@pytest.fixture(scope='module')
def repo_configs():
    root = Path(__file__).resolve().parents[2] / 'configs'
    return [Config.fromfile(path).model for path in sorted((root / 'synthetic').glob('*.py'))]

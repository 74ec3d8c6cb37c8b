"""Mixed precision and memory layout on CPUs."""

import pytest
import torch
from torch import nn

from mmdf2.engine import ChannelsLastHook, CpuAmpOptimWrapper, optim_wrapper


def _step(monkeypatch, has_bfloat16):
    monkeypatch.setattr(optim_wrapper, 'cpu_has_bfloat16', lambda: has_bfloat16)
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3)
    wrapper = CpuAmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 3, 8, 8))
    before = model.weight.detach().clone()
    wrapper.update_params(output.float().square().mean())
    return output.dtype, before, model.weight.detach()


@pytest.mark.parametrize('has_bfloat16', [True, False])
def test_forward_in_bfloat16_only_where_the_cpu_has_it(monkeypatch, has_bfloat16):
    dtype, before, after = _step(monkeypatch, has_bfloat16)
    assert dtype == (torch.bfloat16 if has_bfloat16 else torch.float32)
    assert after.dtype == torch.float32
    assert not torch.equal(before, after)


def test_bfloat16_step_is_close_to_the_float32_step(monkeypatch):
    low, high = _step(monkeypatch, True), _step(monkeypatch, False)
    assert torch.equal(low[1], high[1])
    torch.testing.assert_close(low[2] - low[1], high[2] - high[1], rtol=0.05, atol=1e-3)


def test_channels_last_changes_the_layout_and_nothing_else():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    image = torch.rand(2, 3, 16, 16)
    expected = model(image)

    class Runner:
        pass

    runner = Runner()
    runner.model = model
    ChannelsLastHook().before_run(runner)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    output = model(image)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected)

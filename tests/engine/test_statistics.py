"""Running statistics of batch norms that several processes trained."""

from types import SimpleNamespace

import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import ExponentialMovingAverage
from processes import run_in_processes
from torch import nn

from mmdf2.engine import SharedStatisticsHook
from mmdf2.models import BatchNorm


def made_model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNorm(4), nn.BatchNorm1d(2), nn.GroupNorm(1, 2))


def statistics(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers() if 'running' in name}


def runner_of(rank):
    """A runner whose model and averaged model have other statistics in each process; the last norm has the same."""
    torch.manual_seed(rank)
    model, averaged = made_model(), ExponentialMovingAverage(made_model(), update_buffers=True)
    for own in (model, averaged.module):
        for norm in own[1:3]:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        own[3].running_mean.fill_(0.1)
    hook = EMAHook()
    hook.ema_model = averaged
    checkpoint = CheckpointHook(interval=3, by_epoch=False)
    return SimpleNamespace(model=model, hooks=[hook, checkpoint], iter=0)


def shared(rank):
    runner, hook = runner_of(rank), SharedStatisticsHook()
    models = [runner.model, runner.hooks[0].ema_model]
    before = [statistics(model) for model in models]
    for runner.iter in (0, 1):
        hook.after_train_iter(runner, runner.iter)
    untouched = [statistics(model) for model in models]
    runner.iter = 2
    hook.after_train_iter(runner, runner.iter)
    return before, untouched, [statistics(model) for model in models]


def test_processes_share_their_statistics_before_a_checkpoint():
    found = run_in_processes(shared, 3)
    for model in range(2):
        before = [of_process[0][model] for of_process in found]
        for name in before[0]:
            own = torch.stack([values[name] for values in before]).double()
            if name.endswith('mean'):
                expected = own.mean(dim=0)
            else:
                means = torch.stack([values[name.replace('_var', '_mean')] for values in before]).double()
                # The variance of a mixture is the mean variance plus the variance of the means.
                expected = own.mean(dim=0) + means.var(dim=0, correction=0)
            for rank, (_, untouched, after) in enumerate(found):
                assert torch.equal(untouched[model][name], before[rank][name])
                torch.testing.assert_close(after[model][name].double(), expected, rtol=1e-6, atol=1e-6)
                assert torch.equal(after[model][name], found[0][2][model][name])
                if '3.' in name:
                    assert torch.equal(after[model][name], before[rank][name])


def test_one_process_keeps_its_statistics():
    runner = runner_of(0)
    before = statistics(runner.model)
    SharedStatisticsHook().after_train_epoch(runner)
    torch.testing.assert_close(statistics(runner.model), before, rtol=0, atol=0)

"""Running statistics of batch norms that are those of all processes."""

import torch
from mmengine.dist import all_gather, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from torch.nn.modules.batchnorm import _BatchNorm

from mmdf2.registry import HOOKS


@HOOKS.register_module()
class SharedStatisticsHook(Hook):
    """Gives all processes the same running statistics of batch norms before these are used.

    Each process normalises its own images in training, so its running statistics differ from those of the others.
    Validation would mix them, and a checkpoint would hold those of the first process. This hook replaces them, after
    every epoch, before every validation and before a checkpoint by iterations, by the statistics of all processes
    together. Averaged models of :class:`mmengine.hooks.EMAHook` are included.
    """

    # Before the hooks that average weights, swap them in for validation, or save a checkpoint.
    priority = 'ABOVE_NORMAL'

    def after_train_epoch(self, runner) -> None:
        """Shares the statistics, since a checkpoint or a validation may follow."""
        averaged = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
        share_statistics(runner.model, *averaged)

    before_val_epoch = after_train_epoch

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Shares the statistics if a checkpoint follows that is counted by iterations."""
        if any(
            isinstance(hook, CheckpointHook) and not hook.by_epoch and self.every_n_train_iters(runner, hook.interval)
            for hook in runner.hooks
        ):
            self.after_train_epoch(runner)


@torch.no_grad()
def share_statistics(*models: torch.nn.Module) -> None:
    """Replaces running means and variances of batch norms by those of all processes together, whose batches are alike.

    Every process must call the function with the same models.
    """
    norms = [
        module
        for model in models
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if get_world_size() == 1 or not norms:
        return
    means, variances = (
        torch.stack(all_gather(torch.cat([getattr(norm, name).float() for norm in norms])))
        for name in ('running_mean', 'running_var')
    )
    # Differences from the first process leave statistics that are equal already as they are, to the last bit.
    mean = means[0] + (means - means[0]).mean(dim=0)
    within = variances[0] + (variances - variances[0]).mean(dim=0)
    variance = within + (means - mean).square().mean(dim=0)
    lengths = [norm.num_features for norm in norms]
    for norm, own_mean, own_variance in zip(norms, mean.split(lengths), variance.split(lengths), strict=True):
        norm.running_mean.copy_(own_mean)
        norm.running_var.copy_(own_variance)

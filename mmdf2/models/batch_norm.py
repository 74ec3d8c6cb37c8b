"""Batch norm that suits training in several processes, on a CPU as well as on GPUs, and in mixed precision."""

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, get_world_size
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from mmdf2.registry import MODELS


@MODELS.register_module()
class BatchNorm(_BatchNorm):
    """Batch norm of any input (n, C, ...), with the parameters and buffers of torch's.

    It differs from torch's in three respects:

    - With ``sync`` the statistics are those of the batches of all processes. torch's ``SyncBatchNorm`` does the same on
      GPUs alone. Every process must call the layer, if need be with an input that has no rows.
    - Running statistics skip what is not finite. One row that overflowed in float16 would make them NaN for good,
      although the loss scaler skips the step itself.
    - An input with fewer than two values per channel is normalised by the running statistics, which it does not
      change. torch's raises an error.

    Args:
        num_features: Number of channels, C.
        eps: Added to the variance.
        momentum: Weight of a batch in the running statistics.
        affine: Whether there are a learned weight and bias per channel.
        track_running_stats: Whether there are running statistics, which prediction uses; must be True.
        sync: Whether the statistics are those of all processes.

    Raises:
        ValueError: The momentum is not from 0 to 1, or there are to be no running statistics.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        sync: bool = False,
    ) -> None:
        if momentum is None or not 0 <= momentum <= 1 or not track_running_stats:
            raise ValueError(
                'mmdf2.BatchNorm: momentum must be from 0 to 1 and track_running_stats True, got '
                f'{momentum} and {track_running_stats}'
            )
        super().__init__(num_features, eps, momentum, affine)
        self.sync = sync

    def forward(self, values: Tensor) -> Tensor:
        """Normalises ``values`` (n, C, ...)."""
        if not self.training:
            return by_running_statistics(self, values)
        if self.sync and get_world_size() > 1:
            return self._by_all_processes(values)
        if values.numel() < 2 * self.num_features:
            return by_running_statistics(self, values)
        # With momentum 1, torch writes the statistics of this batch into the buffers that it is given.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        normalised = F.batch_norm(values, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        self._update(mean, variance)
        return normalised

    def extra_repr(self) -> str:
        """The arguments, for ``print``."""
        return f'{super().extra_repr()}, sync={self.sync}'

    def _by_all_processes(self, values: Tensor) -> Tensor:
        count, mean, variance = statistics_of_processes(values.detach())
        if count < 2:
            return by_running_statistics(self, values)
        self._update(mean, variance * (count / (count - 1)))
        weight = values.new_ones(self.num_features, dtype=mean.dtype) if self.weight is None else self.weight
        bias = torch.zeros_like(weight) if self.bias is None else self.bias
        return _SyncNormalisation.apply(values, weight, bias, mean, variance, count, self.eps)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            running.copy_(torch.where(new.isfinite(), running.lerp(new.to(running), self.momentum), running))


def by_running_statistics(norm: _BatchNorm, values: Tensor) -> Tensor:
    """Normalises ``values`` (n, C, ...) as the batch norm does in prediction, whether it is in training or not."""
    return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def statistics_of_processes(values: Tensor) -> tuple[int, Tensor, Tensor]:
    """Statistics of the inputs of all processes, which may have different numbers of rows.

    Args:
        values: (n, C, ...) input of this process.

    Returns:
        Values per channel of all processes together, their mean (C,) and their biased variance (C,), in float32 or a
        finer type; equal in all processes.
    """
    axes = [axis for axis in range(values.dim()) if axis != 1]
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    count = values.numel() // values.shape[1]
    variance, mean = (
        torch.var_mean(values, axes, correction=0) if count else values.new_zeros(2, values.shape[1]).unbind()
    )
    gathered = torch.stack(all_gather(torch.cat([values.new_tensor([count]), mean, variance])))
    counts, means, variances = gathered.split([1, values.shape[1], values.shape[1]], dim=1)
    total = int(counts.sum())
    shares = counts / max(total, 1)
    mean = (shares * means).sum(dim=0)
    return total, mean, (shares * (variances + (means - mean).square())).sum(dim=0)


class _SyncNormalisation(torch.autograd.Function):
    """Normalisation by statistics of all processes, whose gradient includes that of the statistics."""

    @staticmethod
    def forward(ctx, values, weight, bias, mean, variance, count, eps):
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return F.batch_norm(values, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        values, weight, mean, variance = ctx.saved_tensors
        if values.numel():
            direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        else:  # torch divides by the number of rows
            direct, of_weight, of_bias = gradient, torch.zeros_like(weight), torch.zeros_like(weight)
        # Each value also has an effect on the mean and the variance, and so on the rows of all processes.
        sums = torch.stack([of_bias, of_weight]).to(mean)
        all_reduce(sums)
        scale = weight / (variance + ctx.eps).sqrt()
        slope = -scale * sums[1] / (ctx.count * (variance + ctx.eps).sqrt())
        offset = -scale * sums[0] / ctx.count - slope * mean
        shape = [1, -1] + [1] * (values.dim() - 2)
        through_statistics = torch.addcmul(offset.view(shape), values, slope.view(shape))
        return (direct + through_statistics).to(values.dtype), of_weight, of_bias, None, None, None, None

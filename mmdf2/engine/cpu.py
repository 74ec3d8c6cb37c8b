"""Training on CPU cores at their own speed: bfloat16 where the CPU has it, and the memory layout its kernels want."""

from contextlib import contextmanager

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper

from mmdf2.registry import HOOKS, OPTIM_WRAPPERS


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); elsewhere it is emulated, and slower."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Mixed precision on a CPU: forward passes under bfloat16 autocast, parameters and updates in float32.

    MMEngine's ``AmpOptimWrapper`` refuses to run without an accelerator. bfloat16 has float32's range, so that no loss
    scaling is needed. On a CPU without bfloat16 instructions, and on any other device, it is a plain ``OptimWrapper``
    and says so in the log.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        on_cpu = all(p.device.type == 'cpu' for group in self.optimizer.param_groups for p in group['params'])
        self.enabled = on_cpu and cpu_has_bfloat16()
        print_log(f'CpuAmpOptimWrapper: training in {"bfloat16 autocast" if self.enabled else "float32"}', 'current')

    @contextmanager
    def optim_context(self, model):
        """MMEngine's context of one forward pass, with autocast where it pays."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16, enabled=self.enabled):
            yield


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps convolution weights in channels-last order, which CPU kernels (and tensor cores) run fastest on."""

    def before_run(self, runner) -> None:
        """Converts the model once; activations follow the weights' layout."""
        runner.model.to(memory_format=torch.channels_last)

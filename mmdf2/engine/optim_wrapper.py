"""Mixed precision on a CPU, which MMEngine's own wrapper refuses."""

from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper

from mmdf2.registry import OPTIM_WRAPPERS


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); elsewhere emulation makes it slower."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Mixed precision on a CPU: forward passes under bfloat16 autocast, parameters and updates in float32.

    MMEngine's ``AmpOptimWrapper`` refuses to run without an accelerator. bfloat16 has the range of float32, so no loss
    scaling is needed. On a CPU without bfloat16 instructions, and on any other device, this is a plain
    ``OptimWrapper``, and the log says so.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        on_cpu = all(p.device.type == 'cpu' for group in self.optimizer.param_groups for p in group['params'])
        self.enabled = on_cpu and cpu_has_bfloat16()
        print_log(f'CpuAmpOptimWrapper: training in {"bfloat16 autocast" if self.enabled else "float32"}', 'current')

    @contextmanager
    def optim_context(self, model):
        """MMEngine's context of one forward pass, with autocast where this CPU has bfloat16."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16, enabled=self.enabled):
            yield

"""What a runner needs beyond MMEngine: faster training on CPU cores."""

from mmdf2.engine.cpu import ChannelsLastHook, CpuAmpOptimWrapper

__all__ = ['ChannelsLastHook', 'CpuAmpOptimWrapper']

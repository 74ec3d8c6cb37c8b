"""What a runner needs beyond MMEngine: CPUs used well, resuming to the same losses, checkpoints read as data."""

from mmdf2.engine.checkpoints import CheckpointError, guard_checkpoint_loading, load_checkpoint_file
from mmdf2.engine.cpu import ChannelsLastHook, CpuAmpOptimWrapper
from mmdf2.engine.launch import add_common_arguments, load_config
from mmdf2.engine.seeding import EpochSeedHook

__all__ = [
    'ChannelsLastHook',
    'CheckpointError',
    'CpuAmpOptimWrapper',
    'EpochSeedHook',
    'add_common_arguments',
    'guard_checkpoint_loading',
    'load_checkpoint_file',
    'load_config',
]

"""What a runner needs beyond MMEngine: CPUs, exact resuming, leaving other processes, checkpoints read as data."""

from mmdf2.engine.checkpoints import (
    CheckpointError,
    guard_checkpoint_loading,
    load_checkpoint_file,
    load_weights,
)
from mmdf2.engine.hooks import ChannelsLastHook, EpochSeedHook, ValidationTrialHook
from mmdf2.engine.optim_wrapper import CpuAmpOptimWrapper
from mmdf2.engine.processes import process_group
from mmdf2.engine.runner_config import add_common_arguments, load_config, read_config
from mmdf2.engine.runs import config_faults_explained, run_test, run_training
from mmdf2.engine.shared_statistics import SharedStatisticsHook

__all__ = [
    'ChannelsLastHook',
    'CheckpointError',
    'CpuAmpOptimWrapper',
    'EpochSeedHook',
    'SharedStatisticsHook',
    'ValidationTrialHook',
    'add_common_arguments',
    'config_faults_explained',
    'guard_checkpoint_loading',
    'load_checkpoint_file',
    'load_config',
    'load_weights',
    'process_group',
    'read_config',
    'run_test',
    'run_training',
]

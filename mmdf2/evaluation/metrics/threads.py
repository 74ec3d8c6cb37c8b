"""The cores of the machine for the one process that computes figures while the others wait for it."""

import contextlib
import os
from collections.abc import Iterator

import torch
from mmengine.dist import get_backend, get_dist_info

from mmdf2.files import usable_cores


@contextlib.contextmanager
def cores_of_waiting_processes() -> Iterator[None]:
    """A block that computes with all usable cores, in a process whose launcher gave it a share of them.

    torchrun lets each of several processes compute with one thread (``OMP_NUM_THREADS=1``), which suits training. In a
    metric's ``compute_metrics``, only the first process computes. Waiting in NCCL keeps a core busy for each of the
    other processes of the machine; with gloo it costs nothing. After the block, the number of threads is what it was
    before. A single process, and one whose number of threads nobody has set, keeps its number throughout.
    """
    before = torch.get_num_threads()
    _, processes = get_dist_info()
    if processes == 1 or 'OMP_NUM_THREADS' not in os.environ:
        yield
        return
    busy = int(os.environ.get('LOCAL_WORLD_SIZE', processes)) - 1 if get_backend() == 'nccl' else 0
    torch.set_num_threads(max(before, usable_cores() - busy))
    try:
        yield
    finally:
        torch.set_num_threads(before)

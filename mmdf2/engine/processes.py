"""Several processes that work on one thing: how long they wait for each other, and how they part in order.

A process that ends without leaving its group may be killed at its exit, after all work is done. A thread of
torch.distributed's gloo backend runs each collective and then frees its tensors, for which it needs Python's global
lock. If Python is ending by then, it ends the thread instead, which C++ answers with 'terminate called without an
active exception' and SIGABRT. So every tool enters and leaves by :func:`process_group`.
"""

import contextlib
import datetime
import gc
import os
import re
from collections.abc import Iterator

import torch
import torch.distributed

from mmdf2.command_line import UserError, is_first_to_end

LAUNCH_REMEDY = (
    '--launcher pytorch is for processes that torchrun starts: torchrun --nproc-per-node N TOOL ... --launcher '
    'pytorch; leave it out to run one process.'
)
# The seconds that a process of a training or a test waits for another one, unless env_cfg.dist_cfg.timeout of the
# config says otherwise. The first process evaluates alone, for which torch's own limits (10 minutes with NCCL, 30 with
# gloo) are short. It is not what notices a process that has died: the launcher does.
TIMEOUT = 4 * 60 * 60
# How gloo says that another process has gone, and that it did not come in time.
_GONE = re.compile(r'Connection closed by peer|gloo/transport/.*(Connection reset|Broken pipe)')
_LATE = re.compile(r'Timed out waiting \d+ms for|Application timeout caused pair closure')


@contextlib.contextmanager
def process_group(gloo_timeout: float | None = None) -> Iterator[None]:
    """A block in which this process works with others; at its end it leaves their group, however the block ends.

    After work that went well the processes leave together. A process with an error, or one that is interrupted, does
    not wait for the others: they notice that it has gone. What the block alone refers to, such as a model and the
    workers of its loaders, is freed before the block's caller goes on. A group that exists before the block is left as
    it is.

    Args:
        gloo_timeout: Joins the other processes now, by torch.distributed's gloo backend, and waits for them so many
            seconds at most, here and in each collective. By default joining is up to the block.

    Raises:
        UserError: No launcher has started this process, or another process has gone or did not come in time.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        yield
        return
    if gloo_timeout is not None:
        if 'RANK' not in os.environ:
            raise UserError(LAUNCH_REMEDY)
        torch.distributed.init_process_group('gloo', timeout=datetime.timedelta(seconds=gloo_timeout))
    try:
        yield
        if _joined():
            nccl = torch.distributed.get_backend() == 'nccl'
            torch.distributed.barrier(device_ids=[torch.cuda.current_device()] if nccl else None)
    except BaseException as error:
        fault = _fault_of_another(error) if _joined() else None
        if fault is None:
            # The others see that this process has gone before it prints its fault. Theirs must not be printed instead.
            is_first_to_end()
        _leave(in_order=False)
        if fault is not None:
            raise fault from error
        raise
    _leave(in_order=True)


def _joined() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave(in_order: bool) -> None:
    """Leaves the group; ``in_order`` says that no process has a collective left to do."""
    if not _joined():
        return
    if not in_order and torch.distributed.get_backend() == 'nccl':
        # NCCL would wait for collectives that the others will never enter.
        torch.distributed.distributed_c10d._abort_process_group()
    else:
        torch.distributed.destroy_process_group()
    # The group's threads end with the last object that refers to it, and the model, which does, is part of a cycle.
    gc.collect()


def _fault_of_another(error: BaseException) -> UserError | None:
    """What to say about an error that another process has caused; None for any other error."""
    # A fault in building a runner is a UserError whose cause is the error.
    text = ' '.join(str(fault) for fault in (error, error.__cause__) if isinstance(fault, RuntimeError))
    if _GONE.search(text):
        return UserError(
            'another process of this launch has ended before its work was done; what it printed says why. If it '
            'printed nothing, it was killed, perhaps for want of memory: take smaller batches or fewer processes.'
        )
    if _LATE.search(text):
        return UserError(
            'this process waited too long for another one; if that one has work to do alone, set '
            'env_cfg.dist_cfg.timeout in the config to more seconds.'
        )
    return None

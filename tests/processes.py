"""Several processes of one group, for tests of what they compute together."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed

# Processes are forked from a server that has imported these: eight of them start in the time of one.
PRELOADED = ('torch', 'mmdet.models', 'mmdf2.models')


def run_in_processes(function: Callable, count: int, *arguments) -> list:
    """Calls ``function(rank, *arguments)`` in the processes of a gloo group; returns the results in the order of ranks.

    Args:
        function: A function of a module, whose results ``torch.save`` can write as data.
        count: Number of processes.
        *arguments: What can be pickled.

    Raises:
        AssertionError: A process ended with an error.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(list(PRELOADED))
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_process, args=(function, rank, count, folder, arguments)) for rank in range(count)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        errors = [path.read_text() for path in sorted(Path(folder).glob('*.error'))]
        ends = [process.exitcode for process in processes]
        assert not any(ends), '\n'.join([f'exit status of each process: {ends}', *errors])
        return [torch.load(Path(folder, f'{rank}.pt'), weights_only=True) for rank in range(count)]


def _process(function: Callable, rank: int, count: int, folder: str, arguments: tuple) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/init', rank=rank, world_size=count)
    try:
        torch.save(function(rank, *arguments), Path(folder, f'{rank}.pt'))
    except BaseException:
        Path(folder, f'{rank}.error').write_text(traceback.format_exc())
        raise
    finally:
        torch.distributed.destroy_process_group()

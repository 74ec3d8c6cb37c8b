"""Processes leave their group in order, whether the work went well, failed in one of them, or was interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

from mmdf2.command_line import UserError
from mmdf2.engine import process_group

# What each process runs. It is a command of ours, so that faults end as the tools' faults do.
PROGRAM = """
import atexit
import sys
import time

late = []
atexit.register(lambda: [function() for function in late])

from mmdf2.command_line import UserError, start

start('Start it again.')

from pathlib import Path

import torch
from torch import distributed

from mmdf2.engine import process_group


def well(rank):
    '''A tensor is freed by the group's thread, which waits for Python's lock while Python ends.'''
    if rank == 0:
        time.sleep(1)
        distributed.all_reduce(tensor)
        return
    distributed.all_reduce(tensor, async_op=True)
    sys.setswitchinterval(100)
    late.append(keep_python_busy)


def keep_python_busy():
    end = time.monotonic() + 2
    while time.monotonic() < end:
        pass


def fault(rank):
    if rank == 1:
        time.sleep(1)
        raise UserError('the second process has no data; give it some.')
    distributed.all_reduce(tensor)


def killed(rank):
    if rank == 1:
        distributed.barrier()
        sys.stdout.flush()
        __import__('os')._exit(9)
    distributed.barrier()
    time.sleep(1)
    distributed.all_reduce(tensor)


def wait(rank):
    distributed.barrier()
    print('waiting', flush=True)
    if rank == 1:
        time.sleep(600)
    distributed.all_reduce(tensor)


tensor = torch.ones(30_000)
with process_group(600):
    rank = distributed.get_rank()
    globals()[sys.argv[1]](rank)
names = sorted(path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm'))
print(f'process {rank} has left: {not distributed.is_initialized()}, {names}', flush=True)
"""


@pytest.fixture(scope='module')
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('processes') / 'program.py'
    path.write_text(PROGRAM)
    return path


def launched(program: Path, mode: str, interrupt_after: str | None = None) -> tuple[int, str]:
    """Exit status and output of two processes; they are interrupted, as by Ctrl-C, when each has printed a line."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', str(program), mode]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        seen = ''
        if interrupt_after:
            while seen.count(interrupt_after) < 2:
                line = process.stdout.readline()
                assert line, seen
                seen += line
            os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
    return process.returncode, seen + rest


def test_no_thread_is_left_that_could_abort_the_exit(program):
    status, output = launched(program, 'well')
    assert status == 0, output
    for rank in range(2):
        assert f"process {rank} has left: True, ['python" in output
    assert 'gloo' not in output and 'terminate called' not in output


def test_a_fault_of_one_process_ends_all_with_its_sentence(program):
    status, output = launched(program, 'fault')
    assert status == 1
    assert output.count('error: the second process has no data; give it some.') == 1
    assert 'another process' not in output and 'Connection closed' not in output


def test_the_processes_that_are_left_say_that_one_was_killed(program):
    status, output = launched(program, 'killed')
    assert status == 1
    # The launcher may end the other process before it has noticed.
    assert 'Connection closed' not in output and output.count('Traceback') <= 1


def test_an_interruption_ends_all(program):
    status, output = launched(program, 'wait', interrupt_after='waiting')
    assert status != 0
    assert 'error: interrupted. Start it again.' in output


def test_a_group_that_exists_before_the_block_is_left_alone(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/meet', rank=0, world_size=1)
    try:
        with pytest.raises(KeyError), process_group(600):
            raise KeyError
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ('said', 'sentence'),
    [
        ('[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1', 'has ended before its work'),
        (
            '[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3000ms for recv operation to complete',
            'dist_cfg.t',
        ),
        ('Application timeout caused pair closure', 'env_cfg.dist_cfg.timeout'),
    ],
)
def test_what_gloo_says_of_another_process_becomes_a_sentence(monkeypatch, tmp_path, said, sentence):
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', '0')
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '1')
    with pytest.raises(UserError, match=sentence), process_group(600):
        raise RuntimeError(said)
    assert not torch.distributed.is_initialized()


def test_without_a_launcher_there_is_a_remedy(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(UserError, match='torchrun --nproc-per-node N'), process_group(600):
        pass

"""Checks and times the operators on the GPU of this machine, in one go.

    python scripts/check_gpu.py            # with a Python that has torch with CUDA, ninja, numpy and pytest

Builds the operators in the source folder with FORCE_CUDA=1, runs the tests of tests/ops with those that need a GPU,
then a small search under compute-sanitizer (memcheck, racecheck, synccheck), then benchmarks/benchmark_ops.py. All
that is printed goes into work_dirs/gpu as well, one file per step. Ends with one line per step; the exit status says
whether all went well.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FACTS = """
import torch
from mmdf2.ops import build_info
print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name(), torch.cuda.get_device_capability())
print(build_info())
"""

# Small, since the checkers slow a kernel down a hundredfold; every kernel runs: tiles, ties that are searched again,
# one query, float64, rows of an odd width.
SEARCHES = """
import torch
from mmdf2.ops import pair_topk
torch.manual_seed(0)
for rows, total, width, k, dtype in [
    (300, 900, 64, 20, torch.float32), (130, 700, 33, 9, torch.float32), (5, 1500, 16, 1024, torch.float32),
    (1, 3000, 64, 20, torch.float32), (3, 500, 20, 5, torch.float64),
]:
    query, gallery, weight = (torch.randn(*shape, dtype=dtype) for shape in [(rows, width), (total, width), (2, width)])
    gallery[total // 2:] = gallery[: total - total // 2].clone()
    expected = pair_topk(query, gallery, weight, k=k)
    found = pair_topk(query.cuda(), gallery.cuda(), weight.cuda(), k=k)
    assert torch.equal(found[1].cpu(), expected[1]), (rows, total, width, k, dtype)
    torch.testing.assert_close(found[0].cpu(), expected[0], rtol=1e-6, atol=1e-5)
print('the same matches on CPU and GPU')
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/gpu', help='folder for the records')
    parser.add_argument('--skip-benchmark', action='store_true')
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    outcomes = {name: run_step(name, command, arguments.out) for name, command in steps(arguments).items()}
    for name, outcome in outcomes.items():
        print(f'{name}: {outcome}')
    sys.exit(0 if set(outcomes.values()) == {'ok'} else 1)


def steps(arguments):
    """Name and command of each step, in order; a command is None where its program is missing."""
    python = sys.executable
    sanitizer = shutil.which('compute-sanitizer')
    commands = {
        'build': [python, 'setup.py', 'build_ext', '--inplace'],
        'facts': [python, '-c', FACTS],
        # tests/conftest.py, which tests/ops does not need, asks for more than torch.
        'tests': [python, '-m', 'pytest', '-ra', '--confcutdir=tests/ops', 'tests/ops'],
    }
    for tool in ('memcheck', 'racecheck', 'synccheck'):
        command = [sanitizer, '--tool', tool, '--error-exitcode', '1', python, '-c', SEARCHES]
        commands[tool] = command if sanitizer else None
    if not arguments.skip_benchmark:
        record = arguments.out / 'benchmark.json'
        commands['benchmark'] = [python, 'benchmarks/benchmark_ops.py', '--device', 'cuda', '--out', str(record)]
    return commands


def run_step(name, command, out):
    """Runs a step, showing and recording what it prints; returns 'ok' or what went wrong."""
    print(f'\n== {name}', flush=True)
    if command is None:
        return 'compute-sanitizer is not on PATH: not run'
    environment = {**os.environ, 'FORCE_CUDA': '1', 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
    with open(out / f'{name}.txt', 'w') as record:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for line in process.stdout:
            print(line, end='', flush=True)
            record.write(line)
    status = process.wait()
    return 'ok' if status == 0 else f'exit status {status}, see {out / name}.txt'


if __name__ == '__main__':
    main()

"""Checks everything that needs a GPU, in one go, and writes one file to send back.

    python scripts/check_gpu.py                      # all steps, about two hours; with the Python of `make install`
    python scripts/check_gpu.py --quick              # the same steps at small sizes, about half an hour
    python scripts/check_gpu.py --steps build facts  # only these
    python scripts/check_gpu.py --device cpu --quick # a rehearsal of the script itself, without a GPU

Builds the operators in the source folder, runs the tests, a search under compute-sanitizer (memcheck, racecheck,
synccheck) and the benchmark of the operators; draws images of the real size and trains the config on them beside Mask
R-CNN, with and without mixed precision; then trains, resumes, tests and trains deterministically through the tools, and
with two or more GPUs through torchrun. Nothing is downloaded: the backbone begins with random weights.

Each step has a time limit, and a step that fails does not end the run. Ctrl-C ends it and keeps what is there. The file
is OUT/report.md: outcomes, measurements, versions, the end of each log, and all figures as JSON. It is written again
after each step, and a later run with --steps adds to it. The exit status says whether all steps went well.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'csrc')]  # mmdf2 as the checkout has it, which the steps use too

from cuda_build import find_cuda_home  # noqa: E402
from gpu_report import read_scalars, write_report  # noqa: E402

CONFIG = ROOT / 'configs/match_rcnn/match-rcnn-pose_r50_fpn_1x_deepfashion2.py'
MINUTE = 60

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


@dataclass
class Step:
    """One command of the check.

    Attributes:
        purpose: What it shows, for the report.
        command: The command; None where it cannot run here.
        missing: Why it cannot run here.
        minutes: Its time limit.
        record: JSON file that it writes, or folder of a run of our tools, whose logged losses are read.
        clear: Folder that is deleted before, so that an earlier run's results are not taken for this one's.
        variables: Environment variables that it needs.
    """

    purpose: str
    command: list | None
    missing: str = ''
    minutes: float = 30
    record: Path | None = None
    clear: Path | None = None
    variables: dict = field(default_factory=dict)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/gpu', help='folder for report.md and all records')
    parser.add_argument('--config', type=Path, default=CONFIG, help="config to train (default: the paper's)")
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--quick', action='store_true', help='small sizes and few iterations')
    parser.add_argument('--processes', type=int, help='processes for torchrun (default: one per GPU, or 2 on a CPU)')
    parser.add_argument('--steps', nargs='+', metavar='STEP', help='only these steps; --list names them')
    parser.add_argument('--list', action='store_true', help='name the steps and end')
    args = parser.parse_args(argv)
    args.out = args.out.resolve()
    args.config = args.config.resolve()
    if args.processes is None:
        args.processes = count_gpus() if args.device == 'cuda' else 2
    unknown = set(args.steps or ()) - set(plan(args))
    if unknown:
        parser.error(
            f'--steps {" ".join(sorted(unknown))}: there is no such step; the steps are {" ".join(plan(args))}'
        )
    return args


def count_gpus() -> int:
    """The GPUs that the driver lists; torch, which would know better, may not see them before the first step."""
    try:
        listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith('GPU') for line in listed.splitlines())


def main(argv=None) -> int:
    args = parse_args(argv)
    steps = plan(args)
    if args.list:
        print('\n'.join(f'{name}: {step.purpose}' for name, step in steps.items()))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    return run_steps({name: steps[name] for name in args.steps or steps}, args)


def run_steps(steps: dict[str, Step], args) -> int:
    """Runs steps one after another and writes the report after each; returns the exit status."""
    path = args.out / 'report.json'
    report = json.loads(path.read_text()) if path.exists() else {'steps': {}}
    report['arguments'] = {name: str(value) for name, value in vars(args).items()}
    variables = environment(args)
    for name, step in steps.items():
        print(f'\n== {name}: {step.purpose}', flush=True)
        begun = time.monotonic()
        outcome = run_step(step, args.out / f'{name}.txt', variables)
        report['steps'][name] = {
            'purpose': step.purpose,
            'outcome': outcome,
            'seconds': round(time.monotonic() - begun, 1),
            'result': read_record(step.record) if outcome == 'ok' else None,
        }
        print(f'== {name}: {outcome}', flush=True)
        write_report(report, args.out)
        if outcome == 'interrupted':
            break
    print('\n' + '\n'.join(f'{name}: {report["steps"][name]["outcome"]}' for name in steps if name in report['steps']))
    print(f'\nThe file to send back: {args.out / "report.md"}')
    outcomes = {report['steps'].get(name, {}).get('outcome') for name in steps}
    return 130 if 'interrupted' in outcomes else 0 if all(map(is_well, outcomes)) else 1


def is_well(outcome: str | None) -> bool:
    """Whether a step went well or had nothing to do here, such as torchrun with one GPU."""
    return outcome == 'ok' or str(outcome).startswith('not needed')


def environment(args) -> dict:
    """Environment variables of all steps; a rehearsal on a CPU hides the GPUs."""
    hidden = {'CUDA_VISIBLE_DEVICES': ''} if args.device == 'cpu' else {}
    return {**os.environ, **hidden, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}


def run_step(step: Step, log: Path, variables: dict) -> str:
    """Runs a step, showing and recording what it prints; returns 'ok' or what went wrong."""
    if step.command is None:
        log.write_text(f'{step.missing}\n')
        return step.missing
    if step.clear is not None:
        shutil.rmtree(step.clear, ignore_errors=True)
    with open(log, 'w') as record:
        process = subprocess.Popen(
            list(map(str, step.command)),
            cwd=ROOT,
            env={**variables, **step.variables},
            text=True,
            errors='replace',
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, which is ended as a whole
        )
        late = threading.Event()
        clock = threading.Timer(step.minutes * MINUTE, lambda: (late.set(), end(process)))
        clock.start()
        try:
            for line in process.stdout:
                print(line, end='', flush=True)
                record.write(line)
            status = process.wait()
        except KeyboardInterrupt:
            end(process)
            return 'interrupted'
        finally:
            clock.cancel()
    if late.is_set():
        return f'ended after its limit of {step.minutes:g} minutes'
    return 'ok' if status == 0 else f'exit status {status}'


def end(process: subprocess.Popen) -> None:
    """Ends a step with all processes that it started: first politely, then for certain."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 60)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def read_record(record: Path | None):
    """What a step has measured; None if it measures nothing or wrote nothing."""
    if record is None or not record.exists():
        return None
    return read_scalars(record) if record.is_dir() else json.loads(record.read_text())


def plan(args) -> dict[str, Step]:
    """All steps by name, in the order in which they need each other."""
    return {**operator_steps(args), **training_steps(args), **distributed_steps(args)}


def operator_steps(args) -> dict[str, Step]:
    """The build, the facts, the tests, compute-sanitizer and the benchmark of the operators."""
    python, out = sys.executable, args.out
    steps = {
        'build': Step(
            'the operators compile',
            [python, 'setup.py', 'build_ext', '--inplace'],
            minutes=40,
            variables={'FORCE_CUDA': '1' if args.device == 'cuda' else '0'},
        ),
        'facts': Step(
            'versions, and the operators of mmcv run on the GPU',
            [python, 'scripts/gpu_steps.py', 'facts', out / 'facts.json', '--device', args.device],
            record=out / 'facts.json',
            minutes=10,
        ),
        # tests/conftest.py, which tests/ops does not need, asks for more than torch.
        'tests-of-operators': Step(
            'the tests of the operators pass',
            [python, '-m', 'pytest', '-ra', '-q', '--confcutdir=tests/ops', 'tests/ops']
            + (['-k', 'test_library'] if args.device == 'cpu' and args.quick else []),
            minutes=40,
        ),
        'all-tests': Step(
            'all other tests pass where a GPU is visible',
            [python, '-m', 'pytest', '-ra', '-q', '-m', 'not slow', '--rootdir=tests', '--ignore=tests/ops']
            + (['tests/codecs'] if args.quick else ['tests']),
            minutes=60,
        ),
    }
    toolkit = Path(find_cuda_home() or '')
    places = [os.environ.get('PATH', ''), str(toolkit / 'bin'), str(toolkit / 'compute-sanitizer')]
    sanitizer = shutil.which('compute-sanitizer', path=os.pathsep.join(places))
    for tool in ('memcheck', 'racecheck', 'synccheck'):
        command = [sanitizer, '--tool', tool, '--error-exitcode', '1', python, '-c', SEARCHES]
        missing = (
            'not needed without a GPU'
            if args.device == 'cpu'
            else 'compute-sanitizer is neither on PATH nor in CUDA_HOME: not run'
        )
        run = sanitizer and args.device == 'cuda'
        steps[tool] = Step(f'compute-sanitizer finds nothing ({tool})', command if run else None, missing)
    record = out / 'operators.json'
    command = [python, 'benchmarks/benchmark_ops.py', '--device', args.device, '--out', record]
    steps['benchmark-of-operators'] = Step(
        'the operators beside other ways to compute the same',
        command + (['--quick'] if args.quick else []),
        record=record,
        minutes=40,
    )
    return steps


def training_steps(args) -> dict[str, Step]:
    """Made images, and training, resuming and testing on them."""
    python, out, data = sys.executable, args.out, args.out / 'data'
    prepare = [python, 'scripts/gpu_steps.py', 'prepare', data, '--config', args.config, '--device', args.device]
    prepare += ['--few', max(2, 2 * args.processes)]
    if args.quick:
        prepare += ['--identities', 6] + (['--size', 128] if args.device == 'cpu' else [])
    if args.device == 'cpu':
        prepare += ['--scale', 160, 96, '--batch-size', 2]
    measure = [python, 'benchmarks/benchmark_training.py', data / 'config.py', '--device', args.device]
    measure += ['--out', out / 'training.json']
    measure += ['--iterations', 4, '--turn', 2, '--parts', 1] if args.quick else ['--iterations', 200]
    deterministic = [python, 'tools/train.py', data / 'few.py', '--cfg-options', 'randomness.deterministic=True']
    runs = {name: out / 'runs' / name for name in ('train', 'deterministic', 'deterministic-again', 'test')}
    train = [python, 'tools/train.py', data / 'few.py', '--work-dir', runs['train'], '--amp']
    test = [python, 'tools/test.py', data / 'config.py', runs['train'] / 'epoch_2.pth', '--work-dir', runs['test']]
    return {
        'data': Step('images of the real size are drawn', prepare, clear=data),
        'training': Step(
            'images/s and memory beside Mask R-CNN, time of each stream',
            measure,
            record=out / 'training.json',
            minutes=60,
        ),
        'train': Step('training with mixed precision', train, record=runs['train'], clear=runs['train']),
        'resume': Step(
            'the training goes on after its first epoch',
            [*train, '--resume', '--cfg-options', 'train_cfg.max_epochs=2'],
            record=runs['train'],
        ),
        'test': Step(
            'testing with all subsets and the result files',
            [*test, '--subsets', '--dump', runs['test'] / 'results'],
            minutes=40,
        ),
        'deterministic': Step(
            'training with deterministic operators',
            [*deterministic, '--work-dir', runs['deterministic']],
            record=runs['deterministic'],
            clear=runs['deterministic'],
        ),
        'deterministic-again': Step(
            'the same again, whose losses should be the same',
            [*deterministic, '--work-dir', runs['deterministic-again']],
            record=runs['deterministic-again'],
            clear=runs['deterministic-again'],
        ),
    }


def distributed_steps(args) -> dict[str, Step]:
    """Training and testing in several processes, beside one process with the same batches."""
    count, out, data = args.processes, args.out, args.out / 'data'
    one, several, tested = (out / 'runs' / name for name in ('one-process', 'processes', 'test-processes'))
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', count]
    per_process = 2
    options = ['--cfg-options', f'train_dataloader.batch_size={per_process}']
    train = ['tools/train.py', data / 'few.py', '--work-dir', several, '--launcher', 'pytorch', *options]
    test = ['tools/test.py', data / 'config.py', several / 'epoch_1.pth', '--work-dir', tested, '--subsets']
    whole = ['--cfg-options', f'train_dataloader.batch_size={per_process * count}']
    alone = [sys.executable, 'tools/train.py', data / 'few.py', '--work-dir', one, *whole]
    steps = {
        'one-process': Step(f'one process with batches of {per_process * count} images', alone, record=one, clear=one),
        'processes': Step(
            f'{count} processes with {per_process} of them each', [*launch, *train], record=several, clear=several
        ),
        'test-processes': Step(
            f'testing in {count} processes',
            [*launch, *test, '--launcher', 'pytorch', '--dump', tested / 'results'],
            minutes=40,
        ),
    }
    if count < 2:
        for step in steps.values():
            step.command, step.missing = None, 'not needed with less than two GPUs'
    return steps


if __name__ == '__main__':
    sys.exit(main())

"""Rehearses a training on DeepFashion2 at its real size, on made data and without a GPU, and plans a run on GPUs.

    python benchmarks/rehearsal.py --dir /some/disk                   # everything that has not been measured yet
    python benchmarks/rehearsal.py --dir /some/disk --steps sampler   # these steps again
    python benchmarks/rehearsal.py --dir /tmp/small --scale 0.001     # a small rehearsal

It makes a dataset of the real size, whose images are hard links to some thousand drawn ones, and then does on this
machine's CPU what a training and a test on several GPUs do: each step in processes of its own, whose time and memory it
measures. It prints what it measured, and a plan: what each number would be in a run on GPUs, and what that stands on.
Everything is kept in --dir (about 8 GB at full scale), so that a second run goes on where the first one stopped.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from measuring import Measured, measured
from rehearsal_plan import Machine, plan_rows

from mmdf2.command_line import UserError, start
from mmdf2.files import locked, write_json

if __name__ == '__main__':
    start('The same command continues.')

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent / 'tools'
REPORT = 'rehearsal.json'
RESULT_KINDS = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')


@dataclass(frozen=True)
class Run:
    """A command to measure.

    Attributes:
        name: What it is, in the table.
        command: The arguments of Python.
        read: What else is to be kept of it, as JSON.
    """

    name: str
    command: list
    read: Callable[[Measured], dict] = Measured.numbers


def main(argv: list[str] | None = None) -> None:
    """Runs the steps that are asked for, and prints and writes what was measured."""
    args = parse_args(argv)
    (args.dir / 'runs').mkdir(parents=True, exist_ok=True)
    # Two rehearsals at once would measure each other.
    with locked(args.dir / '.lock', lambda: print(f'waiting for another rehearsal in {args.dir}', flush=True)):
        report = rehearse(args)
    print('\n' + measured_table(report['steps']))
    rows = [list(row.values()) for row in report['plan']]
    print('\n' + markdown([f'planned for {args.gpus} GPUs', 'number', 'stands on'], rows))
    print(f'\nwrote {args.dir / REPORT}')


def rehearse(args) -> dict:
    """Takes the steps that are asked for; each one is in the report as soon as it has been taken.

    Returns:
        The report: ``recipe``, ``steps`` (step -> name of the run -> its numbers) and ``plan``.

    Raises:
        UserError: The folder holds a rehearsal with other settings.
    """
    path = args.dir / REPORT
    recipe = {name: getattr(args, name) for name in ('scale', 'processes', 'boxes')}
    report = json.loads(path.read_text()) if path.exists() else {'recipe': recipe, 'steps': {}}
    if report['recipe'] != recipe:
        kept = ', '.join(f'--{name} {value}' for name, value in report['recipe'].items())
        raise UserError(f'{path} is of a rehearsal with {kept}; give the same, or another --dir.')
    for name in args.steps or [step for step in STEPS if step not in report['steps']]:
        report['steps'][name] = {run.name: measure(name, run, args.dir / 'runs') for run in STEPS[name](args)}
        write_json(path, report)
    rows = plan_rows(report['steps'], recipe, Machine(args.gpus, args.iteration_seconds))
    report['plan'] = [dict(zip(('what', 'number', 'stands on'), row, strict=True)) for row in rows]
    write_json(path, report)
    return report


def measure(step: str, run: Run, folder: Path) -> dict:
    """Measures a run; ``load`` is the load of the machine before it."""
    print(f'{step}: {run.name}', flush=True)
    load = os.getloadavg()[0]
    found = measured(run.command, folder)
    return {
        'seconds': found.seconds,
        'cpu_seconds': found.cpu_seconds,
        'largest': found.largest,
        'together': found.together,
        'load': load,
        **run.read(found),
    }


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', type=lambda text: Path(text).absolute(), required=True, help='folder for everything')
    parser.add_argument('--steps', nargs='+', choices=STEPS, help='steps to take (default: those not taken yet)')
    parser.add_argument('--scale', type=float, default=1, help='share of the number of images (default: %(default)s)')
    parser.add_argument('--processes', type=int, default=8, help='number of processes (default: %(default)s)')
    parser.add_argument('--boxes', type=int, default=30, help='predicted boxes per image, up to 100 (default: 30)')
    plan = parser.add_argument_group('the machine that is planned for')
    plan.add_argument('--gpus', type=int, default=8, help='GPUs (default: %(default)s)')
    plan.add_argument(
        '--iteration-seconds', type=float, help='seconds per training iteration, if you know it (default: an estimate)'
    )
    return parser.parse_args(argv)


def data(args) -> Iterator[Run]:
    """Makes the dataset."""
    yield Run('make the dataset', own(args, 'data'))


def prepare(args) -> Iterator[Run]:
    """Makes the stores of both splits, as a user does, then finds them up to date."""
    tool = [TOOLS / 'prepare_deepfashion2.py', args.dir / 'deepfashion2']
    yield Run('make the stores', [*tool, '--force'], lambda found: {'report': found.output.splitlines()[-20:]})
    yield Run('find them up to date', tool, nothing)


def opening(args) -> Iterator[Run]:
    """Opens the store of the training split."""
    yield Run('open an unchanged store', own(args, 'opening'))


def sampler(args) -> Iterator[Run]:
    """Draws the order of epochs, and compares one process with several."""
    yield Run('order of an epoch, 1 process', own(args, 'sampler'))
    yield Run(f'order of an epoch, {args.processes} processes', launched_own(args, 'sampler'))


def loading(args) -> Iterator[Run]:
    """Loads training batches."""
    yield Run('load batches', own(args, 'loading'))


def processes(args) -> Iterator[Run]:
    """Trains a narrow model on small images in several processes, resumes, and tests."""
    folder = args.dir / 'runs' / 'narrow'
    shutil.rmtree(folder, ignore_errors=True)
    yield Run('write the configs', own(args, 'config'))
    count, place = args.processes, ['--work-dir', folder, '--launcher', 'pytorch']
    train = [TOOLS / 'train.py', args.dir / 'runs' / 'narrow.py', *place]
    yield Run(f'train, {count} processes', launched(args, *train), lambda found: last_losses(folder))
    more = ['--resume', '--cfg-options', 'train_cfg.max_epochs=2']
    yield Run(f'resume, {count} processes', launched(args, *train, *more), lambda found: last_losses(folder))
    test = [TOOLS / 'test.py', args.dir / 'runs' / 'narrow.py', folder / 'epoch_2.pth', *place]
    more = ['--subsets', '--dump', folder / 'results']
    yield Run(f'test, {count} processes', launched(args, *test, *more), lambda found: result_bytes(folder / 'results'))


def full_size(args) -> Iterator[Run]:
    """Takes a step of the paper's model at its own size, in one process."""
    yield Run('write the configs', own(args, 'config'))
    yield Run("the paper's model, 1 process", own(args, 'full_size'))


def collection(args) -> Iterator[Run]:
    """Collects predictions of the validation split from several processes and evaluates them in the first."""
    yield Run('make predictions', own(args, 'predictions'))
    (args.dir / 'figures.json').unlink(missing_ok=True)
    name = f'collect and evaluate, {args.processes} processes'
    yield Run(name, launched_own(args, 'collection'))


def evaluation(args) -> Iterator[Run]:
    """Evaluates the same predictions in one process, then the result files."""
    for metric in ('DeepFashion2Metric', 'RetrievalMetric'):
        yield Run(f'{metric}, 1 process', own(args, 'evaluation', '--metric', metric))
    results = [f'--{kind.replace("_", "-")}={result_file(args, kind)}' for kind in RESULT_KINDS]
    truth, out = args.dir / 'deepfashion2', args.dir / 'results' / 'report.json'
    command = [TOOLS / 'evaluate.py', f'--gt={truth}', *results, '--subsets', f'--out={out}']
    yield Run('evaluate the result files', command, lambda found: compare_report(args.dir))


def pages(args) -> Iterator[Run]:
    """Writes the pages that show the training split, and the failures of the predictions."""
    tool, root = TOOLS / 'analyze.py', args.dir / 'deepfashion2'
    command = [tool, 'dataset', '--store', root, '--split', 'train', '--out', args.dir / 'pages']
    yield Run('page of the training split', command, nothing)
    results = [f'--{kind}={result_file(args, kind)}' for kind in ('bbox', 'segm', 'keypoints', 'retrieval')]
    command = [tool, 'errors', '--gt', root, *results, '--out', args.dir / 'pages']
    yield Run('page of the failures', command, nothing)


STEPS = {
    step.__name__: step
    for step in (data, prepare, opening, sampler, loading, processes, full_size, collection, evaluation, pages)
}


def nothing(found: Measured) -> dict:
    """Keeps no further numbers of a run."""
    return {}


def result_file(args, kind: str) -> Path:
    """The official result file that the step ``collection`` writes."""
    return args.dir / 'results' / f'results.{kind}.json'


def own(args, step: str, *more) -> list:
    """The command of a step of rehearsal_steps.py."""
    options = [f'--{name}={getattr(args, name)}' for name in ('dir', 'scale', 'processes', 'boxes')]
    return [HERE / 'rehearsal_steps.py', step, *options, *more]


def launched(args, *command) -> list:
    """A command, started in several processes as torchrun does."""
    return ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={args.processes}', *command]


def launched_own(args, step: str) -> list:
    """The command of a step of rehearsal_steps.py in several processes."""
    return launched(args, *own(args, step, '--distributed'))


def last_losses(work_dir: Path) -> dict:
    """Times and losses of the latest training in a work dir."""
    latest = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime_ns)
    entries = [json.loads(line) for line in latest.read_text().splitlines()]
    steps = [entry for entry in entries if 'loss' in entry]
    times = sorted(step['time'] for step in steps)
    return {
        'iterations': len(steps),
        'iteration_seconds': times[len(times) // 2],
        'losses': {name: value for name, value in steps[-1].items() if 'loss' in name},
        'checkpoint_bytes': sum(path.stat().st_size for path in work_dir.glob('*.pth')),
    }


def result_bytes(folder: Path) -> dict:
    """The size of each result file in a folder."""
    return {'bytes_of_results': {path.name: path.stat().st_size for path in sorted(folder.glob('results.*'))}}


def compare_report(folder: Path) -> dict:
    """Compares the figures of the result files with those of the metrics; they must be the same."""
    report = json.loads((folder / 'results' / 'report.json').read_text())
    figures = json.loads((folder / 'figures.json').read_text())
    pairs = [(f'{task}_AP', report[task]['overall']['AP']) for task in ('bbox', 'segm')]
    pairs += [(f'{task}_top20', report[task]['overall']['top20']) for task in ('retrieval', 'retrieval_gt')]
    for name, value in pairs:
        if abs(figures[name] - value) > 1e-9:
            raise SystemExit(f'{name} is {value} by the result files and {figures[name]} by the metric')
    return {'figures': dict(pairs), **result_bytes(folder / 'results')}


def measured_table(steps: dict) -> str:
    """What was measured, as a table in Markdown."""
    rows = [
        [
            name,
            f'{run["seconds"]:.1f}',
            f'{run["cpu_seconds"]:.1f}',
            f'{run["largest"] / 1e9:.2f}',
            f'{run["together"] / 1e9:.2f}',
            f'{run["load"]:.1f}',
        ]
        for runs in steps.values()
        for name, run in runs.items()
    ]
    head = ['measured', 'seconds', 'CPU seconds', 'largest process, GB', 'all processes, GB', 'load before']
    return markdown(head, rows)


def markdown(head: list[str], rows: list) -> str:
    """A table in Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


if __name__ == '__main__':
    main()

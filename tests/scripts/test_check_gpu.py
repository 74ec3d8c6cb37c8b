"""The check on a GPU: steps that fail, hang or are interrupted, the file that it writes, and once all on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import write_config

SCRIPTS = Path(__file__).resolve().parents[2] / 'scripts'
sys.path.insert(0, str(SCRIPTS))

import check_gpu  # noqa: E402
import gpu_report  # noqa: E402
from check_gpu import Step  # noqa: E402


def python(code):
    return [sys.executable, '-c', code]


@pytest.fixture
def run(tmp_path):
    """run(steps): runs made steps; returns the exit status, the outcomes by name, and the file to send back."""

    def run_steps(steps):
        status = check_gpu.run_steps(steps, check_gpu.parse_args(['--device', 'cpu', '--out', str(tmp_path)]))
        report = json.loads((tmp_path / 'report.json').read_text())
        outcomes = {name: step['outcome'] for name, step in report['steps'].items()}
        return status, outcomes, (tmp_path / 'report.md').read_text()

    return run_steps


def test_a_step_that_fails_does_not_end_the_run(run):
    steps = {
        'bad': Step('', python('print("the reason"); raise SystemExit(3)')),
        'missing': Step('', None, missing='no such program: not run'),
        'needless': Step('', None, missing='not needed with less than two GPUs'),
        'good': Step('', python('print("fine")')),
    }
    status, outcomes, page = run(steps)
    assert status == 1
    assert outcomes == {
        'bad': 'exit status 3',
        'missing': 'no such program: not run',
        'needless': 'not needed with less than two GPUs',
        'good': 'ok',
    }
    assert 'the reason' in page and 'fine' in page
    assert run({name: steps[name] for name in ('needless', 'good')})[0] == 0


def test_a_step_that_hangs_is_ended_with_what_it_started(run, tmp_path):
    child = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'
    hanging = (
        f'import pathlib, subprocess, sys\n'
        f'child = subprocess.Popen([sys.executable, "-c", {child!r}])\n'
        f'pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))\n'
        'print("begun", flush=True)\n'
        'child.wait()'
    )
    status, outcomes, page = run({'hangs': Step('', python(hanging), minutes=0.05), 'next': Step('', python(''))})
    assert status == 1 and outcomes == {'hangs': 'ended after its limit of 0.05 minutes', 'next': 'ok'}
    assert 'begun' in page
    assert has_ended(int((tmp_path / 'pid').read_text()))


def has_ended(pid, patience=30):
    """Whether a process is gone, or a zombie that nobody has waited for, before long."""
    for _ in range(patience * 10):
        try:
            if Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z':
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_results_of_an_earlier_run_are_kept_and_replaced_step_by_step(run, tmp_path):
    (tmp_path / 'a.json').write_text('{"figure": 1}')
    steps = {'a': Step('', python(''), record=tmp_path / 'a.json'), 'b': Step('', python('raise SystemExit(1)'))}
    run(steps)
    outcomes, page = run({'b': Step('', python('print("well now")'))})[1:]
    assert outcomes == {'a': 'ok', 'b': 'ok'} and 'well now' in page and '"figure": 1' in page


def test_results_of_an_earlier_run_are_not_taken_for_those_of_this_one(run, tmp_path):
    old = tmp_path / 'runs/train/old.json'
    old.parent.mkdir(parents=True)
    old.write_text('{}')
    run({'train': Step('', python('raise SystemExit(1)'), record=old, clear=old.parent)})
    assert not old.exists()
    assert json.loads((tmp_path / 'report.json').read_text())['steps']['train']['result'] is None


def test_an_interrupt_keeps_what_is_there_and_ends_the_step(tmp_path):
    code = (
        'import sys; sys.path.insert(0, sys.argv.pop(1)); import check_gpu\n'
        'from check_gpu import Step\n'
        'sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"\n'
        'check_gpu.plan = lambda args: {\n'
        '    "first": Step("", [sys.executable, "-c", "print(1)"]),\n'
        '    "second": Step("", [sys.executable, "-c", sleep]),\n'
        '    "third": Step("", [sys.executable, "-c", ""]),\n'
        '}\n'
        'sys.exit(check_gpu.main())'
    )
    command = [*python(code), str(SCRIPTS), '--device', 'cpu', '--out', str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stdout:
        if line.startswith('== second'):
            break
    pid = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    process.stdout.close()
    outcomes = {
        name: step['outcome'] for name, step in json.loads((tmp_path / 'report.json').read_text())['steps'].items()
    }
    assert outcomes == {'first': 'ok', 'second': 'interrupted'}
    assert 'interrupted' in (tmp_path / 'report.md').read_text() and has_ended(pid)


def test_an_unknown_step_is_refused_with_the_names(capsys):
    with pytest.raises(SystemExit):
        check_gpu.parse_args(['--device', 'cpu', '--steps', 'bild'])
    assert 'bild: there is no such step; the steps are build facts' in capsys.readouterr().err


def test_one_gpu_needs_no_torchrun_and_two_do():
    one, two = (check_gpu.plan(check_gpu.parse_args(['--processes', str(count)])) for count in (1, 2))
    assert one['processes'].command is None and one['processes'].missing.startswith('not needed')
    assert two['processes'].command[:4] == [sys.executable, '-m', 'torch.distributed.run', '--standalone']


def test_figures_that_are_not_finite_do_not_stop_the_report(run, tmp_path):
    scalars = tmp_path / 'work/1/vis_data/scalars.json'
    scalars.parent.mkdir(parents=True)
    scalars.write_text('{"loss": NaN, "time": 1.0, "iter": 1}\n{"loss": 2.0, "time": 1.0, "iter": 2}\n{"step": 2}\n')
    runs = {
        name: Step('', python(''), record=tmp_path / 'work')
        for name in ('deterministic', 'deterministic-again', 'train')
    }
    _, outcomes, page = run(runs)
    assert set(outcomes.values()) == {'ok'}
    assert '| train | 2 | not finite | 2.0000 |' in page
    assert '| deterministic | deterministic-again | not finite | not finite |' in page


def test_the_search_is_compared_with_its_aims():
    contenders = {
        gpu_report.PRODUCT: {'seconds': 1.0},
        gpu_report.OURS: {'seconds': 2.0},
        gpu_report.ADDMM: {'seconds': 5.0},
        'faiss': {'missing': 'not installed'},
    }
    page = gpu_report.describe_search({'searches': [{'queries': 12377, 'gallery': 36961, 'contenders': contenders}]})
    assert '| 12,377 x 36,961 | torch addmm + topk | 2.50 | 2.0 | reached |' in page
    assert '| 12,377 x 36,961 | matrix product alone | 0.50 | 0.6 | missed |' in page


def test_the_contenders_of_the_aims_are_those_of_the_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS.parent / 'benchmarks')
    import pair_contenders

    assert {gpu_report.PRODUCT, gpu_report.ADDMM} < set(pair_contenders.SEARCHES)
    assert (gpu_report.PRODUCT, gpu_report.OURS) == (pair_contenders.LIMIT, pair_contenders.OURS)


@pytest.mark.slow
def test_training_and_testing_on_a_cpu(tmp_path, tiny_root):
    """All steps that train or test, with a tiny model, as a rehearsal of those on a GPU."""
    config = write_config(tmp_path / 'tiny', tiny_root)
    out = tmp_path / 'out'
    arguments = ['--device', 'cpu', '--quick', '--config', config, '--out', out]
    names = list(check_gpu.plan(check_gpu.parse_args([*map(str, arguments)])))
    left_out = {'build', 'tests-of-operators', 'all-tests', 'benchmark-of-operators'}
    command = [sys.executable, SCRIPTS / 'check_gpu.py', *arguments]
    command += ['--steps', *(name for name in names if name not in left_out)]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, (out / 'report.md').read_text()[:5000] + done.stderr
    steps = json.loads((out / 'report.json').read_text())['steps']
    assert set(steps) == set(names) - left_out
    assert set(steps['training']['result']['contenders']) == {'Match R-CNN', 'Mask R-CNN', 'Match R-CNN with amp'}
    parts = {name: set(facts['parts']) for name, facts in steps['training']['result']['contenders'].items()}
    assert parts['Match R-CNN'] - parts['Mask R-CNN'] == {'landmarks', 'matching'}
    losses = {
        name: [entry['loss'] for entry in steps[name]['result']['iterations']]
        for name in ('train', 'resume', 'deterministic', 'deterministic-again', 'one-process', 'processes')
    }
    assert losses['deterministic'] == losses['deterministic-again']
    assert len(losses['resume']) == len(losses['train']) and losses['resume'] != losses['train']
    assert len(losses['one-process']) == len(losses['processes'])
    for name in ('test', 'test-processes'):
        assert (out / f'runs/{name}/results').is_dir()

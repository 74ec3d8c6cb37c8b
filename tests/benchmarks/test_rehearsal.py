"""benchmarks/rehearsal.py: what it makes, what it measures, how it continues, and all of it on a small scale."""

import ast
import importlib
import json
import os
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
from tiny_run import ROOT, run_tool

from mmdf2.command_line import UserError
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.wardrobe import make_wardrobe


@pytest.fixture
def scripts(monkeypatch):
    """Imports a module of the folder benchmarks by its name."""
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    return importlib.import_module


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """A drawn split of 10 images, and the folder that holds it."""
    root = tmp_path_factory.mktemp('drawn')
    make_wardrobe(root, 2, size=96, workers=1, progress=False)
    return root / 'train'


def small(folder, **changes):
    """The arguments of rehearsal_steps.py on the smallest scale."""
    options = {'scale': 0.0005, 'processes': 3, 'boxes': 5, 'metric': None, 'distributed': False}
    return Namespace(dir=folder, **options | changes)


def test_a_repeated_split_has_the_same_pictures_and_new_identities(scripts, drawn, tmp_path):
    images = len(list((drawn / 'image').iterdir()))
    scripts('made_split').repeat_split(drawn, tmp_path / 'train', 2 * images + 3)
    store = open_or_prepare(tmp_path, 'train')
    original = open_or_prepare(drawn.parent, 'train')
    assert store.manifest['problems'] == original.manifest['problems']
    assert len(store) == 2 * images + 3
    repetition = np.arange(len(store)) // images
    # Images share a number where those of the drawn split do and they belong to the same repetition, and nowhere else.
    expected = np.stack([original.pair_ids[np.arange(len(store)) % images], repetition])
    same = (expected[:, :, None] == expected[:, None]).all(axis=0)
    np.testing.assert_array_equal(store.pair_ids[:, None] == store.pair_ids[None], same)
    for row in range(len(store)):
        assert store.image(row).items[0].bbox == original.image(row % images).items[0].bbox
        picture = tmp_path / 'train' / 'image' / f'{row + 1:06d}.jpg'
        assert picture.samefile(drawn / 'image' / f'{row % images + 1:06d}.jpg')


def test_memory_is_that_of_the_largest_process_and_of_all_together(tmp_path):
    holds = 'import sys, time; held = bytearray(150_000_000); held[::4096] = b"x" * len(held[::4096]); time.sleep(2.5)'
    parent = f"""
import subprocess, sys
children = [subprocess.Popen([sys.executable, '-c', {holds!r}]) for _ in range(2)]
[child.wait() for child in children]
print('some text')
print('{{"answer": 42}}')
print('more text')
"""
    (tmp_path / 'parent.py').write_text(parent)
    # A process that is as large as this one would add its own memory.
    code = 'from measuring import measured; found = measured(["parent.py"]); print([found.__dict__, found.numbers()])'
    environment = {**os.environ, 'PYTHONPATH': str(ROOT / 'benchmarks')}
    printed = subprocess.check_output([sys.executable, '-c', code], cwd=tmp_path, env=environment, text=True)
    found, numbers = ast.literal_eval(printed)
    assert 150e6 < found['largest'] < 250e6 and 300e6 < found['together'] < 500e6
    assert found['cpu_seconds'] > 0 and found['seconds'] > 2.5
    assert numbers == {'answer': 42}


def test_a_command_that_fails_says_why(scripts):
    with pytest.raises(SystemExit, match=r'ended with 3:\n.*what went wrong'):
        scripts('measuring').measured(['-c', 'import sys; print("what went wrong", file=sys.stderr); sys.exit(3)'])


def test_orders_of_several_processes_are_compared_with_that_of_one(scripts, tmp_path):
    steps = scripts('rehearsal_steps')
    rng = np.random.default_rng(0)
    alone = np.stack([rng.permutation(20) for _ in range(2)])
    path = tmp_path / 'orders.npy'
    steps._compare_orders(path, alone[None], 1)
    # Process p of 3 gets the twos p, p + 3, ...; 10 twos become 12, by repeating the first ones.
    twos = np.concatenate([alone, alone[:, :4]], axis=1).reshape(2, 12, 2)
    shares = np.stack([twos[:, process::3].reshape(2, -1) for process in range(3)])
    steps._compare_orders(path, shares, 3)
    for place in ((0, 0, 0), (2, 1, 7)):
        wrong = shares.copy()
        wrong[place] += 1
        with pytest.raises(SystemExit, match='the batches of 3 processes are not those of one process'):
            steps._compare_orders(path, wrong, 3)


@pytest.fixture(scope='module')
def predicted(tmp_path_factory):
    """The folder of a small rehearsal with a dataset, its stores and predictions for its validation split."""
    folder = tmp_path_factory.mktemp('rehearsal')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'benchmarks')
        steps = importlib.import_module('rehearsal_steps')
        args = small(folder)
        counts = steps.data(args)['images']
        assert counts == {'train': 96, 'validation': 48}
        (folder / 'predictions').mkdir()
        for part in range(args.processes):
            steps._predict_part(args, part)
    return folder


def test_predictions_are_those_of_a_fair_detector(scripts, predicted):
    steps = scripts('rehearsal_steps')
    for metric in steps.METRICS:
        numbers = steps.evaluation(small(predicted, metric=metric))
        assert numbers['memory'] >= numbers['memory_before'] > 0
    figures = json.loads((predicted / 'figures.json').read_text())
    assert 0.1 < figures['bbox_AP'] < 0.9 and 0.1 < figures['segm_AP'] < 0.9 and 0.1 < figures['keypoints_AP_all'] < 0.9
    assert figures['retrieval_gt_top1'] > 3 * figures['retrieval_chance_top1']
    assert 'bbox_AP_scale_small' in figures and 'retrieval_top1_scale_small' in figures


def test_figures_that_change_are_refused(scripts, tmp_path):
    steps = scripts('rehearsal_steps')
    steps._keep_figures(small(tmp_path), {'AP': 0.5, 'none': float('nan')})
    steps._keep_figures(small(tmp_path), {'none': float('nan'), 'more': 1.0})
    with pytest.raises(SystemExit, match=r'AP was 0\.5, now 0\.25'):
        steps._keep_figures(small(tmp_path), {'AP': 0.25, 'more': 1.0})


def test_loading_and_opening_give_numbers(scripts, predicted):
    steps = scripts('rehearsal_steps')
    found = steps.opening(small(predicted))
    assert found['open_seconds'] > 0 and found['milliseconds_per_image'] > 0
    stores = [predicted / 'deepfashion2' / f'{split}.store' for split in ('train', 'validation')]
    assert found['bytes_of_stores'] == sum(file.stat().st_size for store in stores for file in store.iterdir())


def test_a_rehearsal_continues_where_it_stopped(scripts, tmp_path, monkeypatch, capsys):
    rehearsal = scripts('rehearsal')
    taken = tmp_path / 'taken'

    def step(name, status=0):
        command = f'open({str(taken)!r}, "a").write({name!r}); print(\'{{"found": 1}}\'); raise SystemExit({status})'
        return lambda args: iter([rehearsal.Run(f'run of {name}', ['-c', command])])

    monkeypatch.setattr(rehearsal, 'STEPS', {'a': step('a'), 'b': step('b', status=1), 'c': step('c')})
    folder = tmp_path / 'rehearsal'
    with pytest.raises(SystemExit, match='ended with 1'):
        rehearsal.main(['--dir', str(folder)])
    monkeypatch.setitem(rehearsal.STEPS, 'b', step('b'))
    rehearsal.main(['--dir', str(folder)])
    assert taken.read_text() == 'abbc'
    rehearsal.main(['--dir', str(folder), '--steps', 'a'])
    assert taken.read_text() == 'abbca'
    report = json.loads((folder / 'rehearsal.json').read_text())
    assert set(report['steps']) == {'a', 'b', 'c'} and report['steps']['b']['run of b']['found'] == 1
    assert '| run of c |' in capsys.readouterr().out
    with pytest.raises(UserError, match='is of a rehearsal with --scale 1, --processes 8, --boxes 30'):
        rehearsal.main(['--dir', str(folder), '--boxes', '50'])


def test_a_plan_has_what_was_measured_and_no_more(scripts):
    plan = scripts('rehearsal_plan')
    alone = {'images_per_process': 64_005, 'epoch_seconds': 0.5}
    steps = {'sampler': {'order of an epoch, 1 process': alone}}
    recipe = {'scale': 1, 'processes': 8, 'boxes': 30}
    rows = plan.plan_rows(steps, recipe, plan.Machine(gpus=4, iteration_seconds=None))
    assert {what: number for what, number, _ in rows} == {
        "an epoch's order, in every process": '0.5 s',
        'iterations per epoch': '8,001',
    }
    paper = {'operations': 6e12, 'operations_of_mask_rcnn': 2e12, 'iteration_memory': 7e9, 'checkpoint_bytes': 5e8}
    steps['full_size'] = {"the paper's model, 1 process": paper}
    steps['loading'] = {'load batches': {'cpu_seconds_per_image_0': 0.01}}
    numbers = {
        seconds: {what: number for what, number, _ in plan.plan_rows(steps, recipe, plan.Machine(4, seconds))}
        for seconds in (None, 0.1)
    }
    # 16 images at 53 images/s, three times as long.
    assert numbers[None]['one iteration'] == '0.91 s'
    assert numbers[0.1]['one iteration'] == '0.1 s' and numbers[0.1]['workers that keep a GPU busy'] == '0.20'
    assert numbers[0.1]['12 epochs of training'] == f'{8001 * 12 * 0.1 / 3600:.1f} h'


@pytest.mark.slow
def test_a_small_rehearsal_runs_from_end_to_end(tmp_path):
    options = ['--dir', tmp_path, '--scale', 0.0005, '--processes', 2, '--boxes', 5]
    steps = ['data', 'prepare', 'opening', 'sampler', 'loading', 'processes', 'collection', 'evaluation', 'pages']
    printed = run_tool('rehearsal.py', *options, '--steps', *steps, folder='benchmarks')
    report = json.loads((tmp_path / 'rehearsal.json').read_text())
    assert list(report['steps']) == steps
    for runs in report['steps'].values():
        for name, run in runs.items():
            assert run['together'] >= run['largest'] > 0 and f'| {name} |' in printed
    trained = report['steps']['processes']
    assert trained['train, 2 processes']['iterations'] == trained['resume, 2 processes']['iterations'] > 1
    sampled = report['steps']['sampler']
    assert sampled['order of an epoch, 2 processes']['images_per_process'] * 2 == pytest.approx(
        sampled['order of an epoch, 1 process']['images_per_process'], abs=2
    )
    assert {row['what'] for row in report['plan']} >= {'preparing both stores, once', 'memory of the first process'}
    left = {entry.name for entry in os.scandir(tmp_path / 'runs')}
    assert not [name for name in left if name.endswith('.unfinished')]

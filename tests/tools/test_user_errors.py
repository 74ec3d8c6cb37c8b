"""Mistakes that a stranger makes: each tool ends with one sentence, with status 1 and without a traceback."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import CheckpointLoader
from models.tiny import build_tiny
from tiny_run import ROOT, write_config

from mmdf2.categories import CATEGORY_NAMES
from mmdf2.command_line import explain
from mmdf2.retrieval import FaissGallery, Similarity

WARDROBE = ROOT / 'configs/synthetic/match-rcnn_r18-narrow_wardrobe.py'
DRAW = '--out data/wardrobe --identities 800 --validation-identities 280 --size 320'


@pytest.fixture(scope='module')
def folder(tmp_path_factory, tiny_root) -> Path:
    """A working folder with a config, its dataset and weights, and things that are wrong."""
    folder = tmp_path_factory.mktemp('stranger')
    (folder / 'data').symlink_to(tiny_root)
    shutil.copytree(tiny_root, folder / 'stale')
    write_config(folder, 'data')
    weights = build_tiny().state_dict()
    torch.save({'state_dict': weights}, folder / 'weights.pth')
    without_matching = {name: value for name, value in weights.items() if 'match_head' not in name}
    torch.save({'state_dict': without_matching}, folder / 'other.pth')
    torch.save({'state_dict': {f'detector.{name}': value for name, value in weights.items()}}, folder / 'named.pth')
    classes = (CATEGORY_NAMES[1], CATEGORY_NAMES[0], *CATEGORY_NAMES[2:])
    torch.save({'state_dict': weights, 'meta': {'dataset_meta': {'classes': classes}}}, folder / 'classes.pth')
    configs = {
        'nothing': '',
        'syntax': 'model = dict(',
        'base': "_base_ = ['nothere.py']",
        'inherits': "_base_ = ['syntax.py']",
        'name': 'learning_rate = two',
        'type': "_base_ = ['config.py']\nmodel = dict(backbone=dict(type='ResNett'))",
        'ours': "_base_ = ['config.py']\nmodel = dict(roi_head=dict(match_head=dict(type='mmdf2.MatchHed')))",
        'hook': "_base_ = ['config.py']\ndefault_hooks = dict(logger=dict(type='LogerHook'))",
        'sampler': "_base_ = ['config.py']\ntrain_dataloader = dict(sampler=dict(type='mmdf2.PairSampeler'))",
        'optimizer': "_base_ = ['config.py']\noptim_wrapper = dict(optimizer=dict(type='SDG'))",
        'key': "_base_ = ['config.py']\nmodel = dict(backbone=dict(dept=18))",
        'value': "_base_ = ['config.py']\nmodel = dict(backbone=dict(depth=19))",
        'nodata': "_base_ = ['config.py']\ntrain_dataloader = dict(dataset=dict(data_root='nowhere'))",
        'oldstore': "_base_ = ['config.py']\ntrain_dataloader = dict(dataset=dict(data_root='stale'))",
    }
    for name, text in configs.items():
        (folder / f'{name}.py').write_text(text)
    (folder / 'file').write_text('no folder')
    (folder / 'empty').mkdir()
    FaissGallery(Similarity(np.array([[-1.0], [1.0]]), np.zeros(2))).save(folder / 'shop')
    (folder / 'junk.pth').write_text('junk')
    (folder / 'broken.jpg').write_text('no image')
    (folder / 'broken.json').write_text('[{"image_id": 1}]')
    run('prepare_deepfashion2.py', 'stale', '--split', 'train', cwd=folder)
    shutil.copy(folder / 'stale/train/image/000001.jpg', folder / 'stale/train/image/000099.jpg')
    shutil.copy(folder / 'stale/train/annos/000001.json', folder / 'stale/train/annos/000099.json')
    return folder


def run(tool, *arguments, cwd, before=()) -> subprocess.CompletedProcess:
    """Starts a tool, or with ``before`` another program with it, as a user does, and waits for it."""
    path = tool if isinstance(tool, Path) else ROOT / 'tools' / tool
    return subprocess.run(
        [sys.executable, *before, str(path), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def load_tool(tool: str):
    spec = importlib.util.spec_from_file_location(f'tool_{Path(tool).stem}', ROOT / 'tools' / tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fault_of(done: subprocess.CompletedProcess) -> str:
    """What a tool said at its end, after checking that it said nothing more than it should."""
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert 'Traceback' not in output and 'System environment' not in output
    assert len(output.splitlines()) < 15
    fault = done.stderr[re.search('^error: ', done.stderr, re.MULTILINE).start() :]
    assert done.stderr.endswith(fault) and len(fault.strip().splitlines()) <= 2
    return fault


SEARCH = ('gallery.py', 'search', 'shop', 'data/train/image/000001.jpg', '--model', 'config.py', '--weights')
FAULTS = {
    'no config': (('train.py', 'config.pyy'), r'there is no config config\.pyy\. Did you mean config\.py\?'),
    'folder for a config': (('train.py', 'empty'), r'empty is a folder; give the path of a config file'),
    'empty config': (('train.py', 'nothing.py'), r'nothing\.py is empty \(0 bytes\); give the path of a config file'),
    'syntax error': (('train.py', 'syntax.py'), r"syntax\.py, line 1 is not a valid config: .*'\(' was never closed"),
    'no base': (('train.py', 'base.py'), r'base\.py inherits nothere\.py, which does not exist; correct its _base_'),
    'broken base': (('train.py', 'inherits.py'), r'syntax\.py, line 1 \(inherited by inherits\.py\) is not a valid'),
    'undefined name': (('train.py', 'name.py'), r"name\.py, line 1 is not a valid .* 'two' is not defined; correct it"),
    'no such type': (('train.py', 'type.py'), r"no model of type 'ResNett' .*\. Did you mean ResNet\?"),
    'no such type of ours': (('train.py', 'ours.py'), r"'mmdf2\.MatchHed' .* Did you mean mmdf2\.MatchHead\?"),
    'no such hook': (('train.py', 'hook.py'), r"no hook of type 'LogerHook' .* Did you mean LoggerHook\?"),
    'no such sampler': (('train.py', 'sampler.py'), r"'mmdf2\.PairSampeler' .* Did you mean mmdf2\.PairSampler\?"),
    'no such optimizer': (('train.py', 'optimizer.py'), r"no optimizer of type 'SDG' .* Did you mean SGD\?"),
    'no such key': (('train.py', 'key.py'), r"key\.py: ResNet cannot be .* argument 'dept'\. Correct the config"),
    'no such value': (
        ('train.py', 'value.py'),
        r'value\.py: ResNet cannot be .* invalid depth 19 .* Correct the config',
    ),
    'no data': (('train.py', 'nodata.py'), r'no folder nowhere/train/image; .* Put or link the dataset there, or chan'),
    'stale store': (('train.py', 'oldstore.py'), r'is stale: .* run: python tools/prepare_deepfashion2\.py stale'),
    'text for a number': (
        ('train.py', 'config.py', '--cfg-options', 'train_dataloader.batch_size=many'),
        r'batch_size=many: the config has 4 there; give a number',
    ),
    'misspelled option': (
        ('train.py', 'config.py', '--cfg-options', 'trian_cfg.max_epochs=3'),
        r'the config has no trian_cfg; did you mean train_cfg\?',
    ),
    'option without value': (
        ('train.py', 'config.py', '--cfg-options', 'train_cfg.max_epochs'),
        r'--cfg-options train_cfg\.max_epochs: write KEY=VALUE',
    ),
    'option that leads nowhere': (
        ('train.py', 'config.py', '--cfg-options', 'train_dataloader.dataset.pipeline.99.scale=1'),
        r'pipeline\.99\.scale: the config has no such key: .*; correct the key',
    ),
    'processes that nobody started': (
        ('train.py', 'config.py', '--launcher', 'pytorch'),
        r'torchrun --nproc-per-node N TOOL .* --launcher pytorch; leave it out',
    ),
    'no start': (
        ('train.py', 'config.py', '--cfg-options', 'load_from=nothere.pth'),
        r'nothere\.pth: there is no such checkpoint; give a file that training wrote',
    ),
    'resuming junk': (('train.py', 'config.py', '--resume', 'junk.pth'), r'junk\.pth is not a checkpoint, or it is'),
    'no place for logs': (('train.py', 'config.py', '--work-dir', 'file'), r'file: File exists; .* give another path'),
    'no weights': (('test.py', 'config.py', 'nothere.pth'), r'nothere\.pth: there is no such checkpoint; give a file'),
    'weights of another model': (
        ('test.py', 'config.py', 'other.pth'),
        r"other\.pth does not fit the config's model \(Missing key.*match_head.*; give the checkpoint and the config",
    ),
    'training from another model': (
        ('train.py', 'config.py', '--cfg-options', 'load_from=other.pth'),
        r"other\.pth does not fit the config's model .* or set load_from_other_model=True to begin with what fits",
    ),
    'training from a model with nothing in common': (
        ('train.py', 'config.py', '--cfg-options', 'load_from=named.pth', 'load_from_other_model=True'),
        r'named\.pth: none of its \d+ weights has the name and the shape of one of the model',
    ),
    'resuming another model': (
        ('train.py', 'config.py', '--resume', 'other.pth', '--cfg-options', 'load_from_other_model=True'),
        r"other\.pth does not fit the config's model .*; give the checkpoint and the config of one model$",
    ),
    'weights of other classes': (
        ('test.py', 'config.py', 'classes.pth'),
        r"classes\.pth was trained on 13 classes, .* 1 is 'long sleeve top', but .* 'short sleeve top' there",
    ),
    'training from other classes': (
        ('train.py', 'config.py', '--cfg-options', 'load_from=classes.pth'),
        r'classes\.pth was trained on 13 classes, .* or set load_from_other_model=True',
    ),
    'searching with other classes': ((*SEARCH, 'classes.pth'), r'classes\.pth was trained on 13 classes'),
    'weights of a larger model': (
        ('test.py', 'config.py', 'weights.pth', '--cfg-options', 'model.roi_head.match_head=None'),
        r"weights\.pth does not fit the config's model \(Unexpected key.*match_head",
    ),
    'no metrics': (
        ('test.py', 'config.py', 'weights.pth', '--subsets', '--cfg-options', 'test_evaluator=None'),
        r'--subsets: test_evaluator has no mmdf2\.DeepFashion2Metric .*; add one, or leave',
    ),
    'no gallery': ((*SEARCH[:2], 'empty', *SEARCH[3:], 'weights.pth'), r'empty is no gallery'),
    'no weights to search with': ((*SEARCH, 'nothere.pth'), r'there is no such checkpoint; give a file'),
    'no such device': ((*SEARCH, 'weights.pth', '--device', 'cud'), r"device 'cud' cannot be used: .*; use 'cpu'"),
    'no photos': (
        ('gallery.py', 'build', '--images', 'nowhere', *SEARCH[-3:], 'weights.pth', '--out', 'new'),
        r'nowhere: there is no such image or folder; correct the path',
    ),
    'an empty folder of photos': (
        ('gallery.py', 'build', '--images', 'empty', *SEARCH[-3:], 'weights.pth', '--out', 'new'),
        r'there is no image in empty; name photos',
    ),
    'a gallery in a file': (
        ('gallery.py', 'build', '--images', 'data', *SEARCH[-3:], 'weights.pth', '--out', 'file'),
        r'file is a file; a gallery needs a folder',
    ),
    'no gallery to describe': (('gallery.py', 'info', 'nowhere'), r'nowhere is no gallery'),
    'no results': (('evaluate.py', '--gt', 'data', '--bbox', 'nothere.json'), r'nothere\.json cannot be read'),
    'malformed results': (('evaluate.py', '--gt', 'data', '--bbox', 'broken.json'), r'line 1, entry 0: category_id is'),
    'no ground truth': (('evaluate.py', '--gt', 'nowhere', '--bbox', 'broken.json'), r'nowhere is no ground truth'),
    'no dataset to describe': (('analyze.py', 'dataset', '--store', 'nowhere', '--out', 'o'), r'nowhere is neither'),
    'a file for a folder': (('analyze.py', 'dataset', '--store', 'data', '--out', 'file'), r'give another path'),
    'no retrieved lists': (
        ('analyze.py', 'errors', '--gt', 'data', '--retrieval', 'no', '--out', 'o'),
        r'no cannot be',
    ),
    'nothing to draw contours of': (('mask_tool.py', 'nowhere', '--out', 'o'), r'no folder nowhere/validation/image'),
    'nothing to prepare': (('prepare_deepfashion2.py', 'nowhere'), r'has neither a train .* give the folder'),
    'no folder of the split': (('prepare_deepfashion2.py', 'data', '--split', 'test'), r'no folder data/test/image'),
    'a wardrobe of nobody': (('make_wardrobe.py', '--out', 'w', '--identities', '0'), r'must be 1 to \d+, got 0'),
    'no photos for the demo': (
        ('demo.py', '--images', 'nowhere', '--work-dir', 'd'),
        r'there is no such image or fold',
    ),
    'a demo in another place': (('demo.py', '--work-dir', '.'), r'holds something else .*; name another folder'),
}


# One for each tool and each way to end; starting a process takes seconds.
AS_PROCESSES = (
    'syntax error',
    'no such type of ours',
    'stale store',
    'text for a number',
    'no weights',
    'no gallery',
    'no results',
    'no dataset to describe',
    'nothing to draw contours of',
    'nothing to prepare',
    'a wardrobe of nobody',
    'no photos for the demo',
)


@pytest.mark.parametrize('name', FAULTS)
def test_a_mistake_is_one_sentence(folder, name, monkeypatch, capsys):
    """Within this process, which has the libraries loaded."""
    (tool, *arguments), message = FAULTS[name]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())
    for variable in ('LOCAL_RANK', 'RANK'):
        monkeypatch.setenv(variable, '')
        monkeypatch.delenv(variable)
    with pytest.raises(Exception) as caught:
        load_tool(tool).main(arguments)
    assert re.search(message, explain(caught.value))
    assert 'System environment' not in capsys.readouterr().out


@pytest.mark.parametrize('name', AS_PROCESSES)
def test_a_tool_ends_with_one_sentence(folder, name):
    command, message = FAULTS[name]
    assert re.search(message, fault_of(run(*command, cwd=folder)))


# What can be checked before the work: each command would prepare `fresh`, or make the folder `work`, if it began.
FRESH = ('--gt', 'fresh', '--bbox', 'empty.json')
EVALUATE = ('evaluate.py', *FRESH)
TEST = (
    'test.py',
    'config.py',
    'weights.pth',
    '--work-dir',
    'work',
    '--cfg-options',
    'test_dataloader.dataset.data_root=fresh',
)
BEFORE_THE_WORK = {
    'no place for the report': (
        (*EVALUATE, '--out', 'file/report.json'),
        r'--out file: nothing can be written there \(Not a directory\); give another path',
    ),
    'a folder for a report': (
        (*EVALUATE, '--out', 'folder.json'),
        r'--out folder\.json: that is a folder; name a file',
    ),
    'a folder for a part of the report': (
        (*EVALUATE, '--out', 'part.json'),
        r'--out part\.md: that is a folder; name a file',
    ),
    'the last of many results': (
        (*EVALUATE, '--retrieval-gt', 'nothere.json'),
        r'--retrieval-gt nothere\.json cannot be read \(No such file or directory\); correct the path',
    ),
    'no place for a page': (
        ('analyze.py', 'dataset', '--store', 'fresh', '--out', 'file'),
        r'--out file: nothing can be',
    ),
    'no results to look at': (
        ('analyze.py', 'errors', *FRESH, '--retrieval', 'nothere', '--out', 'o'),
        r'--retrieval nothere cannot be read',
    ),
    'no images to show': (
        ('analyze.py', 'errors', *FRESH, '--images', 'nothere', '--out', 'o'),
        r'--images nothere: there is no such folder',
    ),
    'no place for contours': (('mask_tool.py', 'fresh', '--out', 'file'), r'--out file: nothing can be written there'),
    'no place for an export': (
        ('prepare_deepfashion2.py', 'fresh', '--export', 'file'),
        r'--export file: nothing can be',
    ),
    'no place for predictions': (
        (*TEST, '--dump', 'file/dump'),
        r'--dump file/dump: nothing can be .* \(Not a directory',
    ),
    'no place for pictures': ((*TEST, '--show-dir', 'file'), r'--show-dir file: nothing can be written there'),
    'no image for the demo': (
        ('demo.py', '--images', 'empty', '--work-dir', 'work'),
        r'there is no image in it; name a',
    ),
    'no place for a contact sheet': (
        ('make_wardrobe.py', '--contact-sheet', 'empty'),
        r'--contact-sheet empty: that is a folder; name a file',
    ),
}


@pytest.mark.parametrize('name', BEFORE_THE_WORK)
def test_what_can_be_checked_before_the_work_is(folder, tiny_root, tmp_path, monkeypatch, name):
    (tool, *arguments), message = BEFORE_THE_WORK[name]
    shutil.copytree(tiny_root / 'validation', tmp_path / 'fresh' / 'validation')
    for file in ('config.py', 'weights.pth', 'file'):
        (tmp_path / file).symlink_to(folder / file)
    for made in ('folder.json', 'part.md', 'empty'):
        (tmp_path / made).mkdir()
    (tmp_path / 'empty.json').write_text('[]')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as caught:
        load_tool(tool).main(arguments)
    assert re.search(message, explain(caught.value) or '')
    assert not (tmp_path / 'fresh' / 'validation.store').exists()
    assert not (tmp_path / 'work').exists() and not (tmp_path / 'o').exists()


def test_a_missing_wardrobe_ends_with_the_command_that_draws_it(tmp_path):
    fault = fault_of(run('train.py', WARDROBE, cwd=tmp_path))
    assert 'no folder data/wardrobe/train/image. This command makes the dataset:' in fault
    assert fault.splitlines()[-1] == f'    python {ROOT}/tools/make_wardrobe.py {DRAW}'
    # In a wheel, the tools are in a folder .mim, and mim starts them.
    for name in ('tools', 'configs'):
        shutil.copytree(ROOT / name, tmp_path / '.mim' / name)
    fault = fault_of(
        run(tmp_path / '.mim/tools/train.py', tmp_path / '.mim' / WARDROBE.relative_to(ROOT), cwd=tmp_path)
    )
    assert fault.splitlines()[-1] == f'    mim run mmdf2 make_wardrobe {DRAW}'


@pytest.mark.slow
def test_mim_shows_the_sentence_before_its_own_traceback(tmp_path):
    if importlib.util.find_spec('mim') is None:
        pytest.skip('mim is not installed on the original line of OpenMMLab')
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, '-m', 'mim', 'train', 'mmdf2', WARDROBE.name]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    ours = done.stderr.partition('Traceback')[0].strip()
    assert ours.splitlines()[-1] == f'    mim run mmdf2 make_wardrobe {DRAW}'
    assert len((done.stdout + ours).splitlines()) < 15


def test_one_of_two_processes_says_it(folder):
    launch = ('-m', 'torch.distributed.launch', '--standalone', '--nproc-per-node=2')
    done = run('train.py', 'nodata.py', '--launcher', 'pytorch', cwd=folder, before=launch)
    assert done.returncode == 1
    ours = [line for line in done.stderr.splitlines() if 'error: ' in line and 'nodata.py' in line]
    assert len(ours) == 1 and 'Put or link the dataset there' in ours[0]
    assert 'System environment' not in done.stdout
    # The launcher's own traceback is the only one.
    assert done.stderr.count('Traceback') == 1


HOOK = """
import atexit
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmdf2.command_line import UserError


@HOOKS.register_module()
class SecondProcessHook(Hook):
    def __init__(self, fails):
        self.fails = fails
        atexit.register(self.tell)

    def tell(self):
        print('at the end:', sorted(path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm')))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.fails and get_rank() == 1 and batch_idx == 2:
            raise UserError('the second process found no data; give it some.')
"""


@pytest.mark.slow
@pytest.mark.parametrize('fails', [False, True])
def test_two_processes_part_in_order(folder, monkeypatch, tmp_path, fails):
    """Training ends without a thread of the group; a fault of one process, in the middle, ends both and is told."""
    (folder / 'second.py').write_text(HOOK)
    hook = f"custom_imports = dict(imports=['second'])\ncustom_hooks = [dict(type='SecondProcessHook', fails={fails})]"
    (folder / f'parts{fails}.py').write_text(f"_base_ = ['config.py']\n{hook}")
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')]))
    launch = ('-m', 'torch.distributed.launch', '--standalone', '--nproc-per-node=2')
    arguments = (f'parts{fails}.py', '--work-dir', tmp_path, '--launcher', 'pytorch')
    done = run('train.py', *arguments, cwd=folder, before=launch)
    output = done.stdout + done.stderr
    assert done.returncode == int(fails), output
    if fails:
        assert output.count('error: the second process found no data; give it some.') == 1
        assert 'another process' not in output and 'Connection closed' not in output
    else:
        ends = [line for line in output.splitlines() if 'at the end:' in line]
        assert len(ends) == 2 and not any('gloo' in end for end in ends), ends


@pytest.mark.parametrize('seconds', [1.0, None], ids=['while libraries are imported', 'in training'])
def test_interrupting_tells_how_to_continue(folder, tmp_path, seconds):
    command = [sys.executable, str(ROOT / 'tools/train.py'), 'config.py', '--work-dir', str(tmp_path)]
    command += ['--cfg-options', 'train_cfg.max_epochs=1000']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONUNBUFFERED': '1'}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        if seconds:
            time.sleep(seconds)
        else:
            while 'Epoch(train)' not in process.stdout.readline():
                assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert errors == (
        'error: interrupted. The same command with --resume continues from the last checkpoint in the work dir.\n'
    )


def test_the_traceback_can_be_asked_for(folder, monkeypatch):
    monkeypatch.setenv('MMDF2_TRACEBACK', '1')
    done = run('evaluate.py', '--gt', 'nowhere', '--bbox', 'broken.json', cwd=folder)
    assert 'Traceback' in done.stderr and done.stderr.splitlines()[-1].startswith('error: nowhere is no ground truth')


@pytest.mark.parametrize(
    'command',
    [
        ('train.py', 'config.py', '--work-dir', 'quiet'),
        ('test.py', 'config.py', 'weights.pth', '--work-dir', 'quiet'),
        ('prepare_deepfashion2.py', 'data'),
        ('analyze.py', 'dataset', '--store', 'data', '--out', 'quiet'),
    ],
    ids=lambda command: command[0],
)
def test_noise_of_other_libraries_stays_off_the_screen(folder, command):
    done = run(*command, cwd=folder)
    assert done.returncode == 0 and done.stderr == ''
    assert not re.search('OneDL|will be deprecated|NUM_THREADS environment', done.stdout)


def test_a_warning_of_a_config_is_seen(folder):
    text = "_base_ = ['config.py']\nimport warnings\nwarnings.warn('read this')\nmodel = dict(backbone=dict(depth=19))"
    (folder / 'warns.py').write_text(text)
    done = run('train.py', 'warns.py', cwd=folder)
    assert 'UserWarning: read this' in done.stderr


def test_a_bug_keeps_its_traceback(folder, monkeypatch):
    text = "_base_ = ['config.py']\ncustom_imports = dict(imports=['buggy'])\ncustom_hooks = [dict(type='BuggyHook')]"
    (folder / 'bug.py').write_text(text)
    (folder / 'buggy.py').write_text(
        'from mmengine.hooks import Hook\nfrom mmengine.registry import HOOKS\n\n\n@HOOKS.register_module()\n'
        'class BuggyHook(Hook):\n    def before_train_iter(self, runner, batch_idx, data_batch=None):\n'
        '        return {}["missing"]\n'
    )
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')]))
    done = run('train.py', 'bug.py', '--work-dir', 'bug', cwd=folder)
    assert done.returncode == 1 and "KeyError: 'missing'" in done.stderr and 'Traceback' in done.stderr
    assert 'System environment' in done.stdout

"""What the tools make of their command lines, without running anything."""

import importlib.util
import inspect
import os
import subprocess
import sys
from argparse import Namespace

import pytest
from mmengine.config import Config
from tiny_run import ROOT

from mmdf2.command_line import UserError
from mmdf2.engine import load_config
from mmdf2.engine.processes import TIMEOUT

ONE_OF_BOTH = pytest.mark.parametrize('name', ['train', 'test'])


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(name, *arguments):
    positional = ['config.py'] if name == 'train' else ['config.py', 'weights.pth']
    return load_tool(name).parse_args([*positional, *arguments])


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    # monkeypatch only restores a variable that it has set.
    monkeypatch.setenv('LOCAL_RANK', '')
    monkeypatch.delenv('LOCAL_RANK')
    path = tmp_path / 'some_recipe.py'
    path.write_text("a = dict(b=1)\nenv_cfg = dict(dist_cfg=dict(backend='nccl'))\n")
    return path


def arguments(config, **changes):
    fields = {'config': str(config), 'launcher': 'none', 'cfg_options': None, 'work_dir': None, 'local_rank': 0}
    return Namespace(**{**fields, **changes})


@ONE_OF_BOTH
@pytest.mark.parametrize('spelling', ['--local-rank', '--local_rank'])
def test_both_spellings_of_local_rank(name, spelling):
    args = parse(name, f'{spelling}=3', '--launcher', 'pytorch', '--cfg-options', 'a.b=2', 'c=[1,2]')
    assert (args.local_rank, args.launcher, args.cfg_options) == (3, 'pytorch', {'a.b': 2, 'c': [1, 2]})


@ONE_OF_BOTH
def test_mim_gives_no_flag_for_gpus(capsys, name):
    """mim adds --gpus or --device to the arguments of a tool whose help mentions it."""
    with pytest.raises(SystemExit):
        parse(name, '-h')
    assert '--gpus' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('given', 'resume'), [((), None), (('--resume',), 'auto'), (('--resume', 'epoch_3.pth'), 'epoch_3.pth')]
)
def test_resume_takes_an_optional_checkpoint(given, resume):
    assert parse('train', *given).resume == resume


def test_config_is_changed_by_the_command_line(config_file):
    config = load_config(arguments(config_file, cfg_options={'a.b': 5}, local_rank=2))
    assert (config.a.b, config.launcher, os.environ['LOCAL_RANK']) == (5, 'none', '2')
    assert config.work_dir == os.path.join('work_dirs', 'some_recipe')
    assert load_config(arguments(config_file, work_dir='elsewhere')).work_dir == 'elsewhere'


def test_how_long_processes_wait_is_ours_unless_the_config_says_it(config_file, monkeypatch):
    """Both lines of MMEngine take seconds, and gloo's group is made from the same setting."""
    monkeypatch.setenv('RANK', '0')
    assert load_config(arguments(config_file, launcher='pytorch')).env_cfg.dist_cfg.timeout == TIMEOUT >= 3600
    config_file.write_text(config_file.read_text() + "\nenv_cfg = dict(dist_cfg=dict(backend='nccl', timeout=77))\n")
    assert load_config(arguments(config_file, launcher='pytorch')).env_cfg.dist_cfg.timeout == 77
    options = {'env_cfg.dist_cfg.timeout': 99}
    config = load_config(arguments(config_file, launcher='pytorch', cfg_options=options))
    assert config.env_cfg.dist_cfg.timeout == 99


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_launchers_that_need_gpus_say_so(config_file, monkeypatch, launcher):
    monkeypatch.setattr('mmdf2.engine.runner_config.get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match='torchrun --nproc-per-node N'):
        load_config(arguments(config_file, launcher=launcher))


@pytest.mark.parametrize(
    ('device', 'wrapper'),
    [('cpu', {'type': 'mmdf2.CpuAmpOptimWrapper'}), ('cuda', {'type': 'AmpOptimWrapper', 'loss_scale': 'dynamic'})],
)
def test_mixed_precision_fits_the_machine(monkeypatch, device, wrapper):
    train = load_tool('train')
    monkeypatch.setattr(train, 'get_device', lambda: device)
    config = Config({'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 1.0}}})
    train.use_mixed_precision(config)
    assert config.optim_wrapper == {**wrapper, 'optimizer': {'type': 'SGD', 'lr': 1.0}}


def test_options_for_metrics_reach_every_one_of_ours(tmp_path):
    test = load_tool('test')
    ours = [{'type': 'mmdf2.DeepFashion2Metric'}, {'type': 'mmdf2.RetrievalMetric'}]
    config = Config({'test_evaluator': [*ours, {'type': 'CocoMetric'}]})
    prefix = str(tmp_path / 'results')
    test.set_up_metrics(config, '--dump', outfile_prefix=prefix)
    test.set_up_metrics(config, '--subsets', subsets=True)
    expected = [{**metric, 'outfile_prefix': prefix, 'subsets': True} for metric in ours]
    assert list(config.test_evaluator) == [*expected, {'type': 'CocoMetric'}]
    single = Config({'test_evaluator': ours[0]})
    test.set_up_metrics(single, '--dump', outfile_prefix=prefix)
    assert single.test_evaluator.outfile_prefix == prefix
    with pytest.raises(UserError, match=r'--dump: test_evaluator has no mmdf2\.DeepFashion2Metric'):
        test.set_up_metrics(Config({'test_evaluator': {'type': 'CocoMetric'}}), '--dump', outfile_prefix=prefix)


@pytest.mark.parametrize('name', [path.stem for path in sorted((ROOT / 'tools').glob('*.py'))])
def test_a_tool_can_be_called_from_another_command(capsys, name):
    """Importing it runs nothing, and its ``main`` takes the arguments."""
    tool = load_tool(name)
    assert capsys.readouterr() == ('', '')
    assert inspect.signature(tool.main).parameters['argv'].default is None
    with pytest.raises(SystemExit) as ended:
        tool.main(['-h'])
    described = capsys.readouterr().out
    assert ended.value.code == 0 and tool.__doc__.splitlines()[0] in described
    # One sentence says what the tool does, and an example shows how.
    assert tool.__doc__.splitlines()[0].endswith('.') and f'tools/{name}.py' in tool.__doc__


def test_faiss_is_left_alone_until_a_gallery_is_opened():
    tools = [str(path) for path in sorted((ROOT / 'tools').glob('*.py'))]
    code = (
        'import runpy, sys, mmdf2.apis, mmdf2.engine\n'
        f'for path in {tools}:\n    runpy.run_path(path)\n'
        'print(*sorted({name.split(".")[0] for name in sys.modules}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert 'mmdet' in done.stdout.split() and not {'faiss', 'pymilvus', 'milvus_lite'} & set(done.stdout.split())

"""The installed wheel, as a stranger gets it: what it holds, what it leaves out, what importing it costs.

tests/test_first_lines.py has the tests of the editable installation.
"""

import collections
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
import yaml

import mmdf2
from mmdf2.ops import build_info

ROOT = Path(__file__).resolve().parents[1]
MIM = Path(mmdf2.__file__).parent / '.mim'
SYNTHETIC = 'match-rcnn_r18-narrow_wardrobe.py'


@pytest.fixture(scope='module')
def distribution():
    found = importlib.metadata.distribution('mmdf2')
    if json.loads(found.read_text('direct_url.json') or '{}').get('dir_info', {}).get('editable'):
        pytest.skip('mmdf2 is installed in editable mode; `make test` checks a wheel')
    return found


def files_below(folder):
    return {
        str(path.relative_to(folder))
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def run_python(code, **variables):
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_tests_run_on_the_installed_wheel(distribution):
    assert Path(mmdf2.__file__).is_relative_to(sysconfig.get_path('purelib'))
    assert distribution.version == mmdf2.__version__


@pytest.mark.parametrize('name', ['configs', 'tools'])
def test_mim_gets_real_files(distribution, name):
    assert files_below(MIM / name) == files_below(ROOT / name)
    assert not any(path.is_symlink() for path in [MIM / name, *(MIM / name).rglob('*')])
    for file in files_below(MIM / name):
        assert (MIM / name / file).read_bytes() == (ROOT / name / file).read_bytes()


def test_the_index_names_what_is_there(distribution):
    """Each model of the index has a config in the wheel."""
    index = yaml.safe_load((MIM / 'model-index.yml').read_text())
    metafiles = [file for pattern in index['Import'] for file in MIM.glob(pattern)]
    assert metafiles
    models = [model for file in metafiles for model in yaml.safe_load(file.read_text()).get('Models', [])]
    assert models
    for model in models:
        assert (MIM / model['Config']).is_file(), model['Name']


def test_names_are_unique(distribution):
    """mim finds a config by its basename anywhere in the package."""
    package = MIM.parent
    configs = [path.name for path in (MIM / 'configs').rglob('*.py') if '_base_' not in path.parts]
    counts = collections.Counter(Path(file).name for file in files_below(package))
    assert configs and {name: counts[name] for name in configs} == dict.fromkeys(configs, 1)


def test_onedl_mim_finds_the_same_tree_beside_the_metadata(distribution):
    """See setup.py: onedl-mim 0.5.1 looks for .mim in the folder of the first recorded file."""
    first = Path(distribution.locate_file(str(distribution.files[0]).split('/')[0]))
    assert files_below(first / '.mim') == files_below(MIM)


def test_the_wheel_holds_the_package_and_nothing_else(distribution):
    tops = {str(file).split('/')[0] for file in distribution.files}
    assert tops == {'mmdf2', f'mmdf2-{mmdf2.__version__}.dist-info'}
    assert len([file for file in distribution.files if file.match('mmdf2/ops/_C*.so')]) == 1
    sources = {str(file.relative_to(ROOT)) for file in (ROOT / 'mmdf2').rglob('*.py') if '.mim' not in file.parts}
    packed = {str(file) for file in distribution.files if file.suffix == '.py' and '.mim' not in file.parts}
    assert packed == sources


def test_the_source_distribution_builds_the_same_wheel(distribution, tmp_path):
    """It has what the wheel is made of, with .mim as files: archives of links do not survive every system."""
    checkout = tmp_path / 'checkout'
    leave_out = shutil.ignore_patterns('.*', '*.so', '__pycache__', 'build', 'tests', 'work_dirs')
    shutil.copytree(ROOT, checkout, ignore=leave_out)
    shutil.copytree(ROOT / 'mmdf2/.mim', checkout / 'mmdf2/.mim', symlinks=True)
    code = 'from setuptools import build_meta; print(build_meta.build_sdist("out"))'
    done = subprocess.run([sys.executable, '-c', code], cwd=checkout, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with tarfile.open(checkout / 'out' / done.stdout.split()[-1]) as archive:
        kinds = {member.name.split('/', 1)[-1]: member for member in archive.getmembers()}
        metadata = archive.extractfile(kinds['PKG-INFO']).read().decode()
    assert not [name for name, member in kinds.items() if member.issym() or member.islnk()]
    packed = {str(file) for file in distribution.files if '__pycache__' not in file.parts}
    expected = {file for file in packed if file.startswith('mmdf2/') and not file.endswith('.so')}
    expected |= {f'csrc/{file}' for file in files_below(ROOT / 'csrc')} | {'LICENSE', 'setup.py', 'pyproject.toml'}
    assert expected <= set(kinds)
    # The sources fit any of these releases; what is compiled from them fits one.
    assert 'Requires-Dist: torch>=2.4\n' in metadata and 'torch==' not in metadata


def test_the_wheel_asks_for_the_torch_that_it_was_compiled_for(distribution):
    release = build_info()['torch'].split('+')[0]
    assert [name for name in distribution.requires if name.startswith('torch')] == [f'torch=={release}']


def test_the_wheel_tells_type_checkers_that_it_has_hints(distribution):
    assert (Path(mmdf2.__file__).parent / 'py.typed').is_file()


def test_benchmarks_stay_in_the_checkout(distribution):
    names = {path.name for path in (ROOT / 'benchmarks').glob('*.py')}
    assert names
    assert not [file for file in distribution.files if file.name in names or 'benchmarks' in file.parts]


def test_operators_need_torch_alone():
    code = 'import sys, mmdf2.ops; print(*sorted({name.split(".")[0] for name in sys.modules}))'
    loaded = set(run_python(code).split())
    assert 'torch' in loaded
    assert not loaded & {'mmengine', 'mmcv', 'mmdet', 'torchvision', 'faiss', 'cv2', 'matplotlib'}


@pytest.mark.parametrize('module', ['evaluation.evaluate', 'codecs.contour', 'wardrobe'])
def test_evaluation_and_drawing_need_no_torch(module):
    code = f'import sys, mmdf2.{module}; print(*sorted({{name.split(".")[0] for name in sys.modules}}))'
    loaded = set(run_python(code).split())
    assert 'numpy' in loaded
    assert not loaded & {'torch', 'mmengine', 'mmcv', 'mmdet', 'matplotlib'}


def test_importing_the_package_loads_nothing():
    code = 'import sys, mmdf2; print(*sorted({name.split(".")[0] for name in sys.modules}))'
    assert not set(run_python(code).split()) & {'torch', 'numpy', 'mmengine'}


def test_one_opencv_that_needs_no_screen():
    names = {found.name.lower() for found in importlib.metadata.distributions()}
    assert len({name for name in names if name.startswith('opencv')}) == 1
    code = 'import cv2; print("libGL" in open("/proc/self/maps").read() or "libX11" in open("/proc/self/maps").read())'
    assert run_python(code, DISPLAY='') == 'False'


def test_requirements_are_met_but_for_those_left_out_on_purpose():
    """requirements/onedl.txt gives the reasons."""
    done = subprocess.run([sys.executable, '-m', 'pip', 'check'], capture_output=True, text=True, timeout=120)
    complaints = [line for line in done.stdout.splitlines() if line != 'No broken requirements found.']
    left_out = r'\S+ \S+ (requires (opencv-python|imagecorruptions-imaug),|has requirement opencv-python)'
    assert [line for line in complaints if not re.match(left_out, line)] == []


@pytest.fixture(scope='module')
def mim():
    if importlib.util.find_spec('mim') is None:
        pytest.skip(
            'mim is not installed: on the original line openmim would replace setuptools by one that is too old'
        )
    return [sys.executable, '-m', 'mim']


def test_mim_search_lists_the_models(distribution, mim, tmp_path):
    done = subprocess.run(
        [*mim, 'search', 'mmdf2', '--valid-config'], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    index = yaml.safe_load((MIM / 'model-index.yml').read_text())
    for file in (file for pattern in index['Import'] for file in MIM.glob(pattern)):
        for model in yaml.safe_load(file.read_text())['Models']:
            assert Path(model['Config']).stem in done.stdout


@pytest.mark.slow
def test_mim_trains_and_tests_a_config_of_the_wheel(distribution, mim, tiny_root, tmp_path):
    """By its name alone, from a folder that has no checkout, on three batches of small images."""
    parts = [f'{mode}_dataloader.dataset' for mode in ('train', 'val', 'test')]
    parts += [f'{mode}_evaluator.{number}' for mode in ('val', 'test') for number in (0, 1)]
    options = ['--cfg-options', *(f'{part}.data_root={tiny_root}' for part in parts)]
    options += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=100']
    for mode, resize in (('train', 2), ('test', 1)):
        options += [f'{mode}_dataloader.num_workers=0', f'{mode}_dataloader.persistent_workers=False']
        options += [f'{mode}_dataloader.dataset.pipeline.{resize}.scale=(96,96)']
    environment = {**os.environ, 'OMP_NUM_THREADS': '2', 'CUDA_VISIBLE_DEVICES': ''}
    for command in (['train'], ['test', '--checkpoint', 'work/epoch_1.pth']):
        arguments = [*mim, command[0], 'mmdf2', SYNTHETIC, *command[1:], '--work-dir', 'work', *options]
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-6000:]
        assert 'site-packages/mmdf2-' in output
    assert (tmp_path / 'work/epoch_1.pth').is_file()
    assert 'retrieval_top1' in output

"""The check of the OpenMMLab stack, with fake distributions, and once with the installed ones."""

import shutil
import subprocess
import sys
from pathlib import Path

import mmcv.ops
import pytest
import torch

import mmdf2
from mmdf2 import stack

TRIO = {'mmengine': '0.10.12', 'mmcv': '2.3.6', 'mmdet': '3.5.1'}
NAMES = {'mmengine': 'onedl-mmengine', 'mmcv': 'onedl-mmcv', 'mmdet': 'onedl-mmdetection'}


@pytest.fixture
def world(tmp_path):
    """A folder with mmdf2's check, a fake torch, and fake mmengine, mmcv and mmdet that fit; the tests spoil it."""
    shutil.copytree(Path(mmdf2.__file__).parent, tmp_path / 'mmdf2', ignore=lambda _, names: set(names) - WANTED)
    add(tmp_path, 'torch', '2.13.0', 'torch')
    for module, version in TRIO.items():
        add(tmp_path, module, version, NAMES[module])
    (tmp_path / 'mmcv/_ext.py').touch()
    return tmp_path


WANTED = {'__init__.py', 'stack.py'}


def add(world, module, version, distribution, code=''):
    (world / module).mkdir(exist_ok=True)
    (world / module / '__init__.py').write_text(f'__version__ = {version!r}\n{code}')
    metadata = world / f'{distribution.replace("-", "_")}-{version}.dist-info'
    metadata.mkdir()
    (metadata / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n')


def remove(world, module):
    shutil.rmtree(world / module)
    shutil.rmtree(next(world.glob(f'{NAMES[module].replace("-", "_")}-*.dist-info')))


def check(world, calls='require_stack()'):
    """Runs the check where only ``world`` and the standard library can be imported; returns what it printed."""
    code = (
        f'import sys; sys.path.insert(0, {str(world)!r})\n'
        'from mmdf2.stack import require_stack, StackError\n'
        f'try:\n    {calls}\nexcept StackError as error:\n    print(error)\nelse:\n    print("fits")'
    )
    done = subprocess.run([sys.executable, '-I', '-S', '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_trio_that_fits(world):
    assert check(world) == 'fits'


def test_nothing_is_imported_twice(world):
    (world / 'mmcv/_ext.py').write_text('print("loaded")')
    calls = 'require_stack(); sys.modules.pop("mmcv._ext"); require_stack()'
    assert check(world, calls) == 'loaded\nfits'


def test_all_missing_is_one_error_with_the_commands(world):
    for module in TRIO:
        remove(world, module)
    message = check(world)
    for module, (lowest, _) in stack.RANGES.items():
        assert f'{module} is not installed (mmdf2 needs {module} >= {lowest}' in message
    assert 'make install' in message
    assert 'pip install --no-build-isolation ".[onedl]"' in message


@pytest.mark.parametrize(
    ('module', 'distribution', 'version'),
    [('mmdet', 'mmdet', '2.28.2'), ('mmcv', 'mmcv-full', '1.7.2'), ('mmengine', 'mmengine', '1.0.0rc1')],
)
def test_versions_outside_the_range(world, module, distribution, version):
    remove(world, module)
    add(world, module, version, distribution)
    message = check(world)
    assert f'{module} is {version} (mmdf2 needs {module} >= {stack.RANGES[module][0]}' in message
    assert message.count('  - ') == 1


def test_a_module_without_metadata_is_asked_itself(world):
    shutil.rmtree(next(world.glob('onedl_mmdetection-*')))
    (world / 'mmdet/__init__.py').write_text('__version__ = "3.2.0"')
    assert 'mmdet is 3.2.0' in check(world)


def test_mmcv_without_operators(world):
    remove(world, 'mmcv')
    add(world, 'mmcv', '2.1.0', 'mmcv-lite')
    message = check(world)
    assert 'mmcv is 2.1.0 without its compiled operators' in message
    assert 'pip uninstall -y mmcv-lite\n' in message
    assert message.endswith('--no-deps onedl-mmcv')


def test_operators_built_against_another_torch(world):
    (world / 'mmcv/_ext.py').write_text('raise ImportError("undefined symbol: _ZN3c10")')
    message = check(world)
    assert 'mmcv is 2.3.6, but its compiled operators do not load beside torch 2.13.0: undefined symbol' in message
    assert '--no-cache-dir' in message, "pip's cache would hand out the same wheel again"


def test_two_distributions_of_one_module(world):
    add(world, 'mmdet', '3.3.0', 'mmdet')
    assert 'mmdet 3.3.0 and onedl-mmdetection 3.5.1 are both installed' in check(world)


def test_a_module_that_refuses_its_neighbours(world):
    (world / 'mmdet/__init__.py').write_text('assert False, "MMCV==2.3.6 is used but incompatible"')
    assert 'mmdet does not import: AssertionError: MMCV==2.3.6 is used but incompatible' in check(world)


def test_torch_missing(world):
    shutil.rmtree(world / 'torch')
    assert "No module named 'torch'" in check(world)


def test_the_installed_stack_fits():
    stack.require_stack()


def test_mmengine_shows_the_error_of_a_lazy_lookup():
    """MMEngine would swallow an ImportError and only say that the class is unknown."""
    code = (
        'import sys, torch\n'
        'sys.modules["mmcv._ext"] = None\n'
        'from mmengine.registry import MODELS\n'
        'MODELS.build(dict(type="mmdf2.MatchRCNN"))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert 'StackError: mmdf2 cannot use the OpenMMLab stack' in done.stderr
    assert 'compiled operators' in done.stderr


@pytest.fixture
def made_gpu(monkeypatch):
    """A GPU that computes as the CPU does, with mmcv's operators for it."""
    ones = torch.ones
    monkeypatch.setattr(torch, 'ones', lambda *size, device: ones(*size))
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda device: None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Made-up')
    monkeypatch.setattr(torch.cuda, 'get_arch_list', lambda: ['sm_80', 'sm_90'])
    monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: '13.0')


def fails_with(message, kind=RuntimeError):
    def fail(*_, **__):
        raise kind(message)

    return fail


NO_KERNEL = 'CUDA error: no kernel image is available for execution on the device\nFor debugging consider ...'


def test_operators_that_run_on_the_gpu_pass(made_gpu):
    stack.require_gpu_operators('cuda')
    stack.require_gpu_operators(torch.device('cuda:3'))


def test_a_cpu_needs_no_operators_for_gpus():
    assert stack.require_gpu_operators('cpu') is None


def test_operators_for_the_cpu_alone_are_refused(made_gpu, monkeypatch):
    monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(stack.StackError) as refusal:
        stack.require_gpu_operators('cuda:0')
    for words in ('compiled for the CPU alone', 'needs nvcc', 'FORCE_CUDA=1 pip install', 'CUDA_VISIBLE_DEVICES='):
        assert words in str(refusal.value)


@pytest.mark.parametrize('operator', ['nms', 'roi_align'])
def test_operators_for_other_gpus_are_refused(made_gpu, monkeypatch, operator):
    monkeypatch.setattr(mmcv.ops, operator, fails_with(NO_KERNEL))
    with pytest.raises(
        stack.StackError, match=r'do not run on Made-up \(compute capability 7\.5\): CUDA error: no kern'
    ):
        stack.require_gpu_operators('cuda')


def test_a_torch_for_other_gpus_is_refused(made_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'synchronize', fails_with(NO_KERNEL))
    with pytest.raises(
        stack.StackError, match=r'torch \S+ cannot compute on Made-up .*built for sm_80, sm_90\. Install'
    ):
        stack.require_gpu_operators('cuda')


def test_a_gpu_without_free_memory_is_not_taken_for_one_without_operators(made_gpu, monkeypatch):
    monkeypatch.setattr(mmcv.ops, 'roi_align', fails_with('CUDA out of memory.', torch.cuda.OutOfMemoryError))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        stack.require_gpu_operators('cuda')


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Files of a driver with one GPU, which torch cannot use."""
    (tmp_path / 'nvidia0').touch()
    monkeypatch.setattr(stack, 'DEVICES', tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)


def test_an_unused_gpu_is_told_with_its_reason(driver, monkeypatch):
    monkeypatch.setattr(torch.version, 'cuda', None)
    assert 'built without CUDA: install one with CUDA' in stack.unused_gpu()
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    assert 'with CUDA 13.0 cannot use it: `nvidia-smi` shows' in stack.unused_gpu()


@pytest.mark.parametrize('hidden', ['', '-1'])
def test_a_gpu_that_is_hidden_on_purpose_is_not_told(driver, monkeypatch, hidden):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
    assert stack.unused_gpu() is None


def test_a_gpu_that_torch_uses_or_none_is_not_told(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert stack.unused_gpu() is None
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    (tmp_path / 'nvidia0').rename(tmp_path / 'nvidiactl')
    assert stack.unused_gpu() is None

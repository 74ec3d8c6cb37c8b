"""What `make install` compiles for, with made drivers and toolkits, and when it stops instead."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / 'scripts'
sys.path.insert(0, str(SCRIPTS))

import environment  # noqa: E402
import install  # noqa: E402
from gpu_build import (  # noqa: E402
    ON_PURPOSE,
    CudaBuild,
    GpuError,
    check_toolkit,
    choose_build,
    name_of,
    serves,
    unused_gpu,
    wants_gpu,
)

ON_PURPOSE_WORDS = 'make install FORCE_CUDA=0'


@pytest.fixture
def machine(tmp_path):
    """machine(gpu, toolkit, **variables): environment variables of a machine with a GPU and a CUDA toolkit or not."""

    def make(gpu=True, toolkit=None, **variables):
        driver = tmp_path / ('driver' if gpu else 'driver-without-gpu')
        driver.mkdir(exist_ok=True)
        answer = 'echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"' if gpu else 'echo "No devices were found"; exit 6'
        write_program(driver / 'nvidia-smi', answer)
        home = tmp_path / f'toolkit{toolkit}'
        (home / 'bin').mkdir(parents=True, exist_ok=True)
        if toolkit:
            write_program(home / 'bin/nvcc', f'echo "Cuda compilation tools, release {toolkit}, V{toolkit}.1"')
            (home / 'include').mkdir(exist_ok=True)
            (home / 'include/cuda_runtime.h').touch()
        return {'PATH': f'{driver}{os.pathsep}{os.environ["PATH"]}', 'CUDA_HOME': str(home), **variables}

    return make


def write_program(path, body):
    path.write_text(f'#!/bin/sh\n{body}\n')
    path.chmod(0o755)


def facts(cuda='13.0', capabilities=((9, 0),), problem=None):
    version = '2.13.0' if cuda else '2.13.0+cpu'
    return {'version': version, 'cuda': cuda, 'capabilities': list(map(list, capabilities)), 'problem': problem}


@pytest.mark.parametrize(
    ('variables', 'wanted'),
    [
        ({}, True),
        ({'CUDA_VISIBLE_DEVICES': '0,1'}, True),
        ({'CUDA_VISIBLE_DEVICES': ''}, False),
        ({'CUDA_VISIBLE_DEVICES': '-1'}, False),
        ({'FORCE_CUDA': '0'}, False),
        ({'FORCE_CUDA': '', 'CUDA_VISIBLE_DEVICES': ''}, False),
    ],
)
def test_a_gpu_is_used_unless_it_is_hidden_or_the_cpu_is_chosen(machine, variables, wanted):
    assert wants_gpu(machine(**variables)) is wanted
    assert not wants_gpu(machine(gpu=False, **variables))


def test_a_build_for_gpus_can_be_forced_where_none_is_visible(machine):
    variables = machine(gpu=False, toolkit='13.0', FORCE_CUDA='1')
    build = choose_build(facts(capabilities=()), variables)
    assert build.toolkit == '13.0' and '8.0' in build.architectures


def test_force_cuda_is_one_or_zero(machine):
    with pytest.raises(GpuError, match="FORCE_CUDA is 'yes': set it to 1 or 0"):
        wants_gpu(machine(FORCE_CUDA='yes'))


def test_a_gpu_without_a_toolkit_stops(machine):
    with pytest.raises(GpuError) as stop:
        check_toolkit('13.0', machine())
    for words in ('no nvcc in', 'CUDA 13.0', 'apt install cuda-toolkit-13-0', 'CUDA_HOME', ON_PURPOSE_WORDS):
        assert words in str(stop.value)


def test_a_toolkit_of_another_cuda_than_torch_stops(machine):
    with pytest.raises(GpuError, match=r'is of CUDA 12.6, and torch is built with CUDA 13.0\. Install'):
        check_toolkit('13.0', machine(toolkit='12.6'))
    with pytest.raises(GpuError, match=r'is of CUDA 12.6, and torch is built with CUDA 13.0\. Install'):
        choose_build(facts(), machine(toolkit='12.6'))


def test_a_toolkit_may_be_of_another_minor_release(machine):
    check_toolkit('13.2', machine(toolkit='13.0'))
    check_toolkit(None, machine(toolkit='12.6'))


def test_without_a_gpu_or_on_purpose_no_toolkit_is_needed(machine):
    for variables in (machine(gpu=False), machine(FORCE_CUDA='0'), machine(CUDA_VISIBLE_DEVICES='')):
        check_toolkit('13.0', variables)
        assert choose_build(facts(), variables) is None


def test_the_build_is_for_all_visible_gpus(machine):
    build = choose_build(facts(capabilities=[(9, 0), (8, 0), (9, 0)]), machine(toolkit='13.0'))
    assert build == CudaBuild('13.0', '8.0;9.0+PTX')
    assert name_of(build) == 'cuda13.0-8.0_9.0+PTX' and name_of(None) == 'cpu'


def test_a_driver_that_torch_cannot_use_stops(machine):
    torch = facts(capabilities=(), problem='The NVIDIA driver on your system is too old.')
    with pytest.raises(GpuError, match=r'cannot use it: The NVIDIA driver .* too old\. Update the driver'):
        choose_build(torch, machine(toolkit='13.0'))


def test_forcing_cuda_with_a_torch_without_it_stops(machine):
    with pytest.raises(GpuError, match=r'torch 2\.13\.0\+cpu is built without CUDA\. Name an index'):
        choose_build(facts(cuda=None), machine(toolkit='13.0', FORCE_CUDA='1'))


def test_a_torch_without_cuda_beside_a_gpu_is_told(machine):
    without = facts(cuda=None, capabilities=())
    assert choose_build(without, machine(toolkit='13.0')) is None
    assert 'has a GPU, but torch 2.13.0+cpu is built without CUDA' in unused_gpu(without, machine())
    assert unused_gpu(without, machine(gpu=False)) is None
    assert unused_gpu(without, machine(FORCE_CUDA='0')) is None
    assert unused_gpu(facts(), machine()) is None


def test_an_environment_for_the_cpu_is_made_again_when_a_gpu_is_to_be_used(machine):
    built_for_gpu = name_of(CudaBuild('13.0', '9.0+PTX'))
    for variables in (machine(), machine(gpu=False), machine(FORCE_CUDA='0'), machine(FORCE_CUDA='1')):
        assert serves(built_for_gpu, variables)
        wanted = variables.get('FORCE_CUDA') == '1' or wants_gpu(variables)
        assert serves('cpu', variables) is serves(None, variables) is not wanted
    assert serves(ON_PURPOSE, machine()) and not serves(ON_PURPOSE, machine(FORCE_CUDA='1'))


def test_the_command_stops_before_it_makes_or_empties_an_environment(machine, tmp_path):
    """The whole command, on an environment whose line of OpenMMLab is another one, which would be emptied."""
    venv = tmp_path / 'venv'
    kept = venv / 'pyvenv.cfg'
    venv.mkdir()
    kept.touch()
    command = [sys.executable, SCRIPTS / 'install.py', '--venv', venv]
    variables = {**os.environ, **machine()}
    variables.pop('FORCE_CUDA', None)
    variables.pop('CUDA_VISIBLE_DEVICES', None)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == '' and [*venv.iterdir()] == [kept]
    assert done.stderr.startswith('make install: this machine is to use a GPU, but operators for it cannot be compiled')
    assert ON_PURPOSE_WORDS in done.stderr and 'Traceback' not in done.stderr


@pytest.fixture
def own_environment(tmp_path):
    """An environment whose Python is this one, with its pip."""
    made = environment.Environment(tmp_path / 'venv')
    made.python.parent.mkdir(parents=True)
    write_program(made.python, f'exec {sys.executable} "$@"')
    with made.locked():
        yield made


@pytest.mark.parametrize(
    ('requirement', 'cuda'),
    [
        ('cuda-toolkit[cublas,cudart]==13.0.3; platform_system == "Linux"', '13.0'),
        ('nvidia-cuda-runtime-cu12==12.8.90', '12.8'),
        ('nvidia-cuda-runtime-cu12 (==12.1.105)', '12.1'),
        ('nvidia-cudnn-cu13==9.20.0.48', None),
    ],
)
def test_the_cuda_of_a_torch_is_known_before_it_is_installed(own_environment, tmp_path, requirement, cuda):
    wheel = tmp_path / 'made_torch-9.9.0-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as file:
        about = 'made_torch-9.9.0.dist-info'
        file.writestr(
            f'{about}/METADATA', f'Metadata-Version: 2.1\nName: made_torch\nVersion: 9.9.0\n{needs(requirement)}'
        )
        file.writestr(f'{about}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        file.writestr(f'{about}/RECORD', '')
    assert install.cuda_of_offer(own_environment, ['--no-index', str(wheel)]) == cuda


def needs(requirement):
    return f'Requires-Dist: filelock\nRequires-Dist: {requirement}\n'


def test_a_toolkit_that_does_not_fit_stops_before_torch_is_downloaded(own_environment, machine, tmp_path, monkeypatch):
    for name, value in machine(toolkit='12.6').items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setattr(install, 'cuda_of_offer', lambda *_: '13.0')
    monkeypatch.setattr(own_environment, 'pip_install', lambda *_, **__: pytest.fail('pip was called'))
    with pytest.raises(GpuError, match='the toolkit in'):
        install.install_torch(own_environment, install.PINS / 'torch.txt', '')


def test_the_facts_of_the_installed_torch(own_environment):
    import torch

    found = own_environment.torch_facts()
    assert json.loads(json.dumps(found)) == found
    assert (found['version'], found['cuda']) == (torch.__version__, torch.version.cuda)
    assert len(found['capabilities']) == torch.cuda.device_count()

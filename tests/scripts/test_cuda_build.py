"""When the operators are compiled with CUDA, for what, and what is said when they cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'csrc'))

from cuda_build import (  # noqa: E402
    DEFAULT_ARCHITECTURES,
    CannotBuild,
    CudaBuild,
    choose_cuda_build,
    nvcc_architecture_flags,
)


@pytest.fixture
def toolkit(tmp_path):
    """toolkit(release): the folder of a CUDA toolkit with headers, whose nvcc says that it is of that release."""

    def make(release):
        nvcc = tmp_path / 'bin/nvcc'
        nvcc.parent.mkdir(exist_ok=True)
        nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {release}, V{release}.1"\n')
        nvcc.chmod(0o755)
        header = tmp_path / 'include/cuda_runtime.h'
        header.parent.mkdir(exist_ok=True)
        header.touch()
        return str(tmp_path)

    return make


def test_cuda_where_torch_has_it_and_nvcc_is_there(toolkit):
    build, why = choose_cuda_build('2.13.0', '13.2', toolkit('13.0'), [], {})
    assert build == CudaBuild('13.0', DEFAULT_ARCHITECTURES)
    assert why == 'with CUDA 13.0 for 7.5;8.0;8.6;9.0+PTX'


@pytest.mark.parametrize('environment', [{}, {'FORCE_CUDA': ''}, {'FORCE_CUDA': '0'}])
def test_the_cpu_alone_where_something_is_missing(environment, toolkit, tmp_path):
    for torch_cuda, home in ((None, toolkit('13.0')), ('13.0', None), ('13.0', str(tmp_path / 'none'))):
        build, why = choose_cuda_build('2.13.0', torch_cuda, home, [], environment)
        assert build is None and why.startswith('for the CPU alone')


def test_the_cpu_alone_where_it_is_asked_for(toolkit):
    build, why = choose_cuda_build('2.13.0', '13.0', toolkit('13.0'), [(9, 0)], {'FORCE_CUDA': '0'})
    assert build is None and why == 'for the CPU alone, since FORCE_CUDA=0'


@pytest.mark.parametrize(
    ('torch_cuda', 'release', 'words'),
    [
        (None, '13.0', 'torch 2.13.0 is built without CUDA. For GPUs, install a torch with CUDA first'),
        ('13.0', None, r'no nvcc in .*/bin, and torch 2.13.0 needs nvcc 13.0. Install that toolkit or set CUDA_HOME'),
        ('12.6', '13.0', 'nvcc is of CUDA 13.0, but torch 2.13.0 is built with CUDA 12.6, and their first numbers'),
    ],
)
def test_forced_and_impossible_names_what_is_missing(torch_cuda, release, words, toolkit, tmp_path):
    home = toolkit(release) if release else str(tmp_path)
    with pytest.raises(CannotBuild, match=words):
        choose_cuda_build('2.13.0', torch_cuda, home, [], {'FORCE_CUDA': '1'})


def test_a_toolkit_without_headers_is_not_used(toolkit, tmp_path):
    """This happens when nvcc on PATH is a script that calls the real nvcc: its folder is taken for the toolkit's."""
    home = toolkit('13.0')
    (tmp_path / 'include/cuda_runtime.h').rename(tmp_path / 'cuda_runtime.h')
    build, why = choose_cuda_build('2.13.0', '13.0', home, [], {})
    assert build is None and f'{home}/include has no cuda_runtime.h: set CUDA_HOME' in why
    (tmp_path / 'targets/x86_64-linux/include').mkdir(parents=True)
    (tmp_path / 'cuda_runtime.h').rename(tmp_path / 'targets/x86_64-linux/include/cuda_runtime.h')
    assert choose_cuda_build('2.13.0', '13.0', home, [], {})[0].toolkit == '13.0'


def test_no_toolkit_at_all_is_named():
    with pytest.raises(CannotBuild, match=r'no CUDA toolkit found, and torch 2\.13\.0 needs nvcc 13\.0'):
        choose_cuda_build('2.13.0', '13.0', None, [], {'FORCE_CUDA': '1'})


def test_force_cuda_is_one_or_zero():
    with pytest.raises(ValueError, match="FORCE_CUDA is 'yes': set it to 1 or 0"):
        choose_cuda_build('2.13.0', '13.0', None, [], {'FORCE_CUDA': 'yes'})


def test_architectures_of_the_visible_gpus_unless_they_are_named(toolkit):
    visible = [(9, 0), (8, 0), (9, 0)]
    assert choose_cuda_build('2.13.0', '13.0', toolkit('13.0'), visible, {})[0].architectures == '8.0;9.0+PTX'
    named = {'TORCH_CUDA_ARCH_LIST': '8.9'}
    assert choose_cuda_build('2.13.0', '13.0', toolkit('13.0'), visible, named)[0].architectures == '8.9'


def test_flags_of_nvcc():
    assert nvcc_architecture_flags('8.0 9.0+PTX') == [
        '-gencode=arch=compute_80,code=sm_80',
        '-gencode=arch=compute_90,code=sm_90',
        '-gencode=arch=compute_90,code=compute_90',
    ]


def test_setup_stops_where_cuda_is_forced_and_missing(tmp_path):
    """With the torch that is installed: one without CUDA, or one whose toolkit is hidden."""
    environment = {'PATH': '/usr/bin:/bin', 'FORCE_CUDA': '1', 'CUDA_HOME': str(tmp_path)}
    command = [sys.executable, '-W', 'ignore', 'setup.py', '--version']
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode != 0
    assert 'mmdf2 cannot compile its operators as FORCE_CUDA asks: ' in run.stderr

"""Whether, and for which GPUs, the operators are compiled with CUDA.

These environment variables are read, as other extensions of torch read them:

- ``FORCE_CUDA``: 1 makes a missing part an error; 0 builds for the CPU alone; if it is unset, CUDA's part is built
  where nothing is missing.
- ``TORCH_CUDA_ARCH_LIST``: the architectures; if it is unset, those of the visible GPUs, or DEFAULT_ARCHITECTURES
  where there are none.
- ``CUDA_HOME``: the toolkit's folder, for a toolkit that torch does not find by itself.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

DEFAULT_ARCHITECTURES = '7.5;8.0;8.6;9.0+PTX'
"""Turing (float32), Ampere and newer (tensor cores). GPUs that came after Hopper compile the PTX when they load it."""

DEFAULT_CUDA_HOME = '/usr/local/cuda'
"""Where toolkits are installed unless another place is named."""

NVCC_FLAGS = ['-O3', '--expt-relaxed-constexpr']


class CudaBuild(NamedTuple):
    """A build with CUDA: the toolkit's version and the value of TORCH_CUDA_ARCH_LIST."""

    toolkit: str
    architectures: str


class CannotBuild(Exception):
    """A part of a build with CUDA is missing; the message names it and the remedy."""


def choose_cuda_build(torch_version, torch_cuda, cuda_home, visible, environment=os.environ):
    """Decides whether and how to build with CUDA, from what is installed.

    Args:
        torch_version: The installed torch.
        torch_cuda: The CUDA version that torch was built with, None for a CPU build.
        cuda_home: The toolkit's folder as torch finds it, None if it finds none.
        visible: Capabilities of the visible GPUs, such as [(9, 0)].
        environment: Environment variables.

    Returns:
        tuple[CudaBuild | None, str]: The build, None for a build without CUDA, and a sentence that says why.

    Raises:
        CannotBuild: FORCE_CUDA=1 and something is missing.
        ValueError: FORCE_CUDA is neither 0 nor 1.
    """
    forced = environment.get('FORCE_CUDA', '')
    if forced not in ('', '0', '1'):
        raise ValueError(f'FORCE_CUDA is {forced!r}: set it to 1 or 0, or leave it unset')
    if forced == '0':
        return None, 'for the CPU alone, since FORCE_CUDA=0'
    try:
        toolkit = _find_toolkit(torch_version, torch_cuda, cuda_home)
    except CannotBuild as error:
        if forced == '1':
            raise
        return None, f'for the CPU alone: {error}'
    architectures = environment.get('TORCH_CUDA_ARCH_LIST') or _list_architectures(visible)
    return CudaBuild(toolkit, architectures), f'with CUDA {toolkit} for {architectures}'


def find_cuda_home(environment=os.environ):
    """The toolkit's folder, looked for where torch looks, for use before torch is there; None if there is none."""
    named = environment.get('CUDA_HOME') or environment.get('CUDA_PATH')
    if named:
        return named
    nvcc = shutil.which('nvcc', path=environment.get('PATH', ''))
    if nvcc is not None:
        return str(Path(nvcc).parent.parent)
    return DEFAULT_CUDA_HOME if Path(DEFAULT_CUDA_HOME).exists() else None


def find_toolkit(cuda_home):
    """Returns the release of a complete toolkit, such as '13.0'.

    Args:
        cuda_home: The toolkit's folder, None if none was found.

    Raises:
        CannotBuild: There is no toolkit, or it lacks nvcc or the headers; the message has no remedy.
    """
    nvcc = shutil.which('nvcc', path=str(Path(cuda_home) / 'bin')) if cuda_home else None
    if nvcc is None:
        raise CannotBuild(f'no nvcc in {cuda_home}/bin' if cuda_home else 'no CUDA toolkit found')
    said = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
    release = re.search(r'release (\d+\.\d+)', said)
    if release is None:
        raise CannotBuild(f'{nvcc} --version names no release: {said.strip()!r}')
    headers = [Path(cuda_home) / 'include', *Path(cuda_home).glob('targets/*/include')]
    if not any((folder / 'cuda_runtime.h').is_file() for folder in headers):
        raise CannotBuild(
            f'{nvcc} is of CUDA {release[1]}, but {cuda_home}/include has no cuda_runtime.h: set CUDA_HOME to the '
            'folder of the toolkit itself'
        )
    return release[1]


def _find_toolkit(torch_version, torch_cuda, cuda_home):
    if torch_cuda is None:
        raise CannotBuild(f'torch {torch_version} is built without CUDA. For GPUs, install a torch with CUDA first')
    try:
        release = find_toolkit(cuda_home)
    except CannotBuild as error:
        raise CannotBuild(
            f'{error}, and torch {torch_version} needs nvcc {torch_cuda}. Install that toolkit or set CUDA_HOME to it'
        ) from None
    if release.split('.')[0] != torch_cuda.split('.')[0]:
        raise CannotBuild(
            f'{cuda_home}/bin/nvcc is of CUDA {release}, but torch {torch_version} is built with CUDA {torch_cuda}, '
            'and their first numbers must agree. Install that toolkit or set CUDA_HOME to it'
        )
    return release


def _list_architectures(visible):
    if not visible:
        return DEFAULT_ARCHITECTURES
    return ';'.join(f'{major}.{minor}' for major, minor in sorted(set(visible))) + '+PTX'


def nvcc_architecture_flags(architectures):
    """nvcc's flags for a value of TORCH_CUDA_ARCH_LIST, such as '8.0;9.0+PTX'."""
    flags = []
    for name in architectures.replace(' ', ';').split(';'):
        number = name.removesuffix('+PTX').replace('.', '')
        flags.append(f'-gencode=arch=compute_{number},code=sm_{number}')
        if name.endswith('+PTX'):
            flags.append(f'-gencode=arch=compute_{number},code=compute_{number}')
    return flags

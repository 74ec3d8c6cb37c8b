"""For what `make install` compiles: the GPU of this machine or the CPU alone, and what is missing for the GPU.

Operators that are compiled for the CPU alone make training on a GPU fail at its first step. On a machine with a GPU,
the installation therefore stops when something is missing for it, before it downloads or compiles anything, unless the
environment variable ``FORCE_CUDA`` is 0. With ``FORCE_CUDA=1`` it compiles for GPUs where none is visible, such as on
the login node of a cluster.
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'csrc'))

from cuda_build import CannotBuild, CudaBuild, choose_cuda_build, find_cuda_home, find_toolkit

ON_PURPOSE = 'cpu on purpose'
CPU_REMEDY = 'To compile for the CPU alone on purpose: make install FORCE_CUDA=0'


class GpuError(RuntimeError):
    """The operators cannot be compiled for the GPU of this machine; the message says what to do."""


def wants_gpu(environment=os.environ) -> bool:
    """Whether to compile for GPUs: as FORCE_CUDA says; if it is unset, whether a GPU is visible."""
    forced = environment.get('FORCE_CUDA', '')
    if forced not in ('', '0', '1'):
        raise GpuError(f'FORCE_CUDA is {forced!r}: set it to 1 or 0, or leave it unset')
    return forced == '1' or (forced == '' and has_gpu(environment))


def has_gpu(environment=os.environ) -> bool:
    """Whether the driver lists a GPU and CUDA_VISIBLE_DEVICES does not hide it; torch may not be there yet."""
    if environment.get('CUDA_VISIBLE_DEVICES', '0').strip() in ('', '-1'):
        return False
    try:
        listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, timeout=60, env=dict(environment)).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.startswith(b'GPU')


def serves(device: str | None, environment=os.environ) -> bool:
    """Whether an environment whose operators were compiled for ``device`` can stay as it is.

    Args:
        device: What was noted when the environment was made: :func:`name_of` a build, or ON_PURPOSE; None if nothing
            was.
        environment: Environment variables.
    """
    if str(device).startswith('cuda') or not wants_gpu(environment):
        return True
    return device == ON_PURPOSE and environment.get('FORCE_CUDA') != '1'


def check_toolkit(torch_cuda: str | None, environment=os.environ) -> None:
    """Refuses to go on where a GPU is to be used and the CUDA toolkit to compile with is missing or does not fit.

    Args:
        torch_cuda: The CUDA version of the torch that is or will be installed; None if that is not known yet.
        environment: Environment variables.

    Raises:
        GpuError: There is no toolkit, or it is not complete or of another CUDA than torch.
    """
    if not wants_gpu(environment):
        return
    home = find_cuda_home(environment)
    try:
        release = find_toolkit(home)
    except CannotBuild as error:
        raise GpuError(_message(str(error), torch_cuda)) from error
    if torch_cuda is not None and release.split('.')[0] != torch_cuda.split('.')[0]:
        reason = f'the toolkit in {home} is of CUDA {release}, and torch is built with CUDA {torch_cuda}'
        raise GpuError(_message(reason, torch_cuda))


def choose_build(torch: dict, environment=os.environ) -> CudaBuild | None:
    """Decides how mmcv's operators are compiled, from what the installed torch sees.

    Args:
        torch: The facts of :meth:`environment.Environment.torch_facts`.
        environment: Environment variables.

    Returns:
        The build with CUDA; None for one for the CPU alone.

    Raises:
        GpuError: A GPU is to be used, and torch cannot use it or the CUDA toolkit does not fit torch.
    """
    forced = environment.get('FORCE_CUDA') == '1'
    if not wants_gpu(environment) or (torch['cuda'] is None and not forced):
        return None
    if torch['cuda'] is None:
        raise GpuError(
            f'FORCE_CUDA is 1, but torch {torch["version"]} is built without CUDA. Name an index whose torch has CUDA '
            'by TORCH_INDEX=, or leave FORCE_CUDA out'
        )
    if not torch['capabilities'] and not forced:
        raise GpuError(
            f'the driver lists a GPU, but torch {torch["version"]}, which is built with CUDA {torch["cuda"]}, cannot '
            f'use it: {torch["problem"]} Update the driver, or name an index whose torch has an older CUDA by '
            f'TORCH_INDEX=. {CPU_REMEDY}'
        )
    check_toolkit(torch['cuda'], environment)
    capabilities = [tuple(capability) for capability in torch['capabilities']]
    variables = {**environment, 'FORCE_CUDA': '1'}
    return choose_cuda_build(torch['version'], torch['cuda'], find_cuda_home(environment), capabilities, variables)[0]


def name_of(build: CudaBuild | None) -> str:
    """A name for what is compiled, which can be part of a file's name: 'cpu', or CUDA's version and architectures."""
    return f'cuda{build.toolkit}-{build.architectures.replace(" ", ";").replace(";", "_")}' if build else 'cpu'


def describe(build: CudaBuild | None) -> str:
    """What is compiled, for a message."""
    return f'GPUs of compute capability {build.architectures} (CUDA {build.toolkit})' if build else 'the CPU alone'


def unused_gpu(torch: dict, environment=os.environ) -> str | None:
    """The sentence about a GPU that a torch without CUDA leaves unused; None where that is not so or on purpose."""
    if torch['cuda'] is not None or environment.get('FORCE_CUDA') == '0' or not has_gpu(environment):
        return None
    return (
        f'this machine has a GPU, but torch {torch["version"]} is built without CUDA, so everything runs on the CPU. '
        'For the GPU: make clean-venv, then make install with TORCH_INDEX naming an index whose torch has CUDA'
    )


def _message(reason: str, torch_cuda: str | None) -> str:
    release = torch_cuda or 'X.Y'
    wanted = f'CUDA {release}' if torch_cuda else "the CUDA X.Y of torch, which pip's index decides"
    return (
        f'this machine is to use a GPU, but operators for it cannot be compiled: {reason}. Install the toolkit of '
        f'{wanted} (on Debian or Ubuntu with the packages of NVIDIA: apt install '
        f'cuda-toolkit-{release.replace(".", "-")}; with conda: conda install -c nvidia cuda-toolkit={release}; on '
        f'many clusters: module load cuda/{release}), and set CUDA_HOME to its folder if nvcc is not on PATH. '
        f'{CPU_REMEDY}'
    )

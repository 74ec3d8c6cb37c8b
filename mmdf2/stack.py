"""One check of the OpenMMLab stack, which everything but :mod:`mmdf2.ops` and the core of evaluation needs.

Two lines of distributions provide the modules ``mmengine``, ``mmcv`` and ``mmdet``: the maintained one (onedl-*) and
the original one. pip cannot choose between them, so neither is a hard requirement. A stack that is missing, too old
or half built is noticed here instead of deep inside a training run.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from pathlib import Path

# module -> (first version that works, first version that may not work)
RANGES = {'mmengine': ('0.10.7', '1.0'), 'mmcv': ('2.1.0', '3.0'), 'mmdet': ('3.3.0', '4.0')}

# Distributions that write the files of the same module; a second one overwrites the first.
DISTRIBUTIONS = {
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv', 'onedl-mmcv-lite'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
}

REMEDY = (
    'In a checkout of mmdf2 run `make install`. For another environment, which has torch, ninja, psutil, wheel and '
    'setuptools>=77,<81, run there in the checkout (or name a wheel of mmdf2 in place of the dot):\n'
    '    pip install --no-build-isolation ".[onedl]"'
)
REBUILD = (
    'To build them again: `rm -rf .venv && make install` in a checkout of mmdf2. Elsewhere:\n'
    '    pip uninstall -y {distributions}\n'
    '    {variables} pip install --no-cache-dir --no-build-isolation --no-binary :all: --no-deps {distribution}'
)
TOOLKIT = (
    'Compiling them for a GPU needs nvcc of CUDA {cuda} on PATH, or its toolkit in CUDA_HOME. With '
    'CUDA_VISIBLE_DEVICES= before it, the same command runs on the CPU.\n'
)
# Where the driver's files of a GPU are.
DEVICES = Path('/dev')


class StackError(RuntimeError):
    """The OpenMMLab stack is missing, too old, mixed or half built.

    Not an :class:`ImportError`: MMEngine's registries swallow those, and the user would only see that some class is not
    in a registry.
    """


@functools.cache
def require_stack() -> None:
    """Checks that mmengine, mmcv with its compiled operators, and mmdet are installed and fit.

    A second call costs nothing.

    Raises:
        StackError: Something is missing or does not fit; the message names everything that is wrong and the command
            that mends it.
    """
    problems = [problem for module in RANGES if (problem := _problem_of(module))]
    if problems:
        remedy = REMEDY if not any('compiled operators' in problem for problem in problems) else _rebuild_command()
        raise StackError(
            f'mmdf2 cannot use the OpenMMLab stack of {sys.executable}:\n'
            + ''.join(f'  - {problem}\n' for problem in problems)
            + remedy
        )


def require_gpu_operators(device) -> None:
    """Checks that torch's and mmcv's operators run on a GPU, by running some of them on it.

    Args:
        device: The torch device that a model is to run on, or its name. Nothing is checked for any other than a GPU of
            CUDA.

    Raises:
        StackError: The operators are compiled for the CPU alone, or not for this GPU; the message has the remedy.
    """
    import torch  # like mmcv, it may be missing when this module is imported

    device = torch.device(device)
    if device.type != 'cuda':
        return
    from mmcv.ops import get_compiling_cuda_version, nms, roi_align

    version = next(iter(installed_distributions('mmcv').values()), 'installed')
    remedy = TOOLKIT.format(cuda=torch.version.cuda) + _rebuild_command(for_gpu=True)
    if get_compiling_cuda_version() == 'not available':
        raise StackError(
            f'the model is to run on a GPU, but the operators of mmcv {version} are compiled for the CPU alone.\n'
            f'{remedy}'
        )
    if error := _failure_on(device, lambda features: features + 1):
        raise StackError(
            f'torch {torch.__version__} cannot compute on {_name_of_gpu(device)}: {_first_line(error)}; it is built '
            f'for {", ".join(torch.cuda.get_arch_list())}. Install a torch that is built for this GPU, then everything '
            'that is compiled against torch, or hide the GPU by CUDA_VISIBLE_DEVICES=.'
        ) from error
    for compute in (
        lambda features: roi_align(features, features.new_tensor([[0, 0, 0, 2, 2]]), 2),
        lambda features: nms(features.new_tensor([[0, 0, 2, 2]]), features.new_ones(1), 0.5),
    ):
        if error := _failure_on(device, compute):
            raise StackError(
                f'the operators of mmcv {version} do not run on {_name_of_gpu(device)}: {_first_line(error)}; they are '
                f'compiled with CUDA {get_compiling_cuda_version()}, perhaps for other GPUs.\n{remedy}'
            ) from error


def unused_gpu() -> str | None:
    """A sentence about a GPU of this machine that torch cannot use; None if there is none or it is hidden on purpose.

    A GPU is known by the files of NVIDIA's driver, since torch without CUDA sees none.
    """
    import torch  # it may be missing when this module is imported

    hidden = os.environ.get('CUDA_VISIBLE_DEVICES', '0').strip() in ('', '-1')
    if hidden or torch.cuda.is_available() or not any(DEVICES.glob('nvidia[0-9]*')):
        return None
    if torch.version.cuda is None:
        reason = 'is built without CUDA: install one with CUDA, then everything that is compiled against torch'
    else:
        reason = f'with CUDA {torch.version.cuda} cannot use it: `nvidia-smi` shows whether the driver is older'
    return f'This machine has a GPU, but everything runs on the CPU, because torch {torch.__version__} {reason}.'


def _failure_on(device, compute) -> RuntimeError | None:
    """The error of an operator on a (1, 1, 2, 2) map, if it has one; lack of memory is raised, as not its fault."""
    import torch  # it may be missing when this module is imported

    try:
        compute(torch.ones(1, 1, 2, 2, device=device))
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return error
    return None


def _name_of_gpu(device) -> str:
    import torch  # it may be missing when this module is imported

    major, minor = torch.cuda.get_device_capability(device)
    return f'{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})'


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')


def installed_distributions(module: str) -> dict[str, str]:
    """Names and versions of the installed distributions that provide ``module``, one of the keys of :data:`RANGES`."""
    found = {}
    for name in DISTRIBUTIONS[module]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _problem_of(module: str) -> str | None:
    lowest, limit = RANGES[module]
    wanted = f'mmdf2 needs {module} >= {lowest}, < {limit}'
    distributions = installed_distributions(module)
    if len(distributions) > 1:
        names = ' and '.join(f'{name} {version}' for name, version in distributions.items())
        return f'{module}: {names} are both installed and overwrite each other; uninstall both, then install one'
    if importlib.util.find_spec(module) is None:
        return f'{module} is not installed ({wanted})'
    # The metadata comes first, because a module that is too old for its neighbours may fail to import.
    version = next(iter(distributions.values()), None)
    if version and not _within(version, lowest, limit):
        return f'{module} is {version} ({wanted})'
    try:
        version = version or importlib.import_module(module).__version__
        if not _within(version, lowest, limit):
            return f'{module} is {version} ({wanted})'
        if module == 'mmcv':
            return _problem_of_operators(version)
        importlib.import_module(module)
    except Exception as error:  # mmdet asserts its neighbours' versions; a broken build raises OSError
        return f'{module} does not import: {type(error).__name__}: {error}'
    return None


def _problem_of_operators(version: str) -> str | None:
    """Checks mmcv's compiled extension, which is imported only when a model runs."""
    import torch  # the extension links against torch's libraries, which have to be loaded first

    if importlib.util.find_spec('mmcv._ext') is None:
        return f'mmcv is {version} without its compiled operators (mmcv-lite, or built with MMCV_WITH_OPS=0)'
    try:
        importlib.import_module('mmcv._ext')
    except (ImportError, OSError) as error:
        return f'mmcv is {version}, but its compiled operators do not load beside torch {torch.__version__}: {error}'
    return None


def _rebuild_command(for_gpu: bool = False) -> str:
    distributions = installed_distributions('mmcv')
    full = [name for name in distributions if 'lite' not in name]
    return REBUILD.format(
        distributions=' '.join(distributions) or 'mmcv',
        distribution=full[0] if full else 'onedl-mmcv',
        variables='MMCV_WITH_OPS=1 FORCE_CUDA=1' if for_gpu else 'MMCV_WITH_OPS=1',
    )


def _within(version: str, lowest: str, limit: str) -> bool:
    return _release(lowest) <= _release(version) < _release(limit)


def _release(version: str) -> tuple[int, ...]:
    """'2.1.0rc4+cpu' -> (2, 1, 0). The library packaging is not used, because it may be missing too."""
    return tuple(int(number) for number in re.findall(r'^\d+(?:\.\d+)*', version)[0].split('.'))

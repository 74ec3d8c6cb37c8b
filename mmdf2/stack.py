"""One check of the OpenMMLab stack, which everything but :mod:`mmdf2.ops` and the core of evaluation needs.

Two lines of distributions provide the modules ``mmengine``, ``mmcv`` and ``mmdet``: the maintained one (onedl-*) and
the original one. pip cannot choose between them, so neither is a hard requirement. A stack that is missing, too old
or half built is noticed here instead of deep inside a training run.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import re
import sys

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
    '    MMCV_WITH_OPS=1 pip install --no-cache-dir --no-build-isolation --no-binary :all: --no-deps {distribution}'
)


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


def _rebuild_command() -> str:
    distributions = installed_distributions('mmcv')
    full = [name for name in distributions if 'lite' not in name]
    return REBUILD.format(
        distributions=' '.join(distributions) or 'mmcv', distribution=full[0] if full else 'onedl-mmcv'
    )


def _within(version: str, lowest: str, limit: str) -> bool:
    return _release(lowest) <= _release(version) < _release(limit)


def _release(version: str) -> tuple[int, ...]:
    """'2.1.0rc4+cpu' -> (2, 1, 0). The library packaging is not used, because it may be missing too."""
    return tuple(int(number) for number in re.findall(r'^\d+(?:\.\d+)*', version)[0].split('.'))

"""Checkpoints are data: they are read without running anything that they contain."""

from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

_STATISTICS = ('min', 'max', 'current', 'mean')


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read as data."""


def load_checkpoint_file(path, map_location=None) -> dict:
    """Reads a checkpoint of MMEngine (weights, optimizer, schedulers, message hub) or a plain state dict.

    torch's ``weights_only`` reading, with exactly what MMEngine writes beside tensors let in. MMEngine 0.10.7 lets in
    nothing more than tensors, and so cannot read its own files on torch >= 2.6; the maintained line reads a file that
    needs more than it lets in once again without any guard.

    Args:
        path: A local file.
        map_location: Of ``torch.load``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: Damaged, no checkpoint, or one that asks for code to be run when it is read.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: there is no such checkpoint')
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        reason = str(error).splitlines()[-1] if 'Unsupported' not in str(error) else _unsupported(str(error))
        raise CheckpointError(
            f'{path} is not read, since it holds more than data ({reason}). Where you trust its maker, load it with '
            "torch, and save its 'state_dict' alone"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(f'{path} is no checkpoint, or damaged: {type(error).__name__}: {error}') from error


def guard_checkpoint_loading() -> None:
    """Makes MMEngine read local checkpoints with :func:`load_checkpoint_file`, for the whole process.

    That is for ``load_from``, ``resume`` and the ``Pretrained`` of an ``init_cfg``.
    """
    CheckpointLoader.register_scheme('', load_from_local, force=True)


# MMEngine's log says 'Loads checkpoint by local backend' from the 11th letter of this name on.
def load_from_local(filename, map_location=None):
    """:func:`load_checkpoint_file` as MMEngine calls it."""
    return load_checkpoint_file(filename, map_location)


def _allowed_globals() -> list:
    multiarray = np.ndarray.__reduce__(np.zeros(0))[0].__module__
    core = __import__(multiarray, fromlist=['_reconstruct', 'scalar'])
    dtypes = {type(np.dtype(name)) for name in ('bool', 'int32', 'int64', 'uint32', 'float32', 'float64')}
    names = {multiarray, 'numpy.core.multiarray', 'numpy._core.multiarray'}
    functions = [(getattr(core, name), f'{module}.{name}') for module in names for name in ('_reconstruct', 'scalar')]
    # A HistoryBuffer names its statistics by getattr, which in full would reach far beyond them.
    return [HistoryBuffer, np.ndarray, np.dtype, *dtypes, *functions, (_statistic, 'builtins.getattr')]


def _statistic(owner, name: str):
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(f'Unsupported attribute: {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def _unsupported(message: str) -> str:
    line = next(line for line in message.splitlines() if 'Unsupported' in line)
    return line[line.index('Unsupported') :].split(' was not')[0].strip()

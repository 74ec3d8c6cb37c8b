"""Checkpoints are data: they are read without executing anything that they contain."""

from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

_STATISTICS = ('min', 'max', 'current', 'mean')


class CheckpointError(RuntimeError):
    """A file that cannot be read as the checkpoint of a model, or only by executing what it contains."""


def load_checkpoint_file(path, map_location=None) -> dict:
    """Reads a checkpoint of MMEngine (weights, optimizer, schedulers, message hub) or a plain state dict.

    This is ``torch.load`` with ``weights_only=True``, which also allows exactly those objects that MMEngine writes
    beside tensors. MMEngine 0.10.7 allows tensors only, so that it cannot read its own files on torch >= 2.6. The
    maintained line of MMEngine reads a file that needs more than it allows a second time, without any guard.

    Args:
        path: A local file.
        map_location: The argument of the same name of ``torch.load``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, is not a checkpoint, or asks for code to be executed when it is read.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: there is no such checkpoint; give a file that training wrote, such as work_dirs/NAME/epoch_1.pth'
        )
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        reason = str(error).splitlines()[-1] if 'Unsupported' not in str(error) else _unsupported(str(error))
        raise CheckpointError(
            f'{path} is not read, since it holds more than data ({reason}). If you trust its author, load it with '
            "torch and save its 'state_dict' alone"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(
            f'{path} is not a checkpoint, or it is damaged ({type(error).__name__}: {error}); give a file that '
            'training wrote'
        ) from error


def load_weights(model: torch.nn.Module, checkpoint: dict, source, allow_more: bool = False) -> None:
    """Loads the weights of a checkpoint into the model that they belong to.

    Args:
        model: The model.
        checkpoint: What :func:`load_checkpoint_file` returned, or the like.
        source: The checkpoint's name in messages.
        allow_more: Whether the checkpoint may hold weights that the model does not have. It never may lack one.

    Raises:
        CheckpointError: The checkpoint is that of another model.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    # A model that was saved inside a distributed wrapper has this prefix on every name.
    weights = {name.removeprefix('module.'): value for name, value in weights.items()}
    if allow_more:
        own = model.state_dict()
        weights = {name: value for name, value in weights.items() if name in own}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first, *others = (line.strip() for line in str(error).splitlines()[1:])
        difference = first if len(first) < 200 else f'{first[:200]} ...'
        more = f' and {len(others)} more differences' if others else ''
        raise CheckpointError(
            f"{source} does not fit the config's model ({difference.rstrip('. ')}{more}); give the checkpoint and the "
            'config of one model'
        ) from error


def guard_checkpoint_loading() -> None:
    """Makes MMEngine read local checkpoints with :func:`load_checkpoint_file`, in the whole process.

    It concerns ``load_from``, ``resume`` and ``init_cfg`` of type ``Pretrained``.
    """
    CheckpointLoader.register_scheme('', load_from_local, force=True)


# MMEngine's log writes this name from its 11th letter on: 'Loads checkpoint by local backend'.
def load_from_local(filename, map_location=None):
    """:func:`load_checkpoint_file` as MMEngine calls it."""
    return load_checkpoint_file(filename, map_location)


def _allowed_globals() -> list:
    multiarray = np.ndarray.__reduce__(np.zeros(0))[0].__module__
    core = __import__(multiarray, fromlist=['_reconstruct', 'scalar'])
    dtypes = {type(np.dtype(name)) for name in ('bool', 'int32', 'int64', 'uint32', 'float32', 'float64')}
    names = {multiarray, 'numpy.core.multiarray', 'numpy._core.multiarray'}
    functions = [(getattr(core, name), f'{module}.{name}') for module in names for name in ('_reconstruct', 'scalar')]
    # A HistoryBuffer refers to its statistics by getattr. The built-in getattr would reach every attribute of every
    # allowed object, so a function that knows the statistics alone takes its place.
    return [HistoryBuffer, np.ndarray, np.dtype, *dtypes, *functions, (_statistic, 'builtins.getattr')]


def _statistic(owner, name: str):
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(f'Unsupported attribute: {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def _unsupported(message: str) -> str:
    line = next(line for line in message.splitlines() if 'Unsupported' in line)
    return line[line.index('Unsupported') :].split(' was not')[0].strip()

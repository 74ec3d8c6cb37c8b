"""Checkpoints are data: they are read without executing anything that they contain."""

import zipfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader

_STATISTICS = ('min', 'max', 'current', 'mean')
# How the files of torch.save begin: a ZIP archive, or the pickle that versions before 1.6 wrote.
_BEGINNINGS = (b'PK\x03\x04', b'\x80\x02')


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
    with open(path, 'rb') as file:
        beginning = file.read(40)
    if not beginning.startswith(_BEGINNINGS):
        found = f'begins with {beginning[:20]!r}' if beginning else 'is empty (0 bytes)'
        raise CheckpointError(
            f'{path} is not a checkpoint, or it is damaged: it {found}; if it was downloaded, download it again, else '
            'give a file that training wrote'
        )
    _refuse_compressed(path)
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        # torch's messages differ between versions. An operand that it does not know is no pickle at all.
        lines = str(error).strip().splitlines() or ['no reason given']
        reason = next((line for line in lines if 'unsupported' in line.lower()), lines[0]).strip().rstrip('.')
        if isinstance(error, UnpicklingError) and 'operand' not in reason:
            reason = reason[max(reason.lower().rfind('unsupported'), 0) :].split(' was not')[0]
            raise CheckpointError(
                f'{path} is not read, since it holds more than data ({reason}), and reading that could run any '
                "program; ask its author for a file with the 'state_dict' alone"
            ) from error
        raise CheckpointError(
            f'{path} is not a checkpoint, or it is damaged ({type(error).__name__}: {reason}); give a file that '
            'training wrote'
        ) from error
    _weights_of(checkpoint, path)
    return checkpoint


def _refuse_compressed(path: Path) -> None:
    """CheckpointError for an archive whose parts are larger than the file: a few megabytes could fill all memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # torch says what is wrong with it
        return
    size = sum(part.file_size for part in parts)
    if size > path.stat().st_size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise CheckpointError(
            f'{path} is not read, since it is a compressed archive of {size} bytes, and torch.save compresses nothing; '
            'ask its author for the file that training wrote'
        )


def load_weights(
    model: torch.nn.Module,
    checkpoint: dict,
    source,
    classes: Sequence[str] | None = None,
    other_model: bool = False,
) -> str:
    """Loads the weights of a checkpoint into the model that they belong to.

    Args:
        model: The model.
        checkpoint: What :func:`load_checkpoint_file` returned, or the like.
        source: The checkpoint's name in messages.
        classes: Names of the model's classes, in order. Those that the checkpoint names, if any, must be the same. None
            compares nothing.
        other_model: Whether the checkpoint may be that of another model, from which what fits is taken.

    Returns:
        With ``other_model``, a sentence that says how many weights were taken and which were not; else ''.

    Raises:
        CheckpointError: The checkpoint is that of another model; with ``other_model``, no weight of it fits.
    """
    weights = _weights_of(checkpoint, source)
    if other_model:
        return _load_what_fits(model, weights, source)
    _check_classes(checkpoint, source, classes)
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
    return ''


def _weights_of(checkpoint, source) -> dict:
    """The weights by name; a model that was saved inside a distributed wrapper has a prefix on every name."""
    weights = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise CheckpointError(
            f"{source} holds no weights by name but a {type(checkpoint).__name__}; give a file with a 'state_dict', "
            'such as training writes'
        )
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def _check_classes(checkpoint: dict, source, classes: Sequence[str] | None) -> None:
    """Compares the names of classes that MMEngine wrote into a checkpoint, if it did, with those of the model."""
    place: Any = checkpoint
    for key in ('meta', 'dataset_meta', 'classes'):
        place = place.get(key) if isinstance(place, dict) else None
    if classes is None or not isinstance(place, (list, tuple)):
        return
    for number, (trained, own) in enumerate(zip_longest(place, classes), start=1):
        if trained != own:
            raise CheckpointError(
                f'{source} was trained on {len(place)} classes, of which number {number} is {trained!r}, but the model '
                f'has {len(classes)}, with {own!r} there; give a checkpoint of the same classes in the same order'
            )


def _load_what_fits(model: torch.nn.Module, weights: dict, source) -> str:
    own = model.state_dict()
    fitting = _fitting(own, weights)
    if not fitting:
        raise CheckpointError(
            f"{source}: none of its {len(weights)} weights has the name and the shape of one of the model's "
            f'{len(own)}; give weights of a model that has parts in common'
        )
    model.load_state_dict({**own, **fitting})
    rest = [name for name in own if name not in fitting]
    kept = f'; {len(rest)} keep their initial values: {", ".join(rest[:5])}{", ..." * (len(rest) > 5)}' if rest else ''
    return f"{len(fitting)} of the model's {len(own)} weights are taken from {source}{kept}"


def _fitting(own: dict, weights: dict) -> dict:
    """The weights that have the name and the shape of one of ``own``."""
    return {
        name: value
        for name, value in weights.items()
        if isinstance(value, torch.Tensor) and name in own and value.shape == own[name].shape
    }


class _CheckedPretrained(PretrainedInit):
    """MMEngine's ``init_cfg`` of type Pretrained, which refuses weights none of which fits."""

    def __call__(self, module) -> None:
        checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, map_location='cpu', logger='silent')
        weights, prefix = _weights_of(checkpoint, self.checkpoint), ''
        if self.prefix is not None:
            prefix = self.prefix.rstrip('.') + '.'
            weights = {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}
        if not _fitting(module.state_dict(), weights):
            raise CheckpointError(
                f'init_cfg of {type(module).__name__}: {self.checkpoint} has no weight '
                f'{f"with the prefix {prefix!r} " if prefix else ""}that fits; give weights of this kind of module, or '
                "its 'prefix' in a whole model"
            )
        super().__call__(module)


def guard_checkpoint_loading() -> None:
    """Makes MMEngine read local checkpoints with :func:`load_checkpoint_file`, in the whole process.

    It concerns ``load_from``, ``resume`` and ``init_cfg`` of type ``Pretrained``. The last also refuses, from then on,
    weights none of which fits.
    """
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    WEIGHT_INITIALIZERS.register_module('Pretrained', force=True, module=_CheckedPretrained)


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

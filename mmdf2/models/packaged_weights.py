"""Weights in mmdf2's wheel: the name ``mmdf2://<name>`` loads them in an ``init_cfg`` of type Pretrained.

The files of ``weights/`` are in the safetensors format. Convolutions are stored as 8-bit integers with one scale per
output channel (``<name>.scale``), everything else in half precision. That is a quarter of the size, and the rounding
changes the weights less than the first step of training does.
"""

from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file
from torch import Tensor

PREFIX = 'mmdf2://'
FOLDER = Path(__file__).parent / 'weights'
SCALE = '.scale'


def pack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Packs a state dict: tensors of four dimensions become 8-bit, other floating-point tensors 16-bit."""
    packed = {}
    for name, value in weights.items():
        if value.ndim == 4:
            scale = value.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / 127
            packed[name] = (value / scale[:, None, None, None]).round().to(torch.int8)
            packed[name + SCALE] = scale.float()
        else:
            packed[name] = value.half() if value.is_floating_point() else value
    return packed


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Unpacks the result of :func:`pack` into float32; the rounding error of convolutions is at most half a scale."""
    weights = {}
    for name, value in packed.items():
        if name + SCALE in packed:
            weights[name] = value.float() * packed[name + SCALE][:, None, None, None]
        elif not name.endswith(SCALE):
            weights[name] = value.float() if value.is_floating_point() else value
    return weights


@CheckpointLoader.register_scheme(prefixes=PREFIX)
def load_from_mmdf2(filename: str, map_location=None) -> dict:
    """Reads the weights ``mmdf2://<name>`` for MMEngine.

    Args:
        filename: ``mmdf2://`` and the name of a file of ``weights/`` without its suffix.
        map_location: Device of the tensors; the CPU by default.

    Returns:
        A checkpoint with the key ``state_dict``.

    Raises:
        FileNotFoundError: mmdf2 has no weights of that name; the message lists the names that exist.
    """
    name = filename.removeprefix(PREFIX)
    known = sorted(path.stem for path in FOLDER.glob('*.safetensors'))
    if name not in known:
        raise FileNotFoundError(f'{filename}: mmdf2 has the weights {known}; name one of them, or a file')
    return {'state_dict': unpack(load_file(FOLDER / f'{name}.safetensors', device=str(map_location or 'cpu')))}

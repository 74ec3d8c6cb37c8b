"""Weights that come with mmdf2, small enough for its wheel: ``mmdf2://<name>`` in an ``init_cfg`` of type Pretrained.

A file of ``weights/`` is safetensors. Convolutions are stored as 8-bit integers with a scale for each output channel
(``<name>.scale``), everything else in half precision: a quarter of the size, and closer to the trained weights than a
first step of training takes them away again.
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
    """Small form of a state dict; tensors of four dimensions become 8-bit, other floating-point ones 16-bit."""
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
    """The state dict of :func:`pack`'s result, in float32; its rounding is at most half a scale."""
    weights = {}
    for name, value in packed.items():
        if name + SCALE in packed:
            weights[name] = value.float() * packed[name + SCALE][:, None, None, None]
        elif not name.endswith(SCALE):
            weights[name] = value.float() if value.is_floating_point() else value
    return weights


@CheckpointLoader.register_scheme(prefixes=PREFIX)
def load_from_mmdf2(filename: str, map_location=None) -> dict:
    """Reads ``mmdf2://<name>`` as MMEngine reads a checkpoint.

    Raises:
        FileNotFoundError: mmdf2 has no weights of that name; the message lists those it has.
    """
    name = filename.removeprefix(PREFIX)
    known = sorted(path.stem for path in FOLDER.glob('*.safetensors'))
    if name not in known:
        raise FileNotFoundError(f'{filename}: mmdf2 comes with the weights {known}; name one of them, or a file')
    return {'state_dict': unpack(load_file(FOLDER / f'{name}.safetensors', device=str(map_location or 'cpu')))}

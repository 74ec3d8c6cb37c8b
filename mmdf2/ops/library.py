"""The compiled library beside this file: found, checked against the running torch, loaded once.

There is no slow path in Python for a missing library: a search that silently takes 50 times as long is harder to
notice than an error.
"""

import json
import mmap
from pathlib import Path

import torch

PATH = Path(__file__).with_name('_C.abi3.so')
MARKER = b'mmdf2-build-info:'
REMEDY = (
    "Compile it for this torch, with torch and ninja installed, from the folder of mmdf2's source:\n"
    '    pip install --no-build-isolation --no-deps --force-reinstall .\n'
    'or, to use the source folder itself:\n'
    '    python setup.py build_ext --inplace'
)


def build_info(path=PATH):
    """Tells what a library was built with, read from the file without loading it.

    Args:
        path: The library's file.

    Returns:
        dict: ``torch`` (version), ``compiler``, ``flags``, ``cuda`` (the toolkit's version, None without CUDA kernels),
        ``architectures`` (of those kernels, as in TORCH_CUDA_ARCH_LIST, or None), ``path``.

    Raises:
        ImportError: The file is missing, unreadable or not a library of mmdf2.
    """
    try:
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            begin = data.find(MARKER)
            record = data[begin + len(MARKER) : data.find(b'\0', begin)] if begin >= 0 else b''
    except FileNotFoundError:
        raise ImportError(f"mmdf2's compiled operators are missing: there is no {path}.\n{REMEDY}") from None
    except (OSError, ValueError) as error:
        raise ImportError(f"mmdf2's compiled operators cannot be read from {path}: {error}.\n{REMEDY}") from error
    try:
        info = json.loads(record)
    except ValueError:
        raise ImportError(
            f'{path} holds no build record of mmdf2: it is truncated or another file.\n{REMEDY}'
        ) from None
    return {**info, 'path': str(path)}


def load(path=PATH):
    """Registers the operators of the compiled library, ``torch.ops.mmdf2.*``.

    Args:
        path: The library's file.

    Raises:
        ImportError: The file is missing, was built for another release of torch, or does not load.
    """
    built_for = build_info(path)['torch']
    # Releases differ in their C++ interface; the part after '+' (cpu, cu130) does not change it.
    if built_for.split('+')[0] != torch.__version__.split('+')[0]:
        raise ImportError(
            f'{path} was built for torch {built_for}, but torch {torch.__version__} is running, and the C++ '
            f'interface of torch differs from release to release.\n{REMEDY}'
        )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(f'{path}, built for torch {built_for}, does not load: {error}.\n{REMEDY}') from error

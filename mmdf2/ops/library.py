"""Finds the compiled library beside this file, checks it against the running torch, and loads it.

A missing library is an error and is not replaced by Python: a search that silently takes 50 times as long is harder to
notice.
"""

import hashlib
import json
import mmap
from pathlib import Path

import torch

PATH = Path(__file__).with_name('_C.abi3.so')
MARKER = b'mmdf2-build-info:'
# Present where mmdf2 is imported from its source folder, absent beside an installed wheel.
SOURCES = Path(__file__).resolve().parents[2] / 'csrc'
REMEDY = (
    'Compile it with `make install` in a checkout of mmdf2. Without make, in an environment that has torch and ninja:\n'
    '    pip install --no-build-isolation --no-deps --force-reinstall .\n'
    'or, to use the source folder without installing it:\n'
    '    python setup.py build_ext --inplace'
)


def build_info(path=PATH):
    """Tells what a library was built with. It is read from the file without loading it.

    Args:
        path: The library's file.

    Returns:
        dict: ``torch`` (version), ``compiler``, ``flags``, ``cuda`` (the toolkit's version, None without CUDA kernels),
        ``architectures`` (of those kernels, as in TORCH_CUDA_ARCH_LIST, or None), ``sources`` (see
        :func:`digest_of_sources`), ``path``.

    Raises:
        ImportError: The file is missing, cannot be read, or is not a library of mmdf2.
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


def digest_of_sources(folder=SOURCES):
    """SHA-256, hexadecimal, over the names and contents of the C++ and CUDA sources of mmdf2's ``csrc``."""
    digest = hashlib.sha256()
    for file in sorted(file for pattern in ('*.h', '*.cpp', '*.cuh', '*.cu') for file in folder.rglob(pattern)):
        digest.update(f'{file.relative_to(folder).as_posix()}\0'.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def load(path=PATH, sources=SOURCES):
    """Registers the operators of the compiled library, ``torch.ops.mmdf2.*``.

    Args:
        path: The library's file.
        sources: The folder ``csrc`` that the library must be compiled from, if that folder exists.

    Raises:
        ImportError: The file is missing, was built for another release of torch or from other sources than those
            beside it, or does not load.
    """
    info = build_info(path)
    built_for = info['torch']
    # Releases differ in their C++ interface; the part after '+' (cpu, cu130) does not change it.
    if built_for.split('+')[0] != torch.__version__.split('+')[0]:
        raise ImportError(
            f'{path} was built for torch {built_for}, but torch {torch.__version__} is running, and the C++ '
            f'interface of torch differs from release to release.\n{REMEDY}'
        )
    # Libraries built before this check existed have no record of their sources.
    if sources.is_dir() and info.get('sources') not in (None, digest_of_sources(sources)):
        raise ImportError(
            f'{path} was compiled from other sources than those in {sources}, which have changed.\n{REMEDY}'
        )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(f'{path}, built for torch {built_for}, does not load: {error}.\n{REMEDY}') from error

"""Runs csrc/cuda on the host: its own source, compiled as C++ over stand-ins for what CUDA brings.

A block's threads are fibers that switch at barriers, warp exchanges, atomics and background copies, in an order drawn
from a seed. Background copies arrive when they are waited for, and memory holds NaN before. Tensor cores cut off where
the hardware is known to. What it cannot show: speed, and races between blocks.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / 'csrc' / 'cuda'


def find_compiler():
    """Path of a C++ compiler, or None."""
    return shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')


def compile_emulation(folder, tensor_cores, flags=()):
    """Compiles the search into a library under ``folder``, with or without tensor cores; returns its path."""
    library = Path(folder) / f'emulation_{int(tensor_cores)}.so'
    flags = ['-std=c++17', '-O2', '-fPIC', '-shared', '-Wall', '-Wno-unknown-pragmas', *flags]
    defines = ['-DMMDF2_EMULATED', f'-DMMDF2_EMULATED_TENSOR_CORES={int(tensor_cores)}']
    includes = [f'-I{HERE}', f'-I{SOURCES}']
    sources = [str(path) for path in [*sorted(SOURCES.glob('*.cu')), *sorted(HERE.glob('*.cpp'))]]
    command = [find_compiler(), *flags, *defines, *includes, '-x', 'c++', *sources, '-o', str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


class EmulatedSearch:
    """Called as ``torch.ops.mmdf2.pair_topk`` is.

    Attributes:
        searched_again: Of the last call, the queries that needed the direct search.
    """

    def __init__(self, library, seed=0, multiprocessors=3):
        self._library = ctypes.CDLL(str(library))
        self._library.set_emulation(seed, multiprocessors)
        self.searched_again = None

    def __call__(self, query, gallery, weight_difference, bias_difference, k):
        """Raises ValueError where the search says that rows are not finite."""
        double = query.dtype == torch.float64
        function = self._library.search_double if double else self._library.search_float
        function.restype = ctypes.c_char_p
        arrays = [np.ascontiguousarray(x.numpy()) for x in (query, gallery, weight_difference)]
        scores = np.full((len(query), k), np.nan, arrays[0].dtype)
        indices = np.full((len(query), k), -1, np.int64)
        again = ctypes.c_int()
        bias = ctypes.c_double(0 if bias_difference is None else float(bias_difference))
        sizes = [ctypes.c_int(size) for size in (*query.shape[:1], *gallery.shape, k)]
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (*arrays, scores, indices)]
        error = function(*pointers[:3], bias, *sizes, *pointers[3:], ctypes.byref(again))
        if error is not None:
            raise ValueError(error.decode())
        self.searched_again = again.value
        return torch.from_numpy(scores), torch.from_numpy(indices)

    def expanded_scores(self, query, gallery, weight):
        """What the tiles hold before anything is chosen or scored again: (M, N) float64, up to 128 queries."""
        self._library.expanded_scores.restype = ctypes.c_char_p
        arrays = [np.ascontiguousarray(x.numpy()) for x in (query, gallery, weight)]
        scores = np.full((len(query), len(gallery)), np.nan)
        sizes = [ctypes.c_int(size) for size in (len(query), *gallery.shape)]
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (*arrays, scores)]
        error = self._library.expanded_scores(*pointers[:3], *sizes, pointers[3])
        assert error is None, error
        return scores

"""Runs csrc/cuda on the host: its own source, compiled as C++ over an emulation of what CUDA provides.

The threads of a block are fibers that switch at barriers, warp exchanges, atomics and background copies, in an order
drawn from a seed. Background copies arrive when they are waited for, and until then the memory holds NaN. Tensor cores
truncate where the hardware is known to truncate. The emulation cannot show speed, nor races between blocks.
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
    """The path of a C++ compiler, or None."""
    return shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')


def compile_emulation(folder, tensor_cores, flags=()):
    """Compiles the search, with or without tensor cores, into a library in ``folder``; returns its path."""
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
    """The emulated search, which is called like ``torch.ops.mmdf2.pair_topk``.

    Attributes:
        searched_again: Number of queries of the last call that needed the direct search.
    """

    def __init__(self, library, seed=0, multiprocessors=3):
        self._library = ctypes.CDLL(str(library))
        self._library.set_emulation(seed, multiprocessors)
        self.searched_again = None

    def __call__(self, query, gallery, weight_difference, bias_difference, k):
        """Searches; raises ValueError when the search reports rows that are not finite."""
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
        """(M, N) float64 scores in the tiles, before candidates are chosen or scored again; for up to 128 queries."""
        self._library.expanded_scores.restype = ctypes.c_char_p
        arrays = [np.ascontiguousarray(x.numpy()) for x in (query, gallery, weight)]
        scores = np.full((len(query), len(gallery)), np.nan)
        sizes = [ctypes.c_int(size) for size in (len(query), *gallery.shape)]
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (*arrays, scores)]
        error = self._library.expanded_scores(*pointers[:3], *sizes, pointers[3])
        assert error is None, error
        return scores

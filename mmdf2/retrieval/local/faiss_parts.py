"""What both kinds of indexes share: faiss itself, the places that a search can find, and the check of read arrays."""

from collections.abc import Mapping

import numpy as np


def import_faiss():
    """The module faiss, imported when the first index is built: exact galleries do without it."""
    import faiss

    return faiss


class PlaceSelector:
    """The places of an index that a search can find.

    Args:
        kept: (n,) bool, whether a place can be found.

    Attributes:
        count: Number of places that can be found.
        faiss_selector: The same for faiss's searches.
    """

    def __init__(self, kept: np.ndarray) -> None:
        self._kept, self.count = kept, int(kept.sum())
        # faiss reads the bits where they lie, so a reference to them is kept.
        self._bits = np.packbits(kept, bitorder='little')
        faiss = import_faiss()
        self.faiss_selector = faiss.IDSelectorBitmap(len(self._bits), faiss.swig_ptr(self._bits))

    def contains(self, places: np.ndarray) -> np.ndarray:
        """Whether each place of an array can be found; False for -1."""
        return (places >= 0) & self._kept[places]


def check_arrays(arrays: Mapping, expected: Mapping[str, tuple[tuple[int, ...], type]]) -> None:
    """ValueError when arrays are not those of an index, or not of the expected shapes and types."""
    if set(arrays) != set(expected):
        raise ValueError(f'the arrays are {sorted(arrays)} and should be {sorted(expected)}')
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if tuple(array.shape) != shape or array.dtype != dtype:
            raise ValueError(f'{name} should be {np.dtype(dtype)} {shape}, got {array.dtype} {tuple(array.shape)}')

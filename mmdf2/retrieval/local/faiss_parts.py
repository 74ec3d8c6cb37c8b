"""What both kinds of indexes share: faiss itself, copies, the places that a search finds, and the check of arrays."""

import copy
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from mmdf2.retrieval.similarity import InnerProductSpace, Similarity

Index = TypeVar('Index')


def import_faiss():
    """The module faiss, imported when the first index is built: exact galleries do without it."""
    import faiss

    return faiss


def variant(index: Index, **attributes) -> Index:
    """A copy of an index that shares its memory and differs in some attributes: an index itself is never changed."""
    other = copy.copy(index)
    vars(other).update(attributes)
    return other


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


def space_arrays(space: InnerProductSpace) -> dict[str, np.ndarray]:
    """What a file keeps of the space of an index: 'centre' (D,) and 'scale' (1,), float64."""
    return {'centre': space.centre, 'scale': np.array([space.scale])}


def checked_space(
    similarity: Similarity, arrays: Mapping, expected: Mapping[str, tuple[tuple[int, ...], type]]
) -> InnerProductSpace:
    """Checks the arrays of an index, and reads those of its space.

    Args:
        similarity: The learned similarity.
        arrays: The arrays; only their shapes and types are looked at, and those of the space are read.
        expected: Shape and type of each array besides those of the space.

    Raises:
        ValueError: They are not the arrays of such an index, or not of the expected shapes and types.
    """
    expected = {'centre': ((similarity.width,), np.float64), 'scale': ((1,), np.float64), **expected}
    if set(arrays) != set(expected):
        raise ValueError(f'the arrays are {sorted(arrays)} and should be {sorted(expected)}')
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if tuple(array.shape) != shape or array.dtype != dtype:
            raise ValueError(f'{name} should be {np.dtype(dtype)} {shape}, got {array.dtype} {tuple(array.shape)}')
    return InnerProductSpace(similarity, arrays['centre'][:], float(arrays['scale'][:][0]))

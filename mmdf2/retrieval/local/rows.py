"""Rows of embeddings that lie in several arrays."""

from collections.abc import Iterable, Iterator

import numpy as np

_ROWS_AT_ONCE = 16384


class ChunkedRows:
    """Arrays (n, D) of one width, read as one array without being copied together.

    Some of them may be files that are larger than the memory.

    Args:
        chunks: At least one array; empty ones are left out.
    """

    def __init__(self, chunks: Iterable[np.ndarray]) -> None:
        chunks = list(chunks)
        self.chunks = [chunk for chunk in chunks if len(chunk)] or chunks[:1]
        self.ends = np.cumsum([len(chunk) for chunk in self.chunks])
        self.shape = (int(self.ends[-1]), *self.chunks[0].shape[1:])
        self.dtype = self.chunks[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        """Rows by a slice, which may give a view, or by (m,) integers from 0 on."""
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
            chunk = int(np.searchsorted(self.ends, rows.start, side='right')) if rows else 0
            first = int(self.ends[chunk]) - len(self.chunks[chunk])
            if rows.step == 1 and rows.stop <= self.ends[chunk]:
                return self.chunks[chunk][rows.start - first : max(rows.stop, rows.start) - first]
        rows = np.asarray(rows, dtype=np.int64)
        owners = np.searchsorted(self.ends, rows, side='right')
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for chunk in np.unique(owners):
            own = owners == chunk
            found[own] = self.chunks[chunk][rows[own] - (self.ends[chunk] - len(self.chunks[chunk]))]
        return found

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All rows in one array: the chunk itself if there is only one, otherwise a copy."""
        whole = self.chunks[0] if len(self.chunks) == 1 else np.concatenate(self.chunks)
        return np.array(whole, dtype=dtype, copy=copy)

    def chunks_from(self, row: int) -> list[tuple[int, np.ndarray]]:
        """The rows from ``row`` on, as pieces of the chunks; each comes with the number of its first row."""
        found = []
        for end, chunk in zip(self.ends.tolist(), self.chunks, strict=True):
            skipped = max(row - (end - len(chunk)), 0)
            if skipped < len(chunk):
                found.append((end - len(chunk) + skipped, chunk[skipped:]))
        return found

    def contiguous_parts(self) -> Iterator[np.ndarray]:
        """All rows from the first to the last, some thousands at a time, each part contiguous in memory."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield np.ascontiguousarray(self[start : start + _ROWS_AT_ONCE])


def as_rows(array: np.ndarray | ChunkedRows) -> ChunkedRows:
    """An array as rows of one chunk, if it is not in chunks already."""
    return array if isinstance(array, ChunkedRows) else ChunkedRows([array])

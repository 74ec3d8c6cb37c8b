"""Arrays read as one, row by row, without being copied together: some of them may be files larger than the memory."""

from collections.abc import Iterable

import numpy as np


class Stacked:
    """Arrays (n, D) of one width, one below the other.

    Args:
        parts: At least one; empty ones are left out.
    """

    def __init__(self, parts: Iterable[np.ndarray]) -> None:
        parts = list(parts)
        self.parts = [part for part in parts if len(part)] or parts[:1]
        self.ends = np.cumsum([len(part) for part in self.parts])
        self.shape = (int(self.ends[-1]), *self.parts[0].shape[1:])
        self.dtype = self.parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        """Rows by a slice, which may be a view, or by (m,) integers from 0 on."""
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
            part = int(np.searchsorted(self.ends, rows.start, side='right')) if rows else 0
            first = int(self.ends[part]) - len(self.parts[part])
            if rows.step == 1 and rows.stop <= self.ends[part]:
                return self.parts[part][rows.start - first : max(rows.stop, rows.start) - first]
        rows = np.asarray(rows, dtype=np.int64)
        owners = np.searchsorted(self.ends, rows, side='right')
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for part in np.unique(owners):
            own = owners == part
            found[own] = self.parts[part][rows[own] - (self.ends[part] - len(self.parts[part]))]
        return found

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All in one array: the only part itself, or a copy."""
        whole = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        return np.array(whole, dtype=dtype, copy=copy)

    def below(self, row: int) -> list[tuple[int, np.ndarray]]:
        """The parts of the rows from one on, each with the number of its first row."""
        found = []
        for end, part in zip(self.ends.tolist(), self.parts, strict=True):
            skipped = max(row - (end - len(part)), 0)
            if skipped < len(part):
                found.append((end - len(part) + skipped, part[skipped:]))
        return found

"""The learned similarity of two embeddings, as a gallery keeps it.

The match head scores a pair by ``W (a - b)^2 + c`` with two rows, 'same' and the other (DeepFashion2, section 4). What
ranks is their difference: ``s(a, b) = sum_k w_k (a_k - b_k)^2 + bias``, with weights of either sign.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Similarity:
    """A learned similarity.

    Attributes:
        weight: (2, D) float32, class 0 is 'same'.
        bias: (2,) float32.
    """

    weight: np.ndarray
    bias: np.ndarray

    def __post_init__(self):
        weight, bias = (np.ascontiguousarray(value, dtype=np.float32) for value in (self.weight, self.bias))
        if weight.ndim != 2 or len(weight) != 2 or not weight.shape[1] or bias.shape != (2,):
            raise ValueError(
                'a similarity needs a weight of shape (2, D) and a bias of shape (2,), as the match head has them; got '
                f'{weight.shape} and {bias.shape}'
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError('weight and bias of a similarity must be finite')
        object.__setattr__(self, 'weight', weight)
        object.__setattr__(self, 'bias', bias)

    @property
    def width(self) -> int:
        """Length of the embeddings."""
        return self.weight.shape[1]

    @property
    def difference(self) -> np.ndarray:
        """(D,) float64 w, the row of 'same' minus the other."""
        return self.weight[0].astype(np.float64) - self.weight[1]

    @property
    def offset(self) -> float:
        """The score of two equal embeddings: the bias of 'same' minus the other."""
        return float(self.bias[0]) - float(self.bias[1])

    def fingerprint(self) -> str:
        """A short name of these very numbers: galleries of another model are told by it."""
        digest = hashlib.sha256(str(self.weight.shape).encode())
        digest.update(self.weight.astype('<f4').tobytes() + self.bias.astype('<f4').tobytes())
        return digest.hexdigest()[:16]

    def scores(self, queries, vectors) -> np.ndarray:
        """The direct form in double precision: what every other form is measured by.

        Args:
            queries: (M, D).
            vectors: (N, D).

        Returns:
            (M, N) float64; equal pairs have equal scores, wherever they stand.
        """
        queries, vectors = (np.asarray(value, dtype=np.float64) for value in (queries, vectors))
        # A matrix product would add the columns of some rows in another order.
        rows = [((query - vectors) ** 2 * self.difference).sum(axis=1) for query in queries]
        return np.array(rows).reshape(len(queries), len(vectors)) + self.offset

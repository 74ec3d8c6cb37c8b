"""The learned similarity of two embeddings, and the algebra that makes it fast to search.

This docstring is the one place where the algebra is derived. The compiled operators (``csrc``), their composition of
torch operators (``mmdf2.ops.composite``), the match head and the documentation refer to it.

**Direct form.** The match head scores a pair of embeddings by ``W (a - b)^2 + bias`` with two rows of weights: row 0 is
the logit of 'same', row 1 that of 'different' (DeepFashion2, Ge et al., CVPR 2019, section 4). What ranks is the
difference of the two logits,

    s(a, b) = sum_k w_k (a_k - b_k)^2 + c,    w = W[0] - W[1],    c = bias[0] - bias[1],

whose logistic function is the probability of 'same'. The weights ``w_k`` can have either sign, so ``s`` is not a
distance in general. Evaluated in double precision, this form is the reference by which every other one is judged.

**Expanded form.** With ``form(x) = sum_k w_k x_k^2``,

    s(a, b) = form(a) + form(b) - 2 sum_k (w_k a_k) b_k + c,

so the scores of all M x N pairs are one matrix product, and nothing of size M x N x D is ever stored. ``form(a)`` is
the same for all items, so it does not change the order in which a query finds them.

**Centring.** ``s`` does not change when the same vector is subtracted from ``a`` and ``b``. The expanded form does
change in its rounding errors: it subtracts large numbers from each other when the embeddings have a common offset.
Therefore a centre amid the embeddings, such as their mean, is subtracted before anything is expanded. In the following,
``a`` and ``b`` are centred.

**Error bound.** A sum of D products that is rounded with unit ``u`` errs by at most ``D u`` times the sum of the
products' absolute values, in whatever order it is added (Higham, Accuracy and Stability of Numerical Algorithms,
section 3.1). By the inequality of Cauchy and Schwarz the absolute values of all terms of the expanded form sum to at
most ``(sqrt(A) + sqrt(B))^2`` with ``A = sum_k |w_k| a_k^2`` and ``B = sum_k |w_k| b_k^2``. Rounding the centred and
weighted entries, the forms and the final additions costs at most ten more units. So the expanded form differs from the
direct one by at most ``t / (1 - t) (sqrt(A) + sqrt(B))^2`` with ``t = (D + 10) u``, and by a small term for products
that are lost below the smallest normal number. The code is ``error_bound`` in ``csrc/error_bound.h``.

**Exact top-k.** The expanded form finds somewhat more than k candidates per query, and the direct form scores them
again. If the k-th best direct score is above the expanded score of everything left out plus the bound, no item is
missing. Otherwise the query is searched again by the direct form.

**Space of inner products** (:class:`InnerProductSpace`). Since ``-2 w a b = (-2 sign(w) sqrt|w| a) (sqrt|w| b)``, the
item ``x = [sqrt|w| b, form(b)]`` and the query ``q = [-2 sign(w) sqrt|w| a, 1]`` of D + 1 numbers have

    s(a, b) = q . x + form(a) + c,

so exact search is a flat search by inner products, for weights of either sign.

**Space of distances** (:class:`DistanceSpace`). Where no weight is positive, ``s(a, b) = c - |sqrt|w| a - sqrt|w|
b|^2``: the Euclidean distance of scaled embeddings ranks as the similarity does. Otherwise let ``r`` be at least the
length of the longest item ``x`` of the space of inner products. One more column, ``sqrt(r^2 - |x|^2)`` for items and 0
for queries, gives all items the length ``r``, and then ``|q - x|^2 = |q|^2 + r^2 - 2 q . x``: the nearest item is the
one of the largest inner product. Approximate indexes that compare vectors by distances (graphs of neighbours) need this
space; over plain embeddings, or over vectors of the space of inner products, they find the wrong items.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Similarity:
    """The parameters of a learned similarity.

    Attributes:
        weight: (2, D) float32, the match head's weights; row 0 is 'same'.
        bias: (2,) float32, the match head's bias.
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
        """Length D of the embeddings."""
        return self.weight.shape[1]

    @property
    def difference(self) -> np.ndarray:
        """(D,) float64 weights ``w``: the row of 'same' minus the other one."""
        return self.weight[0].astype(np.float64) - self.weight[1]

    @property
    def offset(self) -> float:
        """The constant ``c``, which is the score of two equal embeddings: the bias of 'same' minus the other one."""
        return float(self.bias[0]) - float(self.bias[1])

    @property
    def is_distance(self) -> bool:
        """Whether no weight is positive, so that Euclidean distances of scaled embeddings rank as the similarity."""
        return bool((self.difference <= 0).all())

    def fingerprint(self) -> str:
        """A short name of exactly these numbers, by which galleries of another model are recognised."""
        digest = hashlib.sha256(str(self.weight.shape).encode())
        digest.update(self.weight.astype('<f4').tobytes() + self.bias.astype('<f4').tobytes())
        return digest.hexdigest()[:16]

    def scores(self, queries, vectors) -> np.ndarray:
        """The direct form in double precision, by which every other form is judged.

        Args:
            queries: (M, D).
            vectors: (N, D).

        Returns:
            (M, N) float64. Equal pairs have equal scores, wherever they stand.
        """
        queries, vectors = (np.asarray(value, dtype=np.float64) for value in (queries, vectors))
        # A matrix product would add the columns of some rows in another order.
        rows = [((query - vectors) ** 2 * self.difference).sum(axis=1) for query in queries]
        return np.array(rows).reshape(len(queries), len(vectors)) + self.offset


@dataclass(frozen=True, eq=False)
class InnerProductSpace:
    """Vectors of D + 1 numbers whose inner products rank as the similarity does, for weights of either sign.

    An item is ``[sqrt|w| b, scale * form(b)]`` and a query ``[-2 sign(w) sqrt|w| a, 1 / scale]``, with centred ``a``
    and ``b``. The module's docstring derives it.

    Attributes:
        similarity: The similarity.
        centre: (D,) float64, subtracted from every embedding. The gallery's mean is a good one.
        scale: Factor of the last column, chosen so that it weighs as much as the others when vectors are quantised.
    """

    similarity: Similarity
    centre: np.ndarray
    scale: float = 1.0

    @classmethod
    def fitted(cls, similarity: Similarity, vectors) -> 'InnerProductSpace':
        """The space for a sample (N, D) of the gallery: the centre is its mean, the scale follows from its spread."""
        vectors = np.asarray(vectors, dtype=np.float64)
        centre = vectors.mean(axis=0) if len(vectors) else np.zeros(similarity.width)
        moved = vectors - centre
        forms = moved**2 @ similarity.difference
        columns = (np.abs(similarity.difference) * (moved**2).mean(axis=0)).mean() if len(vectors) else 1.0
        spread = forms.std() if len(vectors) else 1.0
        return cls(similarity, centre, float(np.sqrt(columns) / spread) if spread > 0 and columns > 0 else 1.0)

    def items(self, vectors) -> np.ndarray:
        """(N, D + 1) float32 vectors of items from their embeddings (N, D)."""
        moved = np.asarray(vectors, dtype=np.float64) - self.centre
        weight = self.similarity.difference
        return np.column_stack([moved * np.sqrt(np.abs(weight)), moved**2 @ weight * self.scale]).astype(np.float32)

    def queries(self, embeddings) -> np.ndarray:
        """(M, D + 1) float32 vectors of queries from their embeddings (M, D)."""
        moved = np.asarray(embeddings, dtype=np.float64) - self.centre
        weight = self.similarity.difference
        columns = -2 * np.sign(weight) * np.sqrt(np.abs(weight)) * moved
        return np.column_stack([columns, np.full(len(moved), 1 / self.scale)]).astype(np.float32)

    def scores(self, products, embeddings) -> np.ndarray:
        """The similarity from inner products (M, k) of queries and items, and the queries' embeddings (M, D)."""
        moved = np.asarray(embeddings, dtype=np.float64) - self.centre
        return products + (moved**2 @ self.similarity.difference)[:, None] + self.similarity.offset


@dataclass(frozen=True, eq=False)
class DistanceSpace:
    """Vectors whose Euclidean distances rank as the similarity does.

    Without positive weights they have D numbers, ``sqrt|w| b``. With positive weights they have D + 2: those of the
    space of inner products and one more column, which makes all items equally long. They rank exactly as long as no
    item is longer than the radius. The module's docstring derives both.

    Attributes:
        products: The space of inner products that this one extends.
        radius: The length that all items get; None without positive weights.
    """

    products: InnerProductSpace
    radius: float | None

    @property
    def width(self) -> int:
        """Length of the vectors, D or D + 2."""
        return self.products.similarity.width + (0 if self.radius is None else 2)

    @classmethod
    def fitted(cls, similarity: Similarity, vectors) -> 'DistanceSpace':
        """The space for all of a gallery's embeddings (N, D); its radius is the length of the longest item."""
        products = InnerProductSpace.fitted(similarity, vectors)
        if similarity.is_distance:
            return cls(products, None)
        return cls(products, max(longest_item(products, vectors), 1.0))

    def items(self, vectors) -> np.ndarray:
        """(N, D) or (N, D + 2) float32 vectors of items from their embeddings (N, D).

        Raises:
            ValueError: An item is longer than the radius. The space has to be fitted again.
        """
        columns = self.products.items(vectors)
        if self.radius is None:
            return np.ascontiguousarray(columns[:, :-1])
        rest = self.radius**2 - (columns.astype(np.float64) ** 2).sum(axis=1)
        if (rest < -1e-6 * self.radius**2).any():
            longest = float(np.sqrt(self.radius**2 - rest.min()))
            raise ValueError(
                f'an item of length {longest:g} is outside the radius {self.radius:g} of the space; fit it to all items'
            )
        return np.column_stack([columns, np.sqrt(np.maximum(rest, 0))]).astype(np.float32)

    def queries(self, embeddings) -> np.ndarray:
        """(M, D) or (M, D + 2) float32 vectors of queries from their embeddings (M, D)."""
        if self.radius is None:
            moved = np.asarray(embeddings, dtype=np.float64) - self.products.centre
            return (moved * np.sqrt(np.abs(self.products.similarity.difference))).astype(np.float32)
        columns = self.products.queries(embeddings)
        return np.column_stack([columns, np.zeros(len(columns), np.float32)])

    def scores(self, squared_distances, embeddings) -> np.ndarray:
        """The similarity from squared distances (M, k) and the queries' embeddings (M, D)."""
        if self.radius is None:
            return self.products.similarity.offset - np.asarray(squared_distances, dtype=np.float64)
        lengths = (self.products.queries(embeddings).astype(np.float64) ** 2).sum(axis=1)
        products = (lengths[:, None] + self.radius**2 - squared_distances) / 2
        return self.products.scores(products, embeddings)


def longest_item(products: InnerProductSpace, vectors) -> float:
    """Length of the longest of some items in a space of inner products, from their embeddings (N, D); 0 without any."""
    return float(np.linalg.norm(products.items(vectors).astype(np.float64), axis=1).max(initial=0.0))

"""The learned similarity as an inner product or a distance of other vectors, for indexes that know only these.

With a common centre subtracted, which changes no score and saves digits,
``s(a, b) = sum w a^2 + sum w b^2 - 2 (w a) . b + offset``; the first term is the same for every item of a query.
"""

from dataclasses import dataclass

import numpy as np

from mmdf2.retrieval.similarity import Similarity


@dataclass(frozen=True, eq=False)
class InnerProductSpace:
    """Vectors whose inner products rank as the similarity does, for either sign of weights.

    An item becomes ``[sqrt|w| b, scale * sum w b^2]``, a query ``[-2 sign(w) sqrt|w| a, 1 / scale]``: D + 1 numbers.

    Attributes:
        similarity: The similarity.
        centre: (D,) float64, subtracted from every embedding; the gallery's mean is a good one.
        scale: Of the last column, so that it weighs as much as another one when vectors are quantised.
    """

    similarity: Similarity
    centre: np.ndarray
    scale: float = 1.0

    @classmethod
    def fitted(cls, similarity: Similarity, vectors) -> 'InnerProductSpace':
        """The space of a sample (N, D) of the gallery: its mean as the centre, its spread as the scale."""
        vectors = np.asarray(vectors, dtype=np.float64)
        centre = vectors.mean(axis=0) if len(vectors) else np.zeros(similarity.width)
        moved = vectors - centre
        norms = moved**2 @ similarity.difference
        columns = (np.abs(similarity.difference) * (moved**2).mean(axis=0)).mean() if len(vectors) else 1.0
        spread = norms.std() if len(vectors) else 1.0
        return cls(similarity, centre, float(np.sqrt(columns) / spread) if spread > 0 and columns > 0 else 1.0)

    def items(self, vectors) -> np.ndarray:
        """(N, D + 1) float32 from embeddings (N, D)."""
        moved = np.asarray(vectors, dtype=np.float64) - self.centre
        weight = self.similarity.difference
        return np.column_stack([moved * np.sqrt(np.abs(weight)), moved**2 @ weight * self.scale]).astype(np.float32)

    def queries(self, embeddings) -> np.ndarray:
        """(M, D + 1) float32 from embeddings (M, D)."""
        moved = np.asarray(embeddings, dtype=np.float64) - self.centre
        weight = self.similarity.difference
        columns = -2 * np.sign(weight) * np.sqrt(np.abs(weight)) * moved
        return np.column_stack([columns, np.full(len(moved), 1 / self.scale)]).astype(np.float32)

    def scores(self, products, embeddings) -> np.ndarray:
        """The similarity from inner products (M, k) of queries with items, and the queries' embeddings (M, D)."""
        moved = np.asarray(embeddings, dtype=np.float64) - self.centre
        return products + (moved**2 @ self.similarity.difference)[:, None] + self.similarity.offset


@dataclass(frozen=True, eq=False)
class DistanceSpace:
    """Vectors whose Euclidean distances rank as the similarity does.

    Without positive weights ``sqrt|w| b`` does (D numbers), for every gallery. With some, the inner product becomes a
    distance by one more column, ``sqrt(radius^2 - |x|^2)`` of items and 0 of queries (D + 2 numbers): exact as long as
    no item is longer than the radius.

    Attributes:
        products: The space of inner products.
        radius: Of the longest item; None without positive weights.
    """

    products: InnerProductSpace
    radius: float | None

    @classmethod
    def fitted(cls, similarity: Similarity, vectors) -> 'DistanceSpace':
        """The space of all of a gallery's embeddings (N, D)."""
        products = InnerProductSpace.fitted(similarity, vectors)
        if (similarity.difference <= 0).all():
            return cls(products, None)
        lengths = np.linalg.norm(products.items(vectors).astype(np.float64), axis=1)
        return cls(products, float(lengths.max(initial=1.0)))

    def items(self, vectors) -> np.ndarray:
        """(N, D) or (N, D + 2) float32 from embeddings (N, D).

        Raises:
            ValueError: An item is longer than the radius: the space has to be fitted again.
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
        """(M, D) or (M, D + 2) float32 from embeddings (M, D)."""
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

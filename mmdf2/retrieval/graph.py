"""An approximate index: a graph of neighbours by faiss (HNSW) in the space of distances, rescored by the similarity.

Over embeddings as they are, or over vectors of inner products, such graphs fail: they choose by distances, which the
learned similarity is not. ``DistanceSpace`` has distances that rank as it does, with weights of either sign.
"""

from dataclasses import dataclass

import numpy as np

from mmdf2.retrieval.reduction import DistanceSpace
from mmdf2.retrieval.similarity import Similarity


@dataclass(frozen=True)
class GraphSettings:
    """How a graph of neighbours is built and searched.

    Attributes:
        links: Of an item, in each layer but the lowest, which has twice as many.
        build_effort: Items looked at to link a new one.
        effort: Items looked at by a query.
        candidates: Items that are scored again for each that is wanted.
    """

    links: int = 32
    build_effort: int = 100
    effort: int = 384
    candidates: int = 4


class NeighbourGraph:
    """A graph over (n, D) embeddings; their places are 0 to n - 1.

    Args:
        similarity: The learned similarity.
        vectors: (n, D) float32, n >= 1.
        settings: How to build.

    Raises:
        ImportError: faiss is not installed.
    """

    def __init__(self, similarity: Similarity, vectors, settings: GraphSettings) -> None:
        import faiss

        self.settings = settings
        self.space = DistanceSpace.fitted(similarity, vectors)
        width = similarity.width + (0 if self.space.radius is None else 2)
        self._index = faiss.IndexHNSWFlat(width, settings.links)
        self._index.hnsw.efConstruction = settings.build_effort
        for start in range(0, len(vectors), 65536):
            self._index.add(self.space.items(np.asarray(vectors[start : start + 65536])))

    def search(self, queries, k: int) -> np.ndarray:
        """Finds candidates.

        Args:
            queries: (m, D).
            k: Wanted in the end.

        Returns:
            (m, c) int64 places, -1 where there are fewer.
        """
        import faiss

        wanted = k * self.settings.candidates
        effort = faiss.SearchParametersHNSW(efSearch=max(self.settings.effort, 2 * wanted))
        return self._index.search(self.space.queries(queries), wanted, params=effort)[1]

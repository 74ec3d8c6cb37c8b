"""Approximate indexes of one partition by faiss. They find candidates, which the direct form then scores again.

Two kinds are there. :class:`InvertedLists` is what galleries build by themselves. Items are grouped by k-means under
``|w|``, and a query goes to the lists whose items have the highest mean similarity: ``s(a, mean) + sum_k w_k var_k`` is
the mean of ``s(a, b)`` over a list with that mean and variance. Within the lists faiss scans the space of inner
products, with whole vectors or with a product quantiser's codes. :class:`NeighbourGraph` is a graph (HNSW) over the
space of distances. :mod:`mmdf2.retrieval.similarity` derives both spaces, and why indexes over plain embeddings fail.
"""

from dataclasses import dataclass

import numpy as np

from mmdf2.retrieval.similarity import DistanceSpace, InnerProductSpace, Similarity

_ITEMS_PER_LIST = 250
_TRAINING_POINTS_PER_LIST = 64  # items that k-means sees
_KMEANS_ITERATIONS = 8
_PROBES_PER_ROOT, _LEAST_PROBES = 4, 64
_CODEBOOK_SIZE = 256  # centroids of each part of a product quantiser, whose code is one byte
_ROWS_AT_ONCE = 65536


@dataclass(frozen=True)
class ListSettings:
    """How an index of inverted lists is built and searched.

    Attributes:
        lists: Number of lists. None for one list per 250 items, and at most four times the square root of the number of
            items, since the time of k-means grows with lists times items.
        probes: Number of lists that a query searches. None for four times the square root of the number of lists, and
            at least 64.
        code_bytes: Bytes per item in the lists, which then hold codes of a product quantiser. None for whole vectors.
        candidates: Items scored again per wanted hit. None for 4 with whole vectors and 20 with codes.
    """

    lists: int | None = None
    probes: int | None = None
    code_bytes: int | None = None
    candidates: int | None = None

    def probes_of(self, lists: int) -> int:
        """Number of lists that a query searches when there are ``lists`` of them."""
        return min(self.probes or max(round(_PROBES_PER_ROOT * lists**0.5), _LEAST_PROBES), lists)


@dataclass(frozen=True)
class GraphSettings:
    """How a graph of neighbours is built and searched.

    Attributes:
        links: Neighbours of each item in each layer; the lowest layer has twice as many.
        build_effort: Items that are compared to find the neighbours of a new one.
        effort: Items that a query is compared with.
        candidates: Items scored again per wanted hit.
    """

    links: int = 32
    build_effort: int = 100
    effort: int = 384
    candidates: int = 4


class InvertedLists:
    """Inverted lists over (n, D) embeddings, whose places are 0 to n - 1.

    Args:
        similarity: The learned similarity.
        vectors: (n, D) float32, n >= 1; may be memory-mapped.
        settings: How to build and search.
        seed: Seed of k-means and of the choice of its training points.

    Raises:
        ImportError: faiss is not installed.
        ValueError: The settings do not fit the embeddings.
    """

    def __init__(self, similarity: Similarity, vectors, settings: ListSettings, seed: int = 0) -> None:
        faiss = _import_faiss()
        self.settings = settings
        rng = np.random.default_rng(seed)
        count = len(vectors)
        lists = settings.lists or max(1, round(min(count / _ITEMS_PER_LIST, 4 * np.sqrt(count))))
        self.lists = min(lists, max(1, count // 4))
        rows = np.sort(rng.choice(count, min(count, _TRAINING_POINTS_PER_LIST * self.lists), replace=False))
        sample = np.asarray(vectors[rows])
        self.space = InnerProductSpace.fitted(similarity, sample)
        points = self.space.items(sample)
        # A product quantiser cuts vectors into equal parts, so columns of zeros are added until they are.
        self._padding = 0 if settings.code_bytes is None else -points.shape[1] % settings.code_bytes
        self._coarse = _cluster(points[:, :-1], self.lists, seed)
        # faiss does not own its quantiser, so a reference to it is kept.
        self._quantizer = faiss.IndexFlatIP(points.shape[1] + self._padding)
        self._index = self._empty_index(points, seed)
        self._means = self._fill(vectors)

    def _empty_index(self, points: np.ndarray, seed: int):
        """faiss's inverted lists without items; ``points`` train the codes."""
        faiss = _import_faiss()
        width, inner = self._quantizer.d, faiss.METRIC_INNER_PRODUCT
        # The lists of items and queries are chosen here and never by faiss, whose quantiser only has to have their
        # number.
        self._quantizer.add(np.zeros((self.lists, width), np.float32))
        if self.settings.code_bytes is None:
            index = faiss.IndexIVFFlat(self._quantizer, width, self.lists, inner)
        else:
            index = faiss.IndexIVFPQ(self._quantizer, width, self.lists, self.settings.code_bytes, 8, inner)
            index.by_residual = False
            index.pq.cp.seed = seed
            index.pq.train(self._padded(points[: _CODEBOOK_SIZE * _TRAINING_POINTS_PER_LIST]))
        index.own_fields = False
        index.is_trained = True
        return index

    def _padded(self, columns: np.ndarray) -> np.ndarray:
        """Vectors of the space of inner products with the columns of zeros that codes need."""
        return np.ascontiguousarray(np.pad(columns, ((0, 0), (0, self._padding)))) if self._padding else columns

    def _fill(self, vectors) -> np.ndarray:
        """Puts all items into their lists.

        Returns:
            (lists, D + 1) float32 vectors whose inner product with a query gives its mean similarity to a list's items.
        """
        width = vectors.shape[1]
        counts, sums = np.zeros(self.lists), np.zeros((self.lists, width))
        squares = np.zeros((self.lists, width))
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = np.asarray(vectors[start : start + _ROWS_AT_ONCE])
            columns = self.space.items(part)
            near = self._coarse.search(np.ascontiguousarray(columns[:, :-1]), 1)[1][:, 0]
            self._add(columns, np.arange(start, start + len(part)), near)
            moved = part - self.space.centre
            order = np.argsort(near, kind='stable')
            filled, first = np.unique(near[order], return_index=True)
            counts[filled] += np.diff(np.append(first, len(near)))
            sums[filled] += np.add.reduceat(moved[order], first)
            squares[filled] += np.add.reduceat(moved[order] ** 2, first)
        # The mean similarity to a list is the similarity to its mean and the weighted variance around it.
        means = sums / np.maximum(counts, 1)[:, None]
        spread = (squares / np.maximum(counts, 1)[:, None] - means**2) @ self.space.similarity.difference
        found = self.space.items(means + self.space.centre)
        # In every query the last column meets 1 / scale.
        found[:, -1] += (spread * self.space.scale).astype(np.float32)
        found[counts == 0] = 0
        found[counts == 0, -1] = -np.finfo(np.float32).max / 2
        return found

    def _add(self, columns: np.ndarray, places: np.ndarray, lists: np.ndarray) -> None:
        """Adds items under their places to the lists that were chosen for them."""
        pointer = _import_faiss().swig_ptr
        columns = self._padded(columns)
        places, lists = (np.ascontiguousarray(value, dtype=np.int64) for value in (places, lists))
        self._index.add_core(len(columns), pointer(columns), pointer(places), pointer(lists), None)

    def list_scores(self, queries) -> np.ndarray:
        """(m, lists) mean similarity of each query (m, D) and each list's items; very low for empty lists."""
        products = self.space.queries(queries) @ self._means.T
        return self.space.scores(products, queries)

    def search(self, queries, k: int, chosen=None) -> np.ndarray:
        """Finds candidates.

        Args:
            queries: (m, D).
            k: Hits wanted in the end.
            chosen: (m, probes) int64 lists that each query searches, -1 for none. By default they are those of the best
                mean similarity.

        Returns:
            (m, c) int64 places, -1 where there are fewer.
        """
        if chosen is None:
            chosen = best_columns(self.list_scores(queries), self.settings.probes_of(self.lists))
        candidates = self.settings.candidates or (4 if self.settings.code_bytes is None else 20)
        return self._search(self._padded(self.space.queries(queries)), k * candidates, chosen)

    def _search(self, columns: np.ndarray, count: int, chosen: np.ndarray) -> np.ndarray:
        faiss = _import_faiss()
        chosen = np.ascontiguousarray(chosen, dtype=np.int64)
        products, places = np.empty((len(columns), count), np.float32), np.empty((len(columns), count), np.int64)
        arrays = (columns, chosen, np.zeros(chosen.shape, np.float32), products, places)
        columns_at, chosen_at, nearness_at, products_at, places_at = map(faiss.swig_ptr, arrays)
        # The number of probes is that of this call. faiss's Python method would take the index's own.
        parameters = faiss.IVFSearchParameters(nprobe=chosen.shape[1])
        self._index.search_preassigned_c(
            len(columns), columns_at, count, chosen_at, nearness_at, products_at, places_at, False, parameters
        )
        return places


class NeighbourGraph:
    """A graph of neighbours over (n, D) embeddings, whose places are 0 to n - 1.

    Args:
        similarity: The learned similarity.
        vectors: (n, D) float32, n >= 1; may be memory-mapped.
        settings: How to build and search.

    Raises:
        ImportError: faiss is not installed.
    """

    def __init__(self, similarity: Similarity, vectors, settings: GraphSettings) -> None:
        self.settings = settings
        self.space = DistanceSpace.fitted(similarity, vectors)
        self._index = _import_faiss().IndexHNSWFlat(self.space.width, settings.links)
        self._index.hnsw.efConstruction = settings.build_effort
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            self._index.add(self.space.items(np.asarray(vectors[start : start + _ROWS_AT_ONCE])))

    def search(self, queries, k: int) -> np.ndarray:
        """Finds candidates.

        Args:
            queries: (m, D).
            k: Hits wanted in the end.

        Returns:
            (m, c) int64 places, -1 where there are fewer.
        """
        wanted = k * self.settings.candidates
        effort = _import_faiss().SearchParametersHNSW(efSearch=max(self.settings.effort, 2 * wanted))
        return self._index.search(self.space.queries(queries), wanted, params=effort)[1]


def best_columns(scores, count: int) -> np.ndarray:
    """The ``count`` columns of the highest scores in each row of (m, n), the highest first, or all n if they are fewer.

    Returns:
        (m, count) int64.
    """
    count = min(count, scores.shape[1])
    chosen = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1)
    return np.ascontiguousarray(np.take_along_axis(chosen, order, axis=1), dtype=np.int64)


def share_probes(scores: list[np.ndarray], probes: int) -> list[np.ndarray]:
    """Divides each query's probes among several indexes, whose lists are scored on the same scale.

    Args:
        scores: (m, lists) scores of each index's lists.
        probes: Number of lists, of all indexes together, that a query searches.

    Returns:
        For each index (m, p) int64 lists to search, -1 where a query searches fewer.
    """
    best = best_columns(np.concatenate(scores, axis=1), probes)
    ends = np.cumsum([columns.shape[1] for columns in scores])
    shares = []
    for begin, end in zip(ends - [columns.shape[1] for columns in scores], ends, strict=True):
        own = (best >= begin) & (best < end)
        # The lists of this index come first, in their order.
        order = np.argsort(~own, axis=1, kind='stable')[:, : max(int(own.sum(axis=1).max(initial=0)), 1)]
        lists = np.take_along_axis(np.where(own, best - begin, -1), order, axis=1)
        shares.append(np.ascontiguousarray(lists))
    return shares


def _cluster(points: np.ndarray, count: int, seed: int):
    """faiss's flat index of the ``count`` centroids that k-means finds for points (n, D) under L2."""
    faiss = _import_faiss()
    kmeans = faiss.Kmeans(points.shape[1], count, niter=_KMEANS_ITERATIONS, seed=seed, min_points_per_centroid=1)
    kmeans.train(np.ascontiguousarray(points))
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(kmeans.centroids)
    return index


def _import_faiss():
    """The module faiss, imported when the first index is built: exact galleries do without it."""
    import faiss

    return faiss

"""An approximate index: inverted lists by faiss, chosen by the learned similarity and rescored by it.

Graph and list indexes choose by distance, which the learned similarity is not where weights are positive. Here items
are grouped by k-means under ``|w|``, and a query goes to the lists in which the mean similarity is highest:
``s(a, centroid) + sum_k w_k var_k`` is the mean of ``s(a, b)`` over a list. Within them faiss scans inner products,
plain or product-quantised, and the best are left to be scored by the direct form.
"""

from dataclasses import dataclass

import numpy as np

from mmdf2.retrieval.reduction import InnerProductSpace
from mmdf2.retrieval.similarity import Similarity

_ITEMS_OF_LIST = 250
# Items that k-means sees for each list.
_TRAINING_POINTS = 64
_ITERATIONS = 8
_PROBES_OF_ROOT, _LEAST_PROBES = 4, 64


@dataclass(frozen=True)
class ListSettings:
    """How an index of inverted lists is built and searched.

    Attributes:
        lists: How many; None for one in 250 items, and at most four times the square root of the items, since k-means
            takes as long as lists times items.
        probes: Lists that a query goes to; None for four times the root of their number, and 64 at least.
        code_bytes: Bytes an item in the lists, a product quantiser's codes; None for whole vectors.
        candidates: Items that are scored again for each that is wanted; None for 4, and 20 with codes.
    """

    lists: int | None = None
    probes: int | None = None
    code_bytes: int | None = None
    candidates: int | None = None

    def probes_of(self, lists: int) -> int:
        """Lists that a query goes to, of so many."""
        return min(self.probes or max(round(_PROBES_OF_ROOT * lists**0.5), _LEAST_PROBES), lists)


class InvertedLists:
    """Inverted lists over (n, D) embeddings; their places are 0 to n - 1.

    Args:
        similarity: The learned similarity.
        vectors: (n, D) float32, n >= 1.
        settings: How to build.
        seed: Of k-means.

    Raises:
        ImportError: faiss is not installed.
        ValueError: Settings that do not fit.
    """

    def __init__(self, similarity: Similarity, vectors, settings: ListSettings, seed: int = 0) -> None:
        import faiss

        self.settings = settings
        rng = np.random.default_rng(seed)
        count = len(vectors)
        lists = settings.lists or max(1, round(min(count / _ITEMS_OF_LIST, 4 * np.sqrt(count))))
        lists = min(lists, max(1, count // 4))
        rows = np.sort(rng.choice(count, min(count, _TRAINING_POINTS * lists), replace=False))
        sample = np.asarray(vectors[rows])
        self.space = InnerProductSpace.fitted(similarity, sample)
        points = self.space.items(sample)
        kmeans = faiss.Kmeans(points.shape[1] - 1, lists, niter=_ITERATIONS, seed=seed, min_points_per_centroid=1)
        kmeans.train(np.ascontiguousarray(points[:, :-1]))
        self._coarse = faiss.IndexFlatL2(points.shape[1] - 1)
        self._coarse.add(kmeans.centroids)
        self._index = self._empty_index(faiss, points, lists, seed)
        self.lists = lists
        self._fill(vectors, lists, similarity)

    def _empty_index(self, faiss, points, lists: int, seed: int):
        width, inner = points.shape[1], faiss.METRIC_INNER_PRODUCT
        # faiss never chooses lists here; the index needs a quantiser all the same.
        quantizer = faiss.IndexFlatIP(width)
        quantizer.add(np.zeros((lists, width), np.float32))
        if self.settings.code_bytes is None:
            index = faiss.IndexIVFFlat(quantizer, width, lists, inner)
        else:
            # Columns are cut into equal parts: zeros make up the rest.
            self._padding = -width % self.settings.code_bytes
            width += self._padding
            quantizer = faiss.IndexFlatIP(width)
            quantizer.add(np.zeros((lists, width), np.float32))
            index = faiss.IndexIVFPQ(quantizer, width, lists, self.settings.code_bytes, 8, inner)
            index.by_residual = False
            index.pq.cp.seed = seed
            index.pq.train(self._padded(points[: 256 * _TRAINING_POINTS]))
        index.own_fields = False
        index.is_trained = True
        self._quantizer = quantizer  # faiss keeps no reference
        return index

    def _padded(self, columns) -> np.ndarray:
        padding = getattr(self, '_padding', 0)
        return np.ascontiguousarray(np.pad(columns, ((0, 0), (0, padding)))) if padding else columns

    def _fill(self, vectors, lists: int, similarity: Similarity, step: int = 65536) -> None:
        width = vectors.shape[1]
        counts, sums, squares = np.zeros(lists), np.zeros((lists, width)), np.zeros((lists, width))
        for start in range(0, len(vectors), step):
            part = np.asarray(vectors[start : start + step])
            columns = self.space.items(part)
            _, near = self._coarse.search(np.ascontiguousarray(columns[:, :-1]), 1)
            near = near[:, 0]
            self._add(columns, np.arange(start, start + len(part)), near)
            moved = part - self.space.centre
            order = np.argsort(near, kind='stable')
            filled, first = np.unique(near[order], return_index=True)
            counts[filled] += np.diff(np.append(first, len(near)))
            sums[filled] += np.add.reduceat(moved[order], first)
            squares[filled] += np.add.reduceat(moved[order] ** 2, first)
        # The mean similarity of a list: that of its mean, and the weighted variance around it.
        means = sums / np.maximum(counts, 1)[:, None]
        spread = (squares / np.maximum(counts, 1)[:, None] - means**2) @ similarity.difference
        self._means = self.space.items(means + self.space.centre)
        # The last column meets 1 / scale in every query.
        self._means[:, -1] += (spread * self.space.scale).astype(np.float32)
        self._means[counts == 0] = 0
        self._means[counts == 0, -1] = -np.finfo(np.float32).max / 2

    def _add(self, columns, places, near) -> None:
        import faiss

        columns = self._padded(columns)
        places, near = (np.ascontiguousarray(value, dtype=np.int64) for value in (places, near))
        self._index.add_core(len(columns), faiss.swig_ptr(columns), faiss.swig_ptr(places), faiss.swig_ptr(near), None)

    def list_scores(self, queries) -> np.ndarray:
        """(m, lists) the mean similarity of each query (m, D) and the items of each list; very low for empty lists."""
        products = self.space.queries(queries) @ self._means.T
        return self.space.scores(products, queries)

    def search(self, queries, k: int, chosen=None) -> np.ndarray:
        """Finds candidates.

        Args:
            queries: (m, D).
            k: Wanted in the end.
            chosen: (m, probes) int64 lists to look into, -1 for none; by default those of the best mean similarity.

        Returns:
            (m, c) int64 places, -1 where there are fewer.
        """
        import faiss

        if chosen is None:
            chosen = best_columns(self.list_scores(queries), self.settings.probes_of(self.lists))
        candidates = self.settings.candidates or (4 if self.settings.code_bytes is None else 20)
        return self._search(faiss, self._padded(self.space.queries(queries)), k * candidates, chosen)

    def _search(self, faiss, columns: np.ndarray, count: int, chosen: np.ndarray) -> np.ndarray:
        chosen = np.ascontiguousarray(chosen, dtype=np.int64)
        products, places = np.empty((len(columns), count), np.float32), np.empty((len(columns), count), np.int64)
        arrays = (columns, chosen, np.zeros(chosen.shape, np.float32), products, places)
        columns_at, chosen_at, nearness_at, products_at, places_at = map(faiss.swig_ptr, arrays)
        # A number of probes of this call's own: faiss's Python form knows that of the index alone.
        parameters = faiss.IVFSearchParameters(nprobe=chosen.shape[1])
        self._index.search_preassigned_c(
            len(columns), columns_at, count, chosen_at, nearness_at, products_at, places_at, False, parameters
        )
        return places


def best_columns(scores, count: int) -> np.ndarray:
    """(m, count) int64 columns of the highest scores (m, n) of each row, the highest first; all of fewer."""
    count = min(count, scores.shape[1])
    chosen = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1)
    return np.ascontiguousarray(np.take_along_axis(chosen, order, axis=1), dtype=np.int64)


def share_probes(scores: list[np.ndarray], probes: int) -> list[np.ndarray]:
    """Shares a query's probes out to several indexes, whose lists are scored alike.

    Args:
        scores: (m, lists) of each index.
        probes: Lists of all indexes that a query goes to.

    Returns:
        For each index (m, p) int64 lists, -1 where a query goes to fewer.
    """
    best = best_columns(np.concatenate(scores, axis=1), probes)
    ends = np.cumsum([columns.shape[1] for columns in scores])
    shares = []
    for begin, end in zip(ends - [columns.shape[1] for columns in scores], ends, strict=True):
        own = (best >= begin) & (best < end)
        # The lists of this index first, in their order.
        order = np.argsort(~own, axis=1, kind='stable')[:, : max(int(own.sum(axis=1).max(initial=0)), 1)]
        lists = np.take_along_axis(np.where(own, best - begin, -1), order, axis=1)
        shares.append(np.ascontiguousarray(lists))
    return shares

"""Approximate indexes of one partition by faiss. They find candidates, which the direct form then scores again.

Two kinds are there. :class:`InvertedLists` is what galleries build by themselves. Items are grouped by k-means under
``|w|``, and a query goes to the lists whose items have the highest mean similarity: ``s(a, mean) + sum_k w_k var_k`` is
the mean of ``s(a, b)`` over a list with that mean and variance. Within the lists faiss scans the space of inner
products, with whole vectors or with a product quantiser's codes. :class:`NeighbourGraph` is a graph (HNSW) over the
space of distances. :mod:`mmdf2.retrieval.similarity` derives both spaces, and why indexes over plain embeddings fail.

An index is never changed. Its method ``restricted`` gives one that shares its memory and leaves out removed items
before candidates are chosen, so that near duplicates of a removed item cannot take the places of the items behind them.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdf2.retrieval.similarity import DistanceSpace, InnerProductSpace, Similarity

_ITEMS_PER_LIST = 250
_TRAINING_POINTS_PER_LIST = 64  # items that k-means sees
_KMEANS_ITERATIONS = 8
_PROBES_PER_ROOT, _LEAST_PROBES = 4, 64
_CODEBOOK_SIZE = 256  # centroids of each part of a product quantiser, whose code is one byte
_ROWS_AT_ONCE = 65536
_MORE_EFFORT = 2  # times the average number of left-out places among those that a query of a graph meets
_LARGEST_EFFORT = 0.25  # share of a graph's places from which on it is quicker to compare all of them


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

    @property
    def least_items(self) -> int:
        """Fewest items that such an index can be built of: codes have to be learnt from some."""
        return 1 if self.code_bytes is None else _CODEBOOK_SIZE

    def candidates_of(self, k: int) -> int:
        """Number of items that are scored again for ``k`` wanted hits."""
        return k * (self.candidates or (4 if self.code_bytes is None else 20))


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

    @property
    def least_items(self) -> int:
        """Fewest items that such an index can be built of."""
        return 1


class InvertedLists:
    """Inverted lists over (n, D) embeddings, whose places are 0 to n - 1.

    Args:
        similarity: The learned similarity.
        vectors: (n, D) float32, n >= settings.least_items; may be memory-mapped.
        settings: How to build and search.
        seed: Seed of k-means and of the choice of its training points.

    Attributes:
        sizes: (lists,) int64, number of items that a search can find in each list.
        shares: (lists,) float64, those items over the items that the list was built of; 0 for a list that was empty.

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
        clusters = max(self.lists, 0 if settings.code_bytes is None else _CODEBOOK_SIZE)
        rows = np.sort(rng.choice(count, min(count, _TRAINING_POINTS_PER_LIST * clusters), replace=False))
        sample = np.asarray(vectors[rows])
        self.space = InnerProductSpace.fitted(similarity, sample)
        columns = self.space.items(sample)
        # A product quantiser cuts vectors into equal parts, so columns of zeros are added until they are.
        self._padding = 0 if settings.code_bytes is None else -columns.shape[1] % settings.code_bytes
        self._coarse = _cluster(columns[:, :-1], self.lists, seed)
        # faiss does not own its quantiser, so a reference to it is kept.
        self._quantizer = faiss.IndexFlatIP(columns.shape[1] + self._padding)
        self._index = self._empty_index(columns, seed)
        self._selector: PlaceSelector | None = None
        self._means = self._fill(vectors)
        self.sizes = np.array([self._index.get_list_size(number) for number in range(self.lists)], dtype=np.int64)
        self.shares = (self.sizes > 0).astype(np.float64)

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

    def restricted(self, kept: np.ndarray) -> 'InvertedLists':
        """The same lists without some places, which then use up neither probes nor candidates.

        Args:
            kept: (n,) bool, whether a place can be found.
        """
        index, lists = copy.copy(self), self._index.invlists
        index._selector = PlaceSelector(kept)
        sizes = [(lists.get_ids(number), lists.list_size(number)) for number in range(self.lists)]
        view = _import_faiss().rev_swig_ptr
        index.sizes = np.array([kept[view(ids, size)].sum() if size else 0 for ids, size in sizes], dtype=np.int64)
        index.shares = index.sizes / np.maximum([size for _, size in sizes], 1)
        return index

    def list_scores(self, queries) -> np.ndarray:
        """(m, lists) mean similarity of each query (m, D) and each list's items; very low for empty lists."""
        products = self.space.queries(queries) @ self._means.T
        return self.space.scores(products, queries)

    def search(self, queries, k: int, chosen: np.ndarray) -> np.ndarray:
        """Finds candidates.

        Args:
            queries: (m, D).
            k: Hits wanted in the end.
            chosen: (m, probes) int64 lists that each query searches, -1 for none; see ``share_probes``.

        Returns:
            (m, c) int64 places, -1 where there are fewer.
        """
        faiss = _import_faiss()
        columns = self._padded(self.space.queries(queries))
        count = min(self.settings.candidates_of(k), int(self.sizes.sum()))
        products, places = np.empty((len(columns), count), np.float32), np.empty((len(columns), count), np.int64)
        if not places.size:
            return places
        chosen = np.ascontiguousarray(chosen, dtype=np.int64)
        arrays = (columns, chosen, np.zeros(chosen.shape, np.float32), products, places)
        columns_at, chosen_at, nearness_at, products_at, places_at = map(faiss.swig_ptr, arrays)
        # The number of probes is that of this call. faiss's Python method would take the index's own.
        parameters = faiss.IVFSearchParameters(nprobe=chosen.shape[1])
        if self._selector is not None:
            parameters.sel = self._selector.faiss_selector
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
        self._kept = PlaceSelector(np.ones(len(vectors), bool))

    def restricted(self, kept: np.ndarray) -> 'NeighbourGraph':
        """The same graph, in which some places show the way and are never found.

        Args:
            kept: (n,) bool, whether a place can be found.
        """
        index = copy.copy(self)
        index._kept = PlaceSelector(kept)
        return index

    def search(self, queries, k: int) -> np.ndarray:
        """Finds candidates.

        Args:
            queries: (m, D).
            k: Hits wanted in the end.

        Returns:
            (m, c) int64 places, -1 where there are fewer.
        """
        columns, wanted = self.space.queries(queries), min(k * self.settings.candidates, self._kept.count)
        places = np.full((len(columns), wanted), -1)
        if not places.size:
            return places
        least = max(self.settings.effort, 2 * wanted)
        # As many more as were left out on average, and somewhat more, so that few queries have to look again.
        effort = round(least * (1 + _MORE_EFFORT * (self._index.ntotal / self._kept.count - 1)))
        left = np.arange(len(columns))
        # A query that meets many places that were left out looks further, until it has met as many others as it should.
        while len(left) and effort <= self._index.ntotal * _LARGEST_EFFORT:
            found = self._nearest(columns[left], effort)
            kept = self._kept.contains(found)
            enough = kept.sum(axis=1) >= least
            order = np.argsort(~kept[enough], axis=1, kind='stable')[:, :wanted]
            places[left[enough]] = np.take_along_axis(found[enough], order, axis=1)
            left, effort = left[~enough], 2 * effort
        if len(left):
            places[left] = self._nearest_of_all(columns[left], wanted)
        return places

    def _nearest(self, columns: np.ndarray, count: int) -> np.ndarray:
        """(m, count) places that the graph finds, those that were left out among them, by rising distance."""
        effort = _import_faiss().SearchParametersHNSW(efSearch=count)
        return self._index.search(columns, count, params=effort)[1]

    def _nearest_of_all(self, columns: np.ndarray, count: int) -> np.ndarray:
        """(m, count) nearest places that were not left out, by comparing all of them."""
        faiss = _import_faiss()
        every = faiss.downcast_index(self._index.storage)
        return every.search(columns, count, params=faiss.SearchParameters(sel=self._kept.faiss_selector))[1]


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
        faiss = _import_faiss()
        self.faiss_selector = faiss.IDSelectorBitmap(len(self._bits), faiss.swig_ptr(self._bits))

    def contains(self, places: np.ndarray) -> np.ndarray:
        """Whether each place of an array can be found; False for -1."""
        return (places >= 0) & self._kept[places]


def best_columns(scores, count: int) -> np.ndarray:
    """The ``count`` columns of the highest scores in each row of (m, n), the highest first, or all n if they are fewer.

    Returns:
        (m, count) int64.
    """
    count = min(count, scores.shape[1])
    chosen = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1)
    return np.ascontiguousarray(np.take_along_axis(chosen, order, axis=1), dtype=np.int64)


def share_probes(indexes: Sequence[InvertedLists], queries, k: int) -> list[np.ndarray]:
    """Chooses the lists that each query searches, among those of all indexes together.

    Args:
        indexes: At least one index, all of one similarity.
        queries: (m, D).
        k: Hits wanted in the end.

    Returns:
        For each index (m, p) int64 lists to search, -1 where a query searches fewer.
    """
    best = best_lists(
        scores=np.concatenate([index.list_scores(queries) for index in indexes], axis=1),
        probes=max(index.settings.probes_of(sum(index.lists for index in indexes)) for index in indexes),
        shares=np.concatenate([index.shares for index in indexes]),
        sizes=np.concatenate([index.sizes for index in indexes]),
        items=max(index.settings.candidates_of(k) for index in indexes),
    )
    return divided(best, [index.lists for index in indexes])


def best_lists(scores: np.ndarray, probes: int, shares: np.ndarray, sizes: np.ndarray, items: int) -> np.ndarray:
    """The best lists of each query, as many as it needs to meet ``probes`` whole lists and ``items`` items.

    A list of which half of the items are left counts as half a probe. So a query whose best lists have lost their items
    searches more of them, and sees as many items as it would in a new index.

    Args:
        scores: (m, lists) scores of the lists.
        probes: Number of lists that a query searches if all items are left.
        shares: (lists,) share of each list's items that are left, 0 to 1.
        sizes: (lists,) number of them.
        items: Number of items that a query searches at least. If there are not as many, it searches all lists.

    Returns:
        (m, p) int64, -1 where a query searches fewer.
    """
    scores = np.where(shares > 0, scores, -np.inf)
    # The tolerance is for sums of shares, which are rounded.
    least_share, least_items = min(probes, shares.sum()) - 1e-6, min(items, sizes.sum())
    count = min(probes, scores.shape[1])
    while True:
        best = best_columns(scores, count)
        enough = (shares[best].cumsum(axis=1) >= least_share) & (sizes[best].cumsum(axis=1) >= least_items)
        if count == scores.shape[1] or enough[:, -1].all():
            break
        count = min(2 * count, scores.shape[1])
    # A query searches its lists up to the first one that makes them enough.
    unneeded = np.column_stack([np.zeros(len(best), bool), enough[:, :-1]])
    return np.where(unneeded | (shares[best] == 0), -1, best)


def divided(best: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Divides chosen lists among several indexes.

    Args:
        best: (m, p) int64 lists, numbered through all indexes; -1 for none.
        counts: Number of lists of each index.

    Returns:
        For each index (m, q) int64 numbers of its own lists, -1 where a query searches fewer.
    """
    ends = np.cumsum(counts)
    shares = []
    for begin, end in zip(ends - counts, ends, strict=True):
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

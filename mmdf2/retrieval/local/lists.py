"""Inverted lists of one category by faiss, which find candidates; the direct form scores these again.

Items are grouped by k-means under ``|w|``, and a query goes to the lists whose items have the highest mean similarity:
``s(a, mean) + sum_k w_k var_k`` is the mean of ``s(a, b)`` over a list with that mean and variance. Within the lists
faiss scans the space of inner products, with whole vectors or with a product quantiser's codes.
:mod:`mmdf2.retrieval.similarity` derives the space, and why indexes over plain embeddings fail.

An index is never changed. Its method ``restricted`` gives one that shares its memory and leaves out removed items
before candidates are chosen, so that near duplicates of a removed item cannot take the places of the items behind them.
Its method ``arrays`` gives what a file keeps of it, and ``from_arrays`` makes the same index of that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mmdf2.retrieval.local.faiss_parts import PlaceSelector, checked_space, import_faiss, space_arrays, variant
from mmdf2.retrieval.local.rows import ChunkedRows
from mmdf2.retrieval.similarity import InnerProductSpace, Similarity

_ITEMS_PER_LIST = 250
_TRAINING_POINTS_PER_LIST = 64  # items that k-means sees
_KMEANS_ITERATIONS = 8
_PROBES_PER_ROOT, _LEAST_PROBES = 4, 64
_CODEBOOK_SIZE = 256  # centroids of each part of a product quantiser, whose code is one byte
_ROWS_AT_ONCE = 65536
_BYTES_AT_ONCE = 1 << 25


@dataclass(frozen=True)
class ListSettings:
    """How an index of inverted lists is built and searched.

    Attributes:
        lists: Number of lists. None for one list per 250 items, and at most four times the square root of the number of
            items, since the time of k-means grows with lists times items.
        probes: Number of lists that a query searches. None for as many as reach the recall that is wanted; where no
            recall is wanted, four times the square root of the number of lists, and at least 64.
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
        recall: Recall@20 that was measured on the items when the index was built, or None.
        shared_probes: Number of lists that a query searches when other categories are searched with it, or None.

    Raises:
        ImportError: faiss is not installed.
        ValueError: The settings do not fit the embeddings.
    """

    def __init__(self, similarity: Similarity, vectors, settings: ListSettings, seed: int = 0) -> None:
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
        self._make_index()
        if settings.code_bytes is not None:
            self._index.pq.cp.seed = seed
            self._index.pq.train(self._padded(columns[: _CODEBOOK_SIZE * _TRAINING_POINTS_PER_LIST]))
        self._means = self._fill(vectors, _cluster(columns[:, :-1], self.lists, seed))
        self._count_items()

    def _make_index(self) -> None:
        """Makes faiss's inverted lists, without items and without a codebook."""
        faiss = import_faiss()
        width, inner = self.space.similarity.width + 1 + self._padding, faiss.METRIC_INNER_PRODUCT
        # faiss does not own its quantiser, so a reference to it is kept. The lists of items and queries are chosen here
        # and never by faiss, whose quantiser only has to have their number.
        self._quantizer = faiss.IndexFlatIP(width)
        self._quantizer.add(np.zeros((self.lists, width), np.float32))
        if self.settings.code_bytes is None:
            self._index = faiss.IndexIVFFlat(self._quantizer, width, self.lists, inner)
        else:
            self._index = faiss.IndexIVFPQ(self._quantizer, width, self.lists, self.settings.code_bytes, 8, inner)
            self._index.by_residual = False
        self._index.own_fields = False
        self._index.is_trained = True
        self._selector: PlaceSelector | None = None
        self.recall: float | None = None
        self.shared_probes: int | None = None

    def _whole_sizes(self) -> np.ndarray:
        """(lists,) int64, number of items that each list was built of."""
        return np.array([self._index.get_list_size(number) for number in range(self.lists)], dtype=np.int64)

    def _count_items(self) -> None:
        """Finds the sizes of lists from which nothing was removed."""
        self.sizes = self._whole_sizes()
        self.shares = (self.sizes > 0).astype(np.float64)

    def _padded(self, columns: np.ndarray) -> np.ndarray:
        """Vectors of the space of inner products with the columns of zeros that codes need."""
        return np.ascontiguousarray(np.pad(columns, ((0, 0), (0, self._padding)))) if self._padding else columns

    def _fill(self, vectors, coarse) -> np.ndarray:
        """Puts all items into their lists.

        Args:
            vectors: (n, D) embeddings.
            coarse: faiss's flat index of the lists' centroids.

        Returns:
            (lists, D + 1) float32 vectors whose inner product with a query gives its mean similarity to a list's items.
        """
        width = vectors.shape[1]
        counts, sums = np.zeros(self.lists), np.zeros((self.lists, width))
        squares = np.zeros((self.lists, width))
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = np.asarray(vectors[start : start + _ROWS_AT_ONCE])
            columns = self.space.items(part)
            near = coarse.search(np.ascontiguousarray(columns[:, :-1]), 1)[1][:, 0]
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
        pointer = import_faiss().swig_ptr
        columns = self._padded(columns)
        places, lists = (np.ascontiguousarray(value, dtype=np.int64) for value in (places, lists))
        self._index.add_core(len(columns), pointer(columns), pointer(places), pointer(lists), None)

    def arrays(self) -> dict[str, np.ndarray | ChunkedRows]:
        """What a file keeps of the index, also of its removed places; some of it lies in the index's own memory.

        Returns:
            'centre' (D,) and 'scale' (1,) float64 of the space; 'means' (lists, D + 1) float32; 'sizes' (lists,) int64,
            the number of items of each list; 'places' (n,) int64, list by list; 'codes' (n, bytes) uint8 in the same
            order; with codes of a product quantiser 'centroids' (code_bytes, 256, d) float32.
        """
        faiss, lists = import_faiss(), self._index.invlists
        sizes = self._whole_sizes()
        width, view = lists.code_size, faiss.rev_swig_ptr
        filled = np.flatnonzero(sizes).tolist()
        found: dict[str, np.ndarray | ChunkedRows] = {
            **space_arrays(self.space),
            'means': self._means,
            'sizes': sizes,
            'places': ChunkedRows([view(lists.get_ids(number), int(sizes[number])) for number in filled]),
            'codes': ChunkedRows(
                [view(lists.get_codes(number), int(sizes[number]) * width).reshape(-1, width) for number in filled]
            ),
        }
        if self.settings.code_bytes is not None:
            found['centroids'] = faiss.vector_to_array(self._index.pq.centroids).reshape(
                self.settings.code_bytes, _CODEBOOK_SIZE, -1
            )
        return found

    @classmethod
    def from_arrays(cls, similarity: Similarity, settings: ListSettings, arrays: Mapping) -> 'InvertedLists':
        """The index that ``arrays`` came from, with all its places.

        Args:
            similarity: The learned similarity.
            settings: How the index was built.
            arrays: The arrays. They may be files: parts of them are read by slices, and each part once.

        Raises:
            ImportError: faiss is not installed.
            ValueError: The arrays do not fit together, or the similarity.
        """
        index = cls.__new__(cls)
        index.settings = settings
        sizes, places = arrays['sizes'][:], arrays['places'][:]
        index.lists, width = len(sizes), similarity.width + 1
        index._padding = 0 if settings.code_bytes is None else -width % settings.code_bytes
        bytes_each = settings.code_bytes or 4 * width
        expected = {
            'means': ((index.lists, width), np.float32),
            'sizes': ((index.lists,), np.int64),
            'places': ((len(places),), np.int64),
            'codes': ((len(places), bytes_each), np.uint8),
        }
        if settings.code_bytes is not None:
            each = (width + index._padding) // settings.code_bytes
            expected['centroids'] = ((settings.code_bytes, _CODEBOOK_SIZE, each), np.float32)
        index.space = checked_space(similarity, arrays, expected)
        if not len(places) or (sizes < 0).any() or sizes.sum() != len(places):
            raise ValueError(f'lists of {sizes.sum()} items do not fit {len(places)} places')
        if places.min() < 0 or places.max() >= len(places) or (np.bincount(places) != 1).any():
            raise ValueError('the places are not those from 0 on, each of them once')
        index._means = arrays['means'][:]
        index._make_index()
        index._restore_items(sizes, places, arrays['codes'])
        if settings.code_bytes is not None:
            import_faiss().copy_array_to_vector(arrays['centroids'][:].ravel(), index._index.pq.centroids)
        index._count_items()
        return index

    def _restore_items(self, sizes: np.ndarray, places: np.ndarray, codes) -> None:
        """Puts codes back into the lists that they came from, some megabytes at a time."""
        lists, pointer = self._index.invlists, import_faiss().swig_ptr
        ends = np.cumsum(sizes)
        rows_at_once = max(1, _BYTES_AT_ONCE // lists.code_size)
        first = 0
        while first < self.lists:
            begin = int(ends[first] - sizes[first])
            # As many whole lists as fit, and at least one.
            last = max(int(np.searchsorted(ends, begin + rows_at_once, side='right')), first + 1)
            part = codes[begin : int(ends[last - 1])]
            for number in range(first, last):
                size, row = int(sizes[number]), int(ends[number] - sizes[number])
                if size:
                    own = part[row - begin : row - begin + size]
                    lists.add_entries(number, size, pointer(places[row : row + size]), pointer(own))
            first = last
        self._index.ntotal = len(places)

    def restricted(self, kept: np.ndarray) -> 'InvertedLists':
        """The same lists without some places, which then use up neither probes nor candidates.

        Args:
            kept: (n,) bool, whether a place can be found.
        """
        lists, whole, view = self._index.invlists, self._whole_sizes(), import_faiss().rev_swig_ptr
        left = [
            kept[view(lists.get_ids(number), size)].sum() if size else 0 for number, size in enumerate(whole.tolist())
        ]
        sizes = np.array(left, dtype=np.int64)
        return variant(self, _selector=PlaceSelector(kept), sizes=sizes, shares=sizes / np.maximum(whole, 1))

    def with_effort(self, probes: int) -> 'InvertedLists':
        """The same lists, of which a query searches another number."""
        return variant(self, settings=replace(self.settings, probes=probes))

    def with_shared_probes(self, probes: int | None) -> 'InvertedLists':
        """The same lists, of which a query searches another number together with those of other categories."""
        return variant(self, shared_probes=probes)

    def with_recall(self, recall: float | None) -> 'InvertedLists':
        """The same lists with the recall that was measured."""
        return variant(self, recall=recall)

    @property
    def places(self) -> int:
        """Number of items that the lists were built of."""
        return self._index.ntotal

    def __str__(self) -> str:
        kind = 'whole vectors' if self.settings.code_bytes is None else f'{self.settings.code_bytes} bytes per item'
        return f'{self.lists} lists with {kind}, {self.settings.probes_of(self.lists)} of them per query'

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
        faiss = import_faiss()
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


def _cluster(points: np.ndarray, count: int, seed: int):
    """faiss's flat index of the ``count`` centroids that k-means finds for points (n, D) under L2."""
    faiss = import_faiss()
    kmeans = faiss.Kmeans(points.shape[1], count, niter=_KMEANS_ITERATIONS, seed=seed, min_points_per_centroid=1)
    kmeans.train(np.ascontiguousarray(points))
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(kmeans.centroids)
    return index

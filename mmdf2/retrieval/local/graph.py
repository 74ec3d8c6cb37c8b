"""A graph of neighbours (HNSW) of one category by faiss, over the space of distances; it finds candidates.

The direct form scores the candidates again. As with :mod:`~mmdf2.retrieval.local.lists`, an index is never changed,
``restricted`` leaves out removed items, and ``arrays`` and ``from_arrays`` write and read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmdf2.retrieval.local.faiss_parts import PlaceSelector, checked_space, import_faiss, space_arrays, variant
from mmdf2.retrieval.local.rows import ChunkedRows
from mmdf2.retrieval.similarity import DistanceSpace, Similarity

_ROWS_AT_ONCE = 65536
_MORE_EFFORT = 2  # times the average number of left-out places among those that a query of a graph meets
_LARGEST_EFFORT = 0.25  # share of a graph's places from which on it is quicker to compare all of them
_MOST_LINKS = 1024


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


class NeighbourGraph:
    """A graph of neighbours over (n, D) embeddings, whose places are 0 to n - 1.

    Args:
        similarity: The learned similarity.
        vectors: (n, D) float32, n >= 1; may be memory-mapped.
        settings: How to build and search.

    Attributes:
        recall: Recall@20 that was measured on the items when the graph was built, or None.

    Raises:
        ImportError: faiss is not installed.
    """

    def __init__(self, similarity: Similarity, vectors, settings: GraphSettings) -> None:
        self.settings = settings
        self.space = DistanceSpace.fitted(similarity, vectors)
        self._index = import_faiss().IndexHNSWFlat(self.space.width, settings.links)
        self._index.hnsw.efConstruction = settings.build_effort
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            self._index.add(self.space.items(np.asarray(vectors[start : start + _ROWS_AT_ONCE])))
        self._kept = PlaceSelector(np.ones(len(vectors), bool))
        self.recall: float | None = None

    def arrays(self) -> dict[str, np.ndarray | ChunkedRows]:
        """What a file keeps of the graph, also of its removed places; some of it lies in the graph's own memory.

        Returns:
            'centre' (D,), 'scale' (1,) and 'radius' (1,) float64 of the space, the radius 0 where there is none;
            'entry' (2,) int64, the place where searches begin and its layer; 'levels' (n,) int32, the number of layers
            of each place; 'offsets' (n + 1,) int64, where the links of each place begin; 'links' (l,) int32, the
            neighbours of each place layer by layer, -1 for none; 'vectors' (n, width) float32.
        """
        faiss, graph = import_faiss(), self._index.hnsw
        storage = faiss.downcast_index(self._index.storage)
        values = faiss.rev_swig_ptr(storage.get_xb(), self._index.ntotal * self.space.width)
        return {
            **space_arrays(self.space.products),
            'radius': np.array([self.space.radius or 0.0]),
            'entry': np.array([graph.entry_point, graph.max_level], dtype=np.int64),
            'levels': faiss.vector_to_array(graph.levels),
            'offsets': faiss.vector_to_array(graph.offsets).astype(np.int64),
            'links': faiss.vector_to_array(graph.neighbors),
            'vectors': ChunkedRows([values.reshape(-1, self.space.width)]),
        }

    @classmethod
    def from_arrays(cls, similarity: Similarity, settings: GraphSettings, arrays: Mapping) -> 'NeighbourGraph':
        """The graph that ``arrays`` came from, with all its places.

        Args:
            similarity: The learned similarity.
            settings: How the graph was built.
            arrays: The arrays. They may be files: parts of them are read by slices, and each part once.

        Raises:
            ImportError: faiss is not installed.
            ValueError: The arrays do not fit together, or the similarity, or a link leads nowhere.
        """
        levels, offsets, links = (arrays[name][:] for name in ('levels', 'offsets', 'links'))
        expected = {
            'radius': ((1,), np.float64),
            'entry': ((2,), np.int64),
            'levels': ((len(levels),), np.int32),
            'offsets': ((len(levels) + 1,), np.int64),
            'links': ((len(links),), np.int32),
            'vectors': ((len(levels), similarity.width + (0 if similarity.is_distance else 2)), np.float32),
        }
        products = checked_space(similarity, arrays, expected)
        radius = None if similarity.is_distance else float(arrays['radius'][:][0])
        if radius is not None and not radius > 0:
            raise ValueError(f'the radius must be above 0 where weights are positive, got {radius}')
        check_links(settings.links, arrays['entry'][:], levels, offsets, links)
        graph = cls.__new__(cls)
        graph.settings, graph.space = settings, DistanceSpace(products, radius)
        faiss = import_faiss()
        graph._index = faiss.IndexHNSWFlat(graph.space.width, settings.links)
        graph._index.hnsw.efConstruction = settings.build_effort
        if levels.max() >= graph._index.hnsw.cum_nneighbor_per_level.size():
            raise ValueError(f'there cannot be {levels.max()} layers of {settings.links} links')
        storage = faiss.downcast_index(graph._index.storage)
        for start in range(0, len(levels), _ROWS_AT_ONCE):
            storage.add(np.ascontiguousarray(arrays['vectors'][start : start + _ROWS_AT_ONCE]))
        graph._index.ntotal = len(levels)
        faiss.copy_array_to_vector(levels, graph._index.hnsw.levels)
        faiss.copy_array_to_vector(offsets.astype(np.uint64), graph._index.hnsw.offsets)
        faiss.copy_array_to_vector(links, graph._index.hnsw.neighbors)
        graph._index.hnsw.entry_point, graph._index.hnsw.max_level = map(int, arrays['entry'][:])
        graph._kept = PlaceSelector(np.ones(len(levels), bool))
        graph.recall = None
        return graph

    def restricted(self, kept: np.ndarray) -> 'NeighbourGraph':
        """The same graph, in which some places show the way and are never found.

        Args:
            kept: (n,) bool, whether a place can be found.
        """
        return variant(self, _kept=PlaceSelector(kept))

    def __str__(self) -> str:
        return f'a graph with {self.settings.links} links per item, {self.settings.effort} items met per query'

    def with_recall(self, recall: float | None) -> 'NeighbourGraph':
        """The same graph with the recall that was measured."""
        return variant(self, recall=recall)

    @property
    def places(self) -> int:
        """Number of items that the graph was built of."""
        return self._index.ntotal

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
        effort = import_faiss().SearchParametersHNSW(efSearch=count)
        return self._index.search(columns, count, params=effort)[1]

    def _nearest_of_all(self, columns: np.ndarray, count: int) -> np.ndarray:
        """(m, count) nearest places that were not left out, by comparing all of them."""
        faiss = import_faiss()
        every = faiss.downcast_index(self._index.storage)
        return every.search(columns, count, params=faiss.SearchParameters(sel=self._kept.faiss_selector))[1]


def check_links(most: int, entry: np.ndarray, levels: np.ndarray, offsets: np.ndarray, links: np.ndarray) -> None:
    """Checks that faiss can follow every link of a graph without leaving its memory.

    Args:
        most: Links of each place in each layer; the lowest layer has twice as many.
        entry: (2,) the place where searches begin, and its layer.
        levels: (n,) number of layers of each place.
        offsets: (n + 1,) where the links of each place begin.
        links: (l,) neighbours of each place, layer by layer, -1 for none.

    Raises:
        ValueError: The graph is not well-formed.
    """
    count, deepest = len(levels), int(entry[1])
    if not 2 <= most <= _MOST_LINKS:
        raise ValueError(f'the number of links must be 2 to {_MOST_LINKS}, got {most}')
    if not count or levels.min() < 1 or levels.max() != deepest + 1:
        raise ValueError(f'the places have to be in 1 to {deepest + 1} layers')
    if not 0 <= entry[0] < count or levels[entry[0]] != deepest + 1:
        raise ValueError(f'searches cannot begin at place {entry[0]}')
    if offsets[0] != 0 or offsets[-1] != len(links) or (np.diff(offsets) != (levels.astype(np.int64) + 1) * most).any():
        raise ValueError('the links of the places do not follow each other')
    if links.min() < -1 or links.max() >= count:
        raise ValueError(f'a link leads to a place outside 0 to {count - 1}')
    for layer in range(1, deepest + 1):
        begins = offsets[:-1][levels > layer] + (layer + 1) * most
        reached = links[begins[:, None] + np.arange(most)]
        if (levels[reached[reached >= 0]] <= layer).any():
            raise ValueError(f'a link of layer {layer} leads to a place that is not in it')

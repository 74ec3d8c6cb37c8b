"""The embedded gallery: exact search by the compiled operator, approximate search by faiss, in one process."""

import threading
from collections.abc import Iterable, Sequence

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.retrieval.folder import Stored, read_folder, write_folder
from mmdf2.retrieval.gallery import (
    Gallery,
    Hit,
    check_count,
    check_k,
    check_similarity,
    checked_categories,
    checked_embeddings,
    checked_ids,
)
from mmdf2.retrieval.items import GalleryItem, ItemTable
from mmdf2.retrieval.lists import ListSettings
from mmdf2.retrieval.partition import Partition, search_states
from mmdf2.retrieval.similarity import Similarity


class FaissGallery(Gallery):
    """A gallery in memory, or memory-mapped from its folder.

    Each category is a partition of its own, so that a search within some reads nothing else. Searches are exact until
    ``build_index``; after it what has been added since is still searched exactly. Any number of threads may search
    while one adds or removes.

    Args:
        similarity: The match head's.
        model: What tells the model apart, such as the checkpoint's name; kept in the folder.
        folder: Where ``save`` writes to; nothing is read from it.
    """

    def __init__(self, similarity: Similarity, model: str = '', folder=None) -> None:
        empty = np.zeros((0, similarity.width), np.float32)
        self._folder = folder
        self._set(
            Stored(similarity, empty, np.zeros(0, np.int64), np.zeros(NUM_CATEGORIES, int), ItemTable(), 0, model)
        )

    @classmethod
    def load(cls, folder, similarity: Similarity | None = None, verify: bool = True) -> 'FaissGallery':
        """Opens a gallery's folder.

        Args:
            folder: Made by ``save``.
            similarity: That of the model at hand; None accepts the gallery's own.
            verify: Whether to hash the files, which reads them whole.

        Raises:
            GalleryError: No gallery, a damaged one, or one of another model.
        """
        stored = read_folder(folder, verify)
        check_similarity(folder, stored.model, stored.similarity, similarity)
        gallery = cls.__new__(cls)
        gallery._set(stored)
        gallery._folder = folder
        return gallery

    def _set(self, stored: Stored) -> None:
        self.similarity, self.model = stored.similarity, stored.model
        self._items, self._next_id = stored.items, stored.next_id
        self._writing = threading.RLock()
        ends = np.cumsum(stored.counts)
        self._partitions = [
            Partition(stored.similarity, stored.vectors[begin:end], stored.ids[begin:end])
            for begin, end in zip(ends - stored.counts, ends, strict=True)
        ]

    def __len__(self) -> int:
        return sum(map(len, self._partitions))

    def add(self, embeddings, items: Sequence[GalleryItem]) -> list[int]:
        """See ``Gallery.add``."""
        with self._writing:
            return super().add(embeddings, items)

    def reserve(self, count: int) -> int:
        """See ``Gallery.reserve``; lasts with the next ``save``."""
        with self._writing:
            first = self._next_id
            self._next_id += count
            return first

    def put(self, ids: Sequence[int], embeddings, items: Sequence[GalleryItem]) -> None:
        """See ``Gallery.put``; ids below those that a category has take its index away."""
        embeddings = checked_embeddings(embeddings, self.similarity.width)
        check_count(embeddings, items)
        ids = np.array(checked_ids(ids, items), dtype=np.int64)
        labels = np.array([item.category_id - 1 for item in items], dtype=np.int64)
        with self._writing:
            old = self.present(ids.tolist())
            # Items first: what a search finds is there.
            self._items.put(ids.tolist(), items)
            if old:
                for partition in self._partitions:
                    partition.remove(sorted(old))
            self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)
            for label in np.unique(labels).tolist():
                rows = np.flatnonzero(labels == label)
                rows = rows[np.argsort(ids[rows])]
                self._partitions[label].insert(embeddings[rows], ids[rows])

    def remove(self, ids: Iterable[int]) -> int:
        """See ``Gallery.remove``."""
        ids = np.fromiter((int(number) for number in ids), dtype=np.int64)
        with self._writing:
            count = sum(partition.remove(ids) for partition in self._partitions)
            self._items.remove(ids.tolist())
        return count

    def search(self, embeddings, k: int = 20, categories: Iterable[int] | None = None) -> list[list[Hit]]:
        """See ``Gallery.search``."""
        embeddings, chosen = checked_embeddings(embeddings, self.similarity.width), checked_categories(categories)
        check_k(k)
        scores, ids = self.search_ids(embeddings, k, chosen)
        items = self._items.get(np.unique(ids[ids >= 0]).tolist())
        # An item can be removed between the two reads.
        return [
            [Hit(number, score, items[number]) for score, number in zip(line, numbers, strict=True) if number in items]
            for line, numbers in zip(scores.tolist(), ids.tolist(), strict=True)
        ]

    def search_ids(self, embeddings: np.ndarray, k: int, categories: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """As ``search`` of checked arguments, without the items: (m, k) scores and ids, -inf and -1 where fewer."""
        states = [self._partitions[category - 1].snapshot() for category in categories]
        return search_states(self.similarity, states, embeddings, k)

    def build_index(self, settings: ListSettings | None = None, least_items: int = 50_000) -> None:
        """Makes searches of large partitions approximate, to be fast where exact ones would not be.

        Args:
            settings: How; by default whole vectors in the lists.
            least_items: Partitions of fewer items stay exact.

        Raises:
            ImportError: faiss is not installed.
        """
        for partition in self._partitions:
            large = len(partition) >= max(least_items, 1)
            partition.build_index((settings or ListSettings()) if large else None)

    def partition_arrays(self, category_id: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, D) embeddings and (n,) ids of a category, not to be written to."""
        return self._partitions[category_id - 1].arrays

    def counts(self) -> dict[int, int]:
        """See ``Gallery.counts``."""
        return {category: len(partition) for category, partition in enumerate(self._partitions, start=1)}

    def items(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """See ``Gallery.items``."""
        return self._items.get(ids)

    def embeddings(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """See ``Gallery.embeddings``."""
        ids, found = np.array(sorted(set(ids)), dtype=np.int64), {}
        for partition in self._partitions:
            vectors, numbers = partition.arrays
            rows = np.flatnonzero(np.isin(numbers, ids))
            found.update(zip(numbers[rows].tolist(), np.array(vectors[rows]), strict=True))
        return found

    def present(self, ids: Iterable[int]) -> set[int]:
        """See ``Gallery.present``."""
        ids = np.array(sorted(set(ids)), dtype=np.int64)
        numbers = [partition.arrays[1] for partition in self._partitions]
        return {number for part in numbers for number in part[np.isin(part, ids)].tolist()}

    def ids_where(self, name: str, values: Iterable) -> list[int]:
        """See ``Gallery.ids_where``."""
        return self._items.ids_where(name, values)

    def save(self, folder=None) -> None:
        """Writes the gallery into a folder, in place of what was there; a kill leaves the old one or the new one.

        Args:
            folder: Where to; None for the folder that it was loaded from or last saved to.

        Raises:
            GalleryError: The folder holds other things.
            ValueError: No folder, and it came from none.
        """
        folder = folder if folder is not None else self._folder
        if folder is None:
            raise ValueError('this gallery came from no folder: give one to save it in')
        with self._writing:
            parts = [partition.arrays for partition in self._partitions]
            vectors, ids = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            counts = np.array([len(part) for _, part in parts])
            write_folder(folder, Stored(self.similarity, vectors, ids, counts, self._items, self._next_id, self.model))
            self._folder = folder

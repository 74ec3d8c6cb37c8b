"""The gallery in this process: exact search by the compiled operator, approximate search by faiss."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.retrieval.calibration import Calibration
from mmdf2.retrieval.gallery import (
    Gallery,
    GalleryError,
    Hit,
    check_count,
    check_k,
    check_similarity,
    checked_categories,
    checked_embeddings,
    checked_ids,
)
from mmdf2.retrieval.items import GalleryItem, ItemTable
from mmdf2.retrieval.local.folder import GalleryContent, read_folder, saved_state, write_folder, writing
from mmdf2.retrieval.local.graph import GraphSettings
from mmdf2.retrieval.local.lists import InvertedLists, ListSettings
from mmdf2.retrieval.local.partition import Partition, search_partitions
from mmdf2.retrieval.local.rows import ChunkedRows
from mmdf2.retrieval.local.tuning import shared_probes, tuned
from mmdf2.retrieval.similarity import Similarity

_LOGGER = logging.getLogger(__name__)
_WHOLE_VECTORS = 4_000_000  # most items of a category whose index holds whole vectors, a second time beside the file
_CODE_BYTES = 64


class FaissGallery(Gallery):
    """A gallery in memory, or memory-mapped from its folder.

    Each category is a partition of its own, so that a search within some categories reads nothing else. Searches are
    exact until ``build_index``; after it, items added since are still searched exactly, and removed ones are left out
    before candidates are chosen. When many were added or removed, a warning asks for a new index. Any number of threads
    may search while one adds or removes.

    Args:
        similarity: The match head's similarity.
        model: What identifies the model, such as the checkpoint's name; it is kept in the folder.
        folder: Where ``save`` writes to by default; nothing is read from it.
    """

    def __init__(self, similarity: Similarity, model: str = '', folder=None) -> None:
        self._folder, self._reads_index = folder, True
        self._writing = threading.RLock()
        self._set(
            GalleryContent(
                similarity=similarity,
                model=model,
                vectors=np.zeros((0, similarity.width), np.float32),
                ids=np.zeros(0, np.int64),
                counts=np.zeros(NUM_CATEGORIES, int),
                items=ItemTable(),
                next_id=0,
            )
        )

    @classmethod
    def load(
        cls, folder, similarity: Similarity | None = None, verify: bool = True, index: bool = True
    ) -> 'FaissGallery':
        """Opens a gallery's folder.

        Args:
            folder: The folder that ``save`` wrote.
            similarity: The similarity of the model at hand; None accepts the gallery's own.
            verify: Whether to check the files' hashes, which reads them whole.
            index: Whether to read the indexes, if there are some. Without them searches are exact, and the next
                ``save`` drops them.

        Raises:
            GalleryError: There is no gallery, it is damaged, or it was built with another model.
        """
        content = read_folder(folder, verify, index)
        check_similarity(folder, content.model, content.similarity, similarity)
        gallery = cls.__new__(cls)
        gallery._writing = threading.RLock()
        gallery._set(content)
        gallery._folder, gallery._reads_index = folder, index
        return gallery

    def _set(self, content: GalleryContent) -> None:
        self.similarity, self.model = content.similarity, content.model
        self._calibration = content.calibration
        self._items, self._next_id = content.items, content.next_id
        self._saved, self._unsaved = content.saved, False
        ends = np.cumsum(content.counts)
        self._partitions = [
            Partition(
                content.similarity, content.vectors[begin:end], content.ids[begin:end], content.indexes.get(category)
            )
            for category, begin, end in zip(range(1, NUM_CATEGORIES + 1), ends - content.counts, ends, strict=True)
        ]

    def __len__(self) -> int:
        return sum(map(len, self._partitions))

    def add(self, embeddings, items: Sequence[GalleryItem]) -> list[int]:
        """See ``Gallery.add``."""
        with self._writing:
            return super().add(embeddings, items)

    def reserve(self, count: int) -> int:
        """See ``Gallery.reserve``. The reservation is kept on disk by the next ``save``."""
        with self._writing:
            first = self._next_id
            self._next_id += count
            self._unsaved = True
            return first

    def put(self, ids: Sequence[int], embeddings, items: Sequence[GalleryItem]) -> None:
        """See ``Gallery.put``.

        Ids below the largest one of their category take the category's index away, which a warning says.
        """
        embeddings = checked_embeddings(embeddings, self.similarity.width)
        check_count(embeddings, items)
        numbers = np.array(checked_ids(ids, items), dtype=np.int64)
        labels = np.array([item.category_id - 1 for item in items], dtype=np.int64)
        with self._change():
            old = self.present(numbers.tolist())
            # The items first, so that whatever a search finds has its item.
            self._items.put(numbers.tolist(), items)
            if old:
                for partition in self._partitions:
                    partition.remove(sorted(old))
            self._next_id = max(self._next_id, int(numbers.max(initial=-1)) + 1)
            for label in np.unique(labels).tolist():
                rows = np.flatnonzero(labels == label)
                rows = rows[np.argsort(numbers[rows])]
                self._partitions[label].insert(embeddings[rows], numbers[rows])

    def remove(self, ids: Iterable[int]) -> int:
        """See ``Gallery.remove``."""
        ids = np.fromiter((int(number) for number in ids), dtype=np.int64)
        with self._change():
            count = sum(partition.remove(ids) for partition in self._partitions)
            self._items.remove(ids.tolist())
        return count

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """One writer at a time, who is told of indexes that the change takes away or makes slow."""
        with self._writing:
            self._unsaved = True
            before = [partition.state for partition in self._partitions]
            yield
            for category, (old, partition) in enumerate(zip(before, self._partitions, strict=True), start=1):
                new = partition.state
                if old.index is not None and new.index is None:
                    _LOGGER.warning(
                        'category %d has no index any more, since items were put between others: its searches are '
                        'exact until build_index()',
                        category,
                    )
                elif new.is_outdated and not old.is_outdated:
                    _LOGGER.warning(
                        'the index of category %d was built of %d items, of which %d are left, and %d items were added '
                        'since: build_index() makes its searches fast again',
                        category,
                        len(new.rows),
                        new.tail,
                        len(new.ids) - new.tail,
                    )

    @property
    def calibration(self) -> Calibration | None:
        """See ``Gallery.calibration``."""
        return self._calibration

    def set_calibration(self, calibration: Calibration | None) -> None:
        """See ``Gallery.set_calibration``."""
        with self._writing:
            self._calibration, self._unsaved = calibration, True

    def indexed(self) -> dict[int, str]:
        """See ``Gallery.indexed``."""
        states = [partition.state for partition in self._partitions]
        return {
            category: f'{state.index}; built of {len(state.rows)} items' + _said(state.index.recall)
            for category, state in enumerate(states, start=1)
            if state.index is not None
        }

    def outdated_indexes(self) -> list[int]:
        """category_ids whose index ``build_index`` should build again.

        Since such an index was built, at least half as many items were removed and added as it was built of. Searches
        still find what they found before, but they take longer.
        """
        return [category for category, part in enumerate(self._partitions, start=1) if part.state.is_outdated]

    def search(self, embeddings, k: int = 20, categories: Iterable[int] | None = None) -> list[list[Hit]]:
        """See ``Gallery.search``."""
        embeddings, chosen = checked_embeddings(embeddings, self.similarity.width), checked_categories(categories)
        check_k(k)
        hits = self._hits(embeddings, k, chosen)
        if hits is None:
            with self._writing:
                hits = self._hits(embeddings, k, chosen)
        assert hits is not None, 'nobody removes items while this thread may write'
        return hits

    def _hits(self, embeddings: np.ndarray, k: int, categories: list[int]) -> list[list[Hit]] | None:
        """The hits of checked queries; None when another thread has removed one of them meanwhile."""
        scores, ids = self.search_ids(embeddings, k, categories)
        found = np.unique(ids[ids >= 0]).tolist()
        items = self._items.get(found)
        if len(items) < len(found):
            return None
        return [
            [Hit(number, score, items[number]) for score, number in zip(line, numbers, strict=True) if number >= 0]
            for line, numbers in zip(scores.tolist(), ids.tolist(), strict=True)
        ]

    def search_ids(self, embeddings: np.ndarray, k: int, categories: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Searches without reading the items; the arguments are those of ``search`` and are not checked.

        Returns:
            (m, k) scores and (m, k) ids, -inf and -1 where there are fewer than k items.
        """
        states = [self._partitions[category - 1].state for category in categories]
        return search_partitions(self.similarity, states, embeddings, k)

    def build_index(
        self,
        settings: ListSettings | GraphSettings | None = None,
        least_items: int = 50_000,
        target_recall: float | None = 0.99,
    ) -> None:
        """Makes searches of large categories approximate, to be fast where exact ones would be slow.

        Args:
            settings: How to build the indexes. None for inverted lists of whole vectors, and of 64 bytes per item in
                categories of more than 4 million items.
            least_items: Categories of fewer items stay exact, and with codes those of fewer than 256 items.
            target_recall: Share of the 20 best hits that a search finds on average, 0 to 1. It is measured with some of
                the category's own items as queries, and decides the number of probes where the settings leave it open.
                A category in which an exact search would be as fast stays exact, which a warning says. None measures
                nothing.

        Raises:
            ImportError: faiss is not installed.
            ValueError: The target is not from 0 to 1.
        """
        if target_recall is not None and not 0 <= target_recall <= 1:
            raise ValueError(f'target_recall must be from 0 to 1, got {target_recall!r}')
        with self._writing:
            for category, partition in enumerate(self._partitions, start=1):
                codes = None if len(partition) <= _WHOLE_VECTORS else _CODE_BYTES
                chosen = settings or ListSettings(code_bytes=codes)
                large = len(partition) >= max(least_items, chosen.least_items)
                self._build_partition(category, chosen if large else None, target_recall)
            states = [partition.state for partition in self._partitions if len(partition)]
            several = sum(isinstance(state.index, InvertedLists) for state in states) > 1
            left_open = settings is None or (isinstance(settings, ListSettings) and settings.probes is None)
            if target_recall is not None and several and left_open:
                probes = shared_probes(self.similarity, states, target_recall)
                for partition in self._partitions:
                    partition.replace_index(lambda index: index.with_shared_probes(probes))

    def _build_partition(self, category: int, settings, target_recall: float | None) -> None:
        partition = self._partitions[category - 1]
        if settings is None or target_recall is None:
            partition.build_index(settings)
            return
        partition.build_index(settings, lambda state: tuned(self.similarity, state, target_recall))
        index = partition.state.index
        if index is None:
            _LOGGER.warning(
                'category %d stays exact: to find %g of the 20 best hits of its own items, an index would have to look '
                'into more than half of its lists, and would hardly be faster',
                category,
                target_recall,
            )

    def partition_arrays(self, category_id: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, D) embeddings and (n,) ids of a category; they must not be written to."""
        vectors, ids = self._partitions[category_id - 1].arrays
        return np.asarray(vectors), ids

    def counts(self) -> dict[int, int]:
        """See ``Gallery.counts``."""
        return {category: len(partition) for category, partition in enumerate(self._partitions, start=1)}

    def items(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """See ``Gallery.items``."""
        return self._items.get(ids)

    def embeddings(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """See ``Gallery.embeddings``."""
        wanted = np.array(sorted(set(ids)), dtype=np.int64)
        found: dict[int, np.ndarray] = {}
        for partition in self._partitions:
            vectors, numbers = partition.arrays
            rows = _rows_of(numbers, wanted)
            found.update(zip(numbers[rows].tolist(), vectors[rows], strict=True))
        return found

    def present(self, ids: Iterable[int]) -> set[int]:
        """See ``Gallery.present``."""
        ids = np.array(sorted(set(ids)), dtype=np.int64)
        parts = [partition.arrays[1] for partition in self._partitions]
        return {number for numbers in parts for number in numbers[_rows_of(numbers, ids)].tolist()}

    def ids_where(self, name: str, values: Iterable) -> list[int]:
        """See ``Gallery.ids_where``."""
        return self._items.ids_where(name, values)

    def save(self, folder=None) -> None:
        """Writes the gallery into a folder, in place of what was there; a kill leaves the old gallery or the new one.

        It waits while another process writes there.

        Args:
            folder: Where to write. None for the folder that the gallery was loaded from or last saved to.

        Raises:
            GalleryError: The folder holds files that belong to no gallery, or it cannot be locked, or it is the one
                that the gallery came from and another process has changed it since.
            ValueError: No folder is given, and the gallery came from none.
        """
        came_from = self._folder
        own = came_from is not None and (folder is None or os.path.realpath(folder) == os.path.realpath(came_from))
        folder = folder if folder is not None else came_from
        if folder is None:
            raise ValueError('this gallery came from no folder: give one to save it in')
        # The folder first, as in ``changing``: the other order would let two threads wait for each other.
        with writing(folder), self._writing:
            if own:
                self._refuse_changes(folder)
            states = [partition.state for partition in self._partitions]
            content = GalleryContent(
                similarity=self.similarity,
                model=self.model,
                vectors=ChunkedRows([chunk for state in states for chunk in state.vectors.chunks]),
                ids=np.concatenate([state.ids for state in states]),
                counts=np.array([len(state.ids) for state in states]),
                items=self._items,
                next_id=self._next_id,
                calibration=self._calibration,
                indexes={
                    category: state.to_save
                    for category, state in enumerate(states, start=1)
                    if state.to_save is not None
                },
            )
            self._saved, self._unsaved = write_folder(folder, content), False
            self._folder = folder

    @contextlib.contextmanager
    def changing(self) -> Iterator['FaissGallery']:
        """See ``Gallery.changing``. An index that was not saved is lost when others have saved changes."""
        if self._folder is None:
            raise ValueError('this gallery came from no folder: save it in one first')
        with writing(self._folder):
            with self._writing:
                self._take_up_changes()
            yield self
            self.save()

    def _take_up_changes(self) -> None:
        """Reads what others have saved since this gallery was read or saved."""
        if saved_state(self._folder) == self._saved:
            return
        if self._unsaved or self._saved is None:
            self._refuse_changes(self._folder)
        content = read_folder(self._folder, index=self._reads_index)
        check_similarity(self._folder, content.model, content.similarity, self.similarity)
        lost = sorted(set(self.indexed()) - set(content.indexes))
        if lost:
            _LOGGER.warning(
                '%s was changed by another process, which had no index of the categories %s: their searches are exact '
                'until build_index() is called again',
                self._folder,
                lost,
            )
        self._set(content)

    def _refuse_changes(self, folder) -> None:
        """GalleryError when saving would undo what others have saved in the folder that this gallery came from."""
        if saved_state(folder) == self._saved:
            return
        if self._saved is None:
            raise GalleryError(f'{folder} is a gallery already, which another process has built; add to that one')
        raise GalleryError(
            f'{folder} was changed by another process after this gallery was read, and saving this one would undo '
            'that; open the gallery anew and change it within `with gallery.changing():`'
        )


def _said(recall: float | None) -> str:
    return '' if recall is None else f', recall@20 {recall:.4f} with some of them as queries'


def _rows_of(numbers: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The places, in rising numbers (n,), of those ids that are among them."""
    rows = np.searchsorted(numbers, ids)
    rows[rows == len(numbers)] = 0
    return rows[numbers[rows] == ids] if len(numbers) else rows[:0]

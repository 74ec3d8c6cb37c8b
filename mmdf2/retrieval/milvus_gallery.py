"""The gallery past one machine: items in Milvus, in milvus-lite's file or on a cluster, by the same client."""

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
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
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.milvus_about import About, AboutCollection
from mmdf2.retrieval.milvus_client import MilvusConnection, is_file
from mmdf2.retrieval.milvus_index import HOUR, MilvusIndex, exact_metric, index_params, searched_width
from mmdf2.retrieval.milvus_rows import (
    MOST_WIDTH,
    batches,
    item_schema,
    matches,
    to_row,
    wanted_marks,
)
from mmdf2.retrieval.milvus_search import MilvusSearch
from mmdf2.retrieval.reduction import DistanceSpace, InnerProductSpace
from mmdf2.retrieval.similarity import Similarity

_LOGGER = logging.getLogger(__name__)
_ROWS = 500  # at once
_MARGIN = 1.5  # of a space's radius over the longest item


class MilvusGallery(Gallery):
    """A gallery in Milvus.

    Searches are exact until ``build_index``. What is added lasts at once; ``save`` has it written to disk. One
    process may write at a time, any number may search; a file of milvus-lite serves one process.

    Made by ``create`` and ``load``.
    """

    def __init__(self, connection: MilvusConnection, collection: str, about: About) -> None:
        self._connection, self._collection = connection, collection
        self._about, self._about_collection = about, AboutCollection(connection, collection)
        self.similarity, self.model = about.similarity, about.model
        self._search = MilvusSearch(connection, collection)
        self._index = MilvusIndex(connection, collection)
        self._writing = threading.RLock()

    @classmethod
    def create(cls, uri, similarity: Similarity, model='', collection='gallery', token='', patience=10.0):
        """Makes an empty gallery.

        Args:
            uri: A file that ends in .db, or a cluster's http(s)://host:port.
            similarity: The match head's; embeddings of 4096 numbers at most.
            model: What tells the model apart, such as the checkpoint's name.
            collection: The gallery's name there; a second collection has ``_about`` after it.
            token: 'user:password' or an API key.
            patience: Seconds that a call may take.

        Raises:
            GalleryError: The collection is there already, or nothing answers at the address.
            ImportError: pymilvus or milvus-lite is not installed.
        """
        if similarity.width > MOST_WIDTH:
            raise ValueError(f'Milvus holds embeddings of {MOST_WIDTH} numbers at most, got {similarity.width}')
        connection = MilvusConnection(uri, token, patience)
        about = AboutCollection(connection, collection)
        ours = about.open()
        if ours and about.read() is not None:
            raise GalleryError(f"there is a gallery '{collection}' at {uri}: load it, or give another collection")
        if connection.call('has_collection', collection):
            if not ours:
                raise GalleryError(f"the collection '{collection}' at {uri} is no gallery: give another name")
            # Of a creation that was killed: no item is in it.
            connection.call('drop_collection', collection)
        if not ours:
            about.create()
        connection.call(
            'create_collection',
            collection,
            schema=item_schema(similarity.width, searched_width(similarity)),
            index_params=index_params('FLAT', exact_metric(similarity)),
            consistency_level='Strong',
            patience=60,
        )
        if not is_file(uri):
            MilvusIndex(connection, collection).add_marks()
        about.write_next_id(0)
        about.write(About(similarity, model))
        return cls(connection, collection, About(similarity, model))

    @classmethod
    def load(cls, location, similarity=None, collection='gallery', token='', patience=10.0) -> 'MilvusGallery':
        """Opens a gallery; arguments as of ``create``.

        Raises:
            GalleryError: No gallery, a damaged one, one of another model, or nothing answers at the address.
            ImportError: pymilvus or milvus-lite is not installed.
        """
        if is_file(location) and not Path(location).exists():
            raise GalleryError(f'there is no file {location}: give the one that MilvusGallery.create made')
        connection = MilvusConnection(location, token, patience)
        about_collection = AboutCollection(connection, collection)
        about = about_collection.read() if about_collection.open() else None
        if about is None:
            raise GalleryError(f"there is no gallery '{collection}' at {location}, or its creation was not finished")
        check_similarity(f"gallery '{collection}' at {location}", about.model, about.similarity, similarity)
        gallery = cls(connection, collection, about)
        if gallery._index.kind() is None:
            # An exchange of the index was killed.
            gallery._index.exchange('FLAT', exact_metric(about.similarity))
        connection.call('load_collection', collection, patience=HOUR)
        return gallery

    def save(self, location=None) -> None:
        """Has Milvus write everything to its disk.

        Raises:
            ValueError: Another location: ``transfer`` copies galleries.
        """
        if location is not None and str(location) != self._connection.uri:
            raise ValueError(
                f'a gallery in Milvus stays at {self._connection.uri}; mmdf2.retrieval.transfer copies galleries'
            )
        for name in (self._collection, self._about_collection.name):
            self._connection.call('flush', name, patience=120)

    def close(self) -> None:
        """Ends the connection; milvus-lite's file is free for another process then."""
        self._connection.close()

    def __len__(self) -> int:
        return self._count('')

    def counts(self) -> dict[int, int]:
        """See ``Gallery.counts``."""
        return {category: self._count(f'category == {category}') for category in range(1, NUM_CATEGORIES + 1)}

    def _count(self, expression: str) -> int:
        found = self._connection.call('query', self._collection, filter=expression, output_fields=['count(*)'])
        return int(found[0]['count(*)'])

    def items(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """See ``Gallery.items``."""
        return self._search.items(ids)

    def embeddings(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """See ``Gallery.embeddings``."""
        return self._search.embeddings(ids)

    def present(self, ids: Iterable[int]) -> set[int]:
        """See ``Gallery.present``."""
        return self._search.present(ids)

    def ids_where(self, name: str, values: Iterable) -> list[int]:
        """See ``Gallery.ids_where``."""
        wanted, marks = wanted_marks(name, values)
        found = set()
        for start in range(0, len(marks), _ROWS):
            expression = f'array_contains_any(marks, {marks[start : start + _ROWS]})'
            rows = self._connection.call('query', self._collection, filter=expression, output_fields=['id'])
            found.update(int(row['id']) for row in rows)
        return sorted(number for number, item in self.items(found).items() if matches(item, name, wanted))

    def add(self, embeddings, items: Sequence[GalleryItem]) -> list[int]:
        """See ``Gallery.add``; when Milvus goes in the middle, the GalleryError says which ids are in."""
        with self._writing:
            return super().add(embeddings, items)

    def reserve(self, count: int) -> int:
        """See ``Gallery.reserve``; lasts at once."""
        with self._writing:
            first = self._about_collection.next_id()
            if count:
                self._about_collection.write_next_id(first + count)
            return first

    def put(self, ids: Sequence[int], embeddings, items: Sequence[GalleryItem]) -> None:
        """See ``Gallery.put``."""
        embeddings = checked_embeddings(embeddings, self.similarity.width)
        check_count(embeddings, items)
        ids = checked_ids(ids, items)
        if not ids:
            return
        rows = [to_row(number, item) for number, item in zip(ids, items, strict=True)]
        with self._writing:
            self._make_room(embeddings)
            # Before the items: a kill between loses ids, and never gives one twice.
            if max(ids) >= self._about_collection.next_id():
                self._about_collection.write_next_id(max(ids) + 1)
            self._write_rows(rows, embeddings)

    def _make_room(self, embeddings: np.ndarray) -> None:
        """Has a space that holds the embeddings, before any of them is written."""
        space = self._about.space
        if space is None:
            space = DistanceSpace.fitted(self.similarity, embeddings)
            radius = None if space.radius is None else _MARGIN * space.radius
            about = self._about.with_space(DistanceSpace(space.products, radius), False)
        else:
            if space.radius is None:
                return
            longest = _longest(space.products, embeddings)
            if longest <= space.radius:
                return
            if self._index.kind() != 'FLAT':
                _LOGGER.warning('items beyond the radius of the index came: searches are exact until build_index()')
                self._index.exchange('FLAT', 'IP')
            about = self._about.with_space(DistanceSpace(space.products, _MARGIN * longest), True)
        self._about_collection.write(about)
        self._about = about

    def _write_rows(self, rows: list[dict], embeddings: np.ndarray) -> None:
        vectors = self._about.space.items(embeddings)
        for row, vector, embedding in zip(rows, vectors, embeddings, strict=True):
            row.update(vector=vector, embedding=embedding)
        written = 0
        for batch in batches(rows):
            # Lists are made batch by batch: they take ten times the memory.
            batch = [{**row, 'embedding': row['embedding'].tolist()} for row in batch]
            try:
                self._connection.call('upsert', self._collection, batch)
            except GalleryError as error:
                raise GalleryError(
                    f'{error}; {written} of {len(rows)} items were written, those of ids {rows[0]["id"]} to '
                    f'{rows[written - 1]["id"]}'
                    if written
                    else f'{error}; none of {len(rows)} items was written'
                ) from error
            written += len(batch)

    def remove(self, ids: Iterable[int]) -> int:
        """See ``Gallery.remove``."""
        with self._writing:
            there = sorted(self._search.present(ids))
            for start in range(0, len(there), _ROWS):
                self._connection.call('delete', self._collection, ids=there[start : start + _ROWS])
        return len(there)

    def search(self, embeddings, k: int = 20, categories: Iterable[int] | None = None) -> list[list[Hit]]:
        """See ``Gallery.search``; k to 16384, Milvus's limit."""
        embeddings, chosen = checked_embeddings(embeddings, self.similarity.width), checked_categories(categories)
        check_k(k)
        if self._about.space is None:
            self._about = self._about_collection.read() or self._about
        if self._about.space is None or not len(embeddings):
            return [[] for _ in embeddings]
        try:
            return self._search.search(self._about.space, self._index.known(), embeddings, k, chosen)
        except GalleryError:
            # By the metric of an index that another process has exchanged.
            if not self._index.has_changed():
                raise
            return self._search.search(self._about.space, self._index.known(), embeddings, k, chosen)

    def build_index(self, least_items: int = 50_000) -> None:
        """Makes searches of a large gallery approximate: a graph (HNSW) over the L2 space, rescored.

        Args:
            least_items: A gallery of fewer items stays exact, or becomes it.
        """
        with self._writing:
            if len(self) < max(least_items, 1):
                if self._index.kind() != 'FLAT':
                    self._index.exchange('FLAT', exact_metric(self.similarity))
                return
            if self._about.mixed:
                self._rewrite_vectors()
            self._connection.call('flush', self._collection, patience=120)
            self._index.exchange('HNSW', 'L2')

    def _rewrite_vectors(self) -> None:
        """Gives all vectors the last column of the space as it is now."""
        self._index.exchange('FLAT', 'IP')
        for start in range(0, self._about_collection.next_id(), _ROWS):
            ids = list(range(start, start + _ROWS))
            embeddings, items = self.embeddings(ids), self.items(ids)
            if items:
                rows = [to_row(number, item) for number, item in items.items()]
                self._write_rows(rows, np.stack([embeddings[number] for number in items]))
        about = self._about.with_space(self._about.space, False)
        self._about_collection.write(about)
        self._about = about


def _longest(products: InnerProductSpace, embeddings: np.ndarray) -> float:
    return float(np.linalg.norm(products.items(embeddings).astype(np.float64), axis=1).max())

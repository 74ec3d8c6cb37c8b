"""A gallery in Milvus, be it in a file of milvus-lite or on a cluster: the same client serves both."""

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmdf2.categories import NUM_CATEGORIES
from mmdf2.files import lock_beside
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
    one_writer,
)
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.milvus.client import MilvusConnection, is_file
from mmdf2.retrieval.milvus.collection import (
    HOUR,
    WIDEST_EMBEDDING,
    Description,
    DescriptionCollection,
    ItemIndex,
    create_item_collection,
    exact_metric,
)
from mmdf2.retrieval.milvus.rows import ItemRows, batches, to_row
from mmdf2.retrieval.similarity import DistanceSpace, Similarity, longest_item

_LOGGER = logging.getLogger(__name__)
_ROWS_AT_ONCE = 500
_MARGIN = 1.5  # a space's radius over the longest item, so that longer items rarely need a new space


class MilvusGallery(Gallery):
    """A gallery in Milvus, made by ``create`` or ``load``.

    Searches are exact until ``build_index``. What is added is kept at once; ``save`` makes Milvus write it to disk. One
    process at a time may write, and any number may search: writers of one user on one machine wait for each other, and
    those of several machines have to take turns. A file of milvus-lite serves one process only.
    """

    def __init__(self, connection: MilvusConnection, collection: str, description: Description) -> None:
        self._connection, self._collection = connection, collection
        self._description, self._descriptions = description, DescriptionCollection(connection, collection)
        self.similarity, self.model = description.similarity, description.model
        self._rows = ItemRows(connection, collection)
        self._index = ItemIndex(connection, collection)
        self._next_id = 0  # known within ``_writing`` only
        self._lock, self._depth = _lock_path(connection.uri, collection), threading.local()

    @classmethod
    def create(cls, uri, similarity: Similarity, model='', collection='gallery', token='', patience=10.0):
        """Makes an empty gallery.

        Args:
            uri: A file whose name ends in .db, or a server's or cluster's http(s)://host:port.
            similarity: The match head's similarity; embeddings have 4096 numbers at most.
            model: What identifies the model, such as the checkpoint's name.
            collection: The gallery's name in Milvus. A second collection has ``_about`` after it.
            token: 'user:password' or an API key.
            patience: Seconds that a call may take.

        Raises:
            GalleryError: The collection exists already, or nothing answers at the address.
            ImportError: pymilvus or milvus-lite is not installed.
            ValueError: The embeddings are wider than Milvus takes.
        """
        if similarity.width > WIDEST_EMBEDDING:
            raise ValueError(f'Milvus holds embeddings of {WIDEST_EMBEDDING} numbers at most, got {similarity.width}')
        connection = MilvusConnection(uri, token, patience)
        descriptions, description = DescriptionCollection(connection, collection), Description(similarity, model)
        with one_writer(_lock_path(connection.uri, collection), f"gallery '{collection}' at {uri}"):
            ours = descriptions.open()
            with connection.seeing_all_writes():
                there = ours and descriptions.read() is not None
            if there:
                raise GalleryError(f"there is a gallery '{collection}' at {uri}: load it, or give another collection")
            if connection.call('has_collection', collection):
                if not ours:
                    raise GalleryError(f"the collection '{collection}' at {uri} is no gallery: give another name")
                # Left by a process that was killed while it made the gallery, so no item is in it.
                connection.call('drop_collection', collection)
            if not ours:
                descriptions.create()
            create_item_collection(connection, collection, similarity)
            if not is_file(uri):
                ItemIndex(connection, collection).add_marks()
            descriptions.write_next_id(0)
            descriptions.write(description)
        return cls(connection, collection, description)

    @classmethod
    def load(cls, location, similarity=None, collection='gallery', token='', patience=10.0) -> 'MilvusGallery':
        """Opens a gallery.

        Args:
            location: A file whose name ends in .db, or a server's or cluster's http(s)://host:port.
            similarity: The similarity of the model at hand; None accepts the gallery's own.
            collection: The gallery's name in Milvus.
            token: 'user:password' or an API key.
            patience: Seconds that a call may take.

        Raises:
            GalleryError: There is no gallery, it is damaged or was built with another model, or nothing answers at the
                address.
            ImportError: pymilvus or milvus-lite is not installed.
        """
        if is_file(location) and not Path(location).exists():
            raise GalleryError(f'there is no file {location}: give the one that MilvusGallery.create made')
        connection = MilvusConnection(location, token, patience)
        descriptions = DescriptionCollection(connection, collection)
        with connection.seeing_all_writes():
            description = descriptions.read() if descriptions.open() else None
        if description is None:
            raise GalleryError(f"there is no gallery '{collection}' at {location}, or its creation was not finished")
        own = description.similarity
        check_similarity(f"gallery '{collection}' at {location}", description.model, own, similarity)
        gallery = cls(connection, collection, description)
        if gallery._index.kind() is None:
            # A process was killed while it exchanged the index.
            gallery._index.exchange('FLAT', exact_metric(own))
        connection.call('load_collection', collection, patience=HOUR)
        gallery._rows.wait_for_all_writes()
        if not connection.replaces_at_once and sum(gallery.counts().values()) != len(gallery):
            _LOGGER.warning(
                "gallery '%s' at %s: Milvus before 2.3.11 has put items under wrong categories, where a search within "
                'some categories does not find them; transfer the gallery into a new one',
                collection,
                location,
            )
        return gallery

    def save(self, location=None) -> None:
        """Makes Milvus write everything to its disk.

        Args:
            location: None, or the address that the gallery is at.

        Raises:
            ValueError: It is another location, to which ``mmdf2.retrieval.transfer`` copies galleries.
        """
        if location is not None and str(location) != self._connection.uri:
            raise ValueError(
                f'a gallery in Milvus stays at {self._connection.uri}; mmdf2.retrieval.transfer copies galleries'
            )
        for name in (self._collection, self._descriptions.name):
            self._connection.call('flush', name, patience=120)

    @contextlib.contextmanager
    def changing(self) -> Iterator['MilvusGallery']:
        """See ``Gallery.changing``. On a server, other machines are not kept out."""
        with self._writing():
            yield self
            self.save()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A block in which no other process here writes, and which begins with all that the last writer left."""
        with one_writer(self._lock, f"gallery '{self._collection}' at {self._connection.uri}"):
            depth = getattr(self._depth, 'value', 0)
            if depth == 0:
                with self._connection.seeing_all_writes():
                    description, self._next_id = self._descriptions.read_with_next_id()
                self._description = description or self._description
                self._rows.wait_for_all_writes()
            self._depth.value = depth + 1
            try:
                yield
            finally:
                self._depth.value = depth

    def close(self) -> None:
        """Ends the connection. A file of milvus-lite is then free for another process."""
        self._connection.close()

    def __len__(self) -> int:
        return self._rows.count('')

    def counts(self) -> dict[int, int]:
        """See ``Gallery.counts``."""
        return {category: self._rows.count(f'category == {category}') for category in range(1, NUM_CATEGORIES + 1)}

    def items(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """See ``Gallery.items``."""
        return self._rows.items(ids)

    def embeddings(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """See ``Gallery.embeddings``."""
        return self._rows.embeddings(ids)

    def present(self, ids: Iterable[int]) -> set[int]:
        """See ``Gallery.present``."""
        return self._rows.present(ids)

    def ids_where(self, name: str, values: Iterable) -> list[int]:
        """See ``Gallery.ids_where``."""
        return self._rows.ids_where(name, values)

    def add(self, embeddings, items: Sequence[GalleryItem]) -> list[int]:
        """See ``Gallery.add``. When Milvus fails in the middle, the GalleryError says which ids have been written."""
        with self._writing():
            return super().add(embeddings, items)

    def reserve(self, count: int) -> int:
        """See ``Gallery.reserve``. The reservation is kept in Milvus at once."""
        with self._writing():
            first = self._next_id
            if count:
                self._reserve_below(first + count)
            return first

    def put(self, ids: Sequence[int], embeddings, items: Sequence[GalleryItem]) -> None:
        """See ``Gallery.put``."""
        embeddings = checked_embeddings(embeddings, self.similarity.width)
        check_count(embeddings, items)
        ids = checked_ids(ids, items)
        if not ids:
            return
        rows = [to_row(number, item) for number, item in zip(ids, items, strict=True)]
        with self._writing():
            there = self._rows.present(ids)
            space = self._make_room(embeddings)
            # Reserved before the items are written: a kill in between loses ids, and never gives one twice.
            if max(ids) >= self._next_id:
                self._reserve_below(max(ids) + 1)
            self._write_rows(space, rows, embeddings, there)

    def _reserve_below(self, number: int) -> None:
        self._descriptions.write_next_id(number)
        self._next_id = number

    def _make_room(self, embeddings: np.ndarray) -> DistanceSpace:
        """Makes sure that the searched space holds the embeddings, before any of them is written; returns the space."""
        space = self._description.space
        if space is None:
            fitted = DistanceSpace.fitted(self.similarity, embeddings)
            space = DistanceSpace(fitted.products, None if fitted.radius is None else _MARGIN * fitted.radius)
            self._set_description(self._description.with_space(space, False))
        elif space.radius is not None and (longest := longest_item(space.products, embeddings)) > space.radius:
            if self._index.kind() != 'FLAT':
                _LOGGER.warning('new items are longer than the index allows: searches are exact until build_index()')
                self._index.exchange('FLAT', 'IP')
            space = DistanceSpace(space.products, _MARGIN * longest)
            self._set_description(self._description.with_space(space, True))
        return space

    def _set_description(self, description: Description) -> None:
        self._descriptions.write(description)
        self._description = description

    def _write_rows(self, space: DistanceSpace, rows: list[dict], embeddings: np.ndarray, there: set[int]) -> None:
        """Completes rows by their two vectors and writes them; ``there`` are the ids that the gallery has."""
        vectors = space.items(embeddings)
        for row, vector, embedding in zip(rows, vectors, embeddings, strict=True):
            row.update(vector=vector, embedding=embedding)
        written = 0
        for batch in batches(rows):
            # Python lists take ten times the memory, so they are made batch by batch.
            batch = [{**row, 'embedding': row['embedding'].tolist()} for row in batch]
            try:
                self._connection.write_rows(self._collection, batch, replaced=any(row['id'] in there for row in batch))
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
        with self._writing():
            there = sorted(self._rows.present(ids))
            for start in range(0, len(there), _ROWS_AT_ONCE):
                self._connection.call('delete', self._collection, ids=there[start : start + _ROWS_AT_ONCE])
            if there:
                # Milvus 2.3 does not tell when a deletion happened, so no later read would wait for it.
                self._rows.wait_for_all_writes()
        return len(there)

    def search(self, embeddings, k: int = 20, categories: Iterable[int] | None = None) -> list[list[Hit]]:
        """See ``Gallery.search``; k is at most 16384, Milvus's limit."""
        embeddings, chosen = checked_embeddings(embeddings, self.similarity.width), checked_categories(categories)
        check_k(k)
        if self._description.space is None:
            # Another process may have added the first items.
            self._description = self._descriptions.read() or self._description
        space = self._description.space
        if space is None or not len(embeddings):
            return [[] for _ in embeddings]
        try:
            return self._search(space, embeddings, k, chosen)
        except GalleryError:
            # Another process may have exchanged the index for one of another metric.
            if not self._index.has_changed():
                raise
            return self._search(space, embeddings, k, chosen)

    def _search(self, space: DistanceSpace, embeddings: np.ndarray, k: int, categories: list[int]) -> list[list[Hit]]:
        index = self._index.known()
        # A server's graph looks for as many items as it may find; that of milvus-lite counts the others, too.
        counts_hidden = index['index_type'] != 'FLAT' and is_file(self._connection.uri)
        given = self._descriptions.read_with_next_id()[1] if counts_hidden else 0
        return self._rows.search(space, index, embeddings, k, categories, given)

    def build_index(self, least_items: int = 50_000) -> None:
        """Makes searches of a large gallery approximate, by a graph (HNSW) over the space of distances.

        The candidates are still scored again by the direct form.

        Args:
            least_items: A gallery of fewer items stays exact, or becomes exact again.
        """
        with self._writing():
            if len(self) < max(least_items, 1):
                if self._index.kind() != 'FLAT':
                    self._index.exchange('FLAT', exact_metric(self.similarity))
                return
            if self._description.space is not None and self._description.mixed:
                if not self._connection.replaces_at_once:
                    raise GalleryError(
                        f'Milvus at {self._connection.uri} is older than 2.3.11 and cannot replace items, which this '
                        'index needs, since later items are longer than the first ones allowed for; run a newer '
                        'server, or transfer the gallery into a new one'
                    )
                self._rewrite_vectors(self._description.space)
            self._connection.call('flush', self._collection, patience=120)
            self._index.exchange('HNSW', 'L2')

    @property
    def calibration(self) -> Calibration | None:
        """See ``Gallery.calibration``; as it was when the gallery was opened or last changed here."""
        return self._description.calibration

    def set_calibration(self, calibration: Calibration | None) -> None:
        """See ``Gallery.set_calibration``. It is kept in Milvus at once."""
        with self._writing():
            self._set_description(replace(self._description, calibration=calibration))

    def indexed(self) -> dict[int, str]:
        """See ``Gallery.indexed``. One index serves all categories."""
        if self._index.kind() == 'FLAT':
            return {}
        return {category: f"Milvus's {self._index.kind()}" for category, count in self.counts().items() if count}

    def _rewrite_vectors(self, space: DistanceSpace) -> None:
        """Gives all vectors the last column of the space as it is now, so that distances compare them."""
        self._index.exchange('FLAT', 'IP')
        for start in range(0, self._next_id, _ROWS_AT_ONCE):
            ids = list(range(start, start + _ROWS_AT_ONCE))
            embeddings, items = self.embeddings(ids), self.items(ids)
            if items:
                rows = [to_row(number, item) for number, item in items.items()]
                self._write_rows(space, rows, np.stack([embeddings[number] for number in items]), set(items))
        self._set_description(self._description.with_space(space, False))


def _lock_path(uri: str, collection: str) -> Path:
    """What the writers of a gallery lock: a file beside that of milvus-lite, or one of this user for an address."""
    if is_file(uri):
        return lock_beside(Path(uri).resolve())
    name = hashlib.sha256(f'{uri}#{collection} {os.getuid()}'.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f'mmdf2-gallery-{name}.lock')

"""The interface of galleries, what a search finds, and the checks that all kinds of galleries share."""

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdf2.categories import CATEGORY_NAMES, NUM_CATEGORIES
from mmdf2.files import locked
from mmdf2.retrieval.calibration import Calibration
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.similarity import Similarity

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hit:
    """A gallery item that was found for a query.

    Attributes:
        id: The item's number in the gallery.
        score: The learned similarity of query and item by the direct form: the logit of 'same' minus the other one.
        item: What the gallery knows of the item.
    """

    id: int
    score: float
    item: GalleryItem


class GalleryError(RuntimeError):
    """A gallery that cannot be used; the message names what is wrong and the remedy."""


class Gallery(ABC):
    """Items that are searched by the learned similarity.

    Attributes:
        similarity: The match head's similarity.
        model: What identifies the model, such as the checkpoint's name.
    """

    similarity: Similarity
    model: str

    @classmethod
    @abstractmethod
    def load(cls, location, similarity: Similarity | None = None) -> 'Gallery':
        """Opens a gallery.

        Args:
            location: Where ``save`` wrote the gallery.
            similarity: The similarity of the model at hand; None accepts the gallery's own.

        Raises:
            GalleryError: There is no gallery, it is damaged, or it was built with another model.
        """

    @abstractmethod
    def save(self, location=None) -> None:
        """Writes all changes to disk.

        Args:
            location: Where to write. None for the location that the gallery came from.

        Raises:
            GalleryError: Another process has changed the gallery since it was read; ``changing`` prevents that.
        """

    @abstractmethod
    def changing(self) -> contextlib.AbstractContextManager['Gallery']:
        """A block in which nobody else changes the gallery: ``with gallery.changing(): gallery.remove(ids)``.

        At its beginning it waits for another writer, and the gallery takes up what others have saved. At its end the
        gallery is saved, unless an error ends the block. Readers go on meanwhile.

        Raises:
            GalleryError: The gallery cannot be locked or read, or it has changes that were not saved while another
                process has saved others.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Number of items in the gallery."""

    @abstractmethod
    def counts(self) -> dict[int, int]:
        """Number of items of each category_id, 1 to 13."""

    @abstractmethod
    def items(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """Id -> item, for those ids that are there."""

    @abstractmethod
    def embeddings(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """Id -> (D,) float32 embedding, for those ids that are there."""

    @abstractmethod
    def present(self, ids: Iterable[int]) -> set[int]:
        """Returns those of the ids that the gallery has."""

    @abstractmethod
    def ids_where(self, name: str, values: Iterable) -> list[int]:
        """Rising ids of the items in which a field has one of some values.

        Args:
            name: The field's name, such as 'sku'. The name 'image' means the photo's name.
            values: The values looked for, texts or numbers.
        """

    @abstractmethod
    def build_index(self, *, least_items: int = 50_000) -> None:
        """Makes searches of many items fast, by an index that suits their number; ``save`` keeps it.

        Args:
            least_items: Where there are fewer, searches stay exact.
        """

    @abstractmethod
    def indexed(self) -> dict[int, str]:
        """category_id -> what the index of the category is, for those whose searches are not exact."""

    @property
    @abstractmethod
    def calibration(self) -> Calibration | None:
        """What the scores of hits mean, or None where that was not measured."""

    @abstractmethod
    def set_calibration(self, calibration: Calibration | None) -> None:
        """Says what the scores of hits mean; ``save`` keeps it."""

    @abstractmethod
    def reserve(self, count: int) -> int:
        """Reserves ``count`` consecutive ids for ``put``, which nobody else will get; returns the first one."""

    @abstractmethod
    def put(self, ids: Sequence[int], embeddings, items: Sequence[GalleryItem]) -> None:
        """Writes items under given ids, in place of the items that had them. Doing it again changes nothing.

        Args:
            ids: The ids, distinct integers from 0 on.
            embeddings: (n, D) floats, finite.
            items: What to keep of each item.

        Raises:
            ValueError: The embeddings are of another width or not finite, or the ids are not distinct integers from 0
                on, or ids, embeddings and items differ in number.
        """

    def add(self, embeddings, items: Sequence[GalleryItem]) -> list[int]:
        """Adds items.

        Args:
            embeddings: (n, D) floats, finite.
            items: What to keep of each item.

        Returns:
            The items' ids, which are never given again.

        Raises:
            ValueError: The embeddings are of another width or not finite, or differ from the items in number.
        """
        embeddings = checked_embeddings(embeddings, self.similarity.width)
        check_count(embeddings, items)
        first = self.reserve(len(items))
        ids = list(range(first, first + len(items)))
        self.put(ids, embeddings, items)
        return ids

    @abstractmethod
    def remove(self, ids: Iterable[int]) -> int:
        """Removes the items of some ids; returns how many of them there were."""

    @abstractmethod
    def search(self, embeddings, k: int = 20, categories: Iterable[int] | None = None) -> list[list[Hit]]:
        """Finds the most similar items.

        Args:
            embeddings: (m, D) floats, finite: the queries.
            k: Hits per query at most.
            categories: category_ids (1 to 13) to search in; None for all.

        Returns:
            For each query its hits by falling score, and by rising id where scores are equal. There are fewer than k
            where the gallery has fewer items.

        Raises:
            ValueError: The embeddings are of another width or not finite, k is below 1, or a category does not exist.
        """


@contextlib.contextmanager
def one_writer(lock: Path, location) -> Iterator[None]:
    """A block that one process at a time is in; the others wait, and their logs say so.

    Args:
        lock: The file that is locked; it is created.
        location: What the messages call the gallery.

    Raises:
        GalleryError: The file cannot be made or locked.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                locked(lock, lambda: _LOGGER.warning('another process is changing %s; waiting for it to end', location))
            )
        except OSError as error:
            raise GalleryError(
                f'{location} cannot be locked against other writers: {lock}: {error.strerror or error}'
            ) from error
        yield


def checked_embeddings(embeddings, width: int) -> np.ndarray:
    """Embeddings as contiguous (n, width) float32; ValueError when they are of another shape or type or not finite."""
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or embeddings.shape[1] != width or embeddings.dtype.kind != 'f':
        raise ValueError(
            f'embeddings must be floats of shape (n, {width}), got {embeddings.dtype} of shape {embeddings.shape}'
        )
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise ValueError(f'embedding {bad[0]} is not finite, as are {len(bad)} in all; the model has probably diverged')
    return embeddings


def check_count(embeddings: np.ndarray, items: Sequence[GalleryItem]) -> None:
    """ValueError when embeddings and items differ in number."""
    if len(embeddings) != len(items):
        raise ValueError(f'{len(embeddings)} embeddings need as many items, got {len(items)}')


def checked_ids(ids: Sequence[int], items: Sequence[GalleryItem]) -> list[int]:
    """The ids of items; ValueError when they differ from the items in number or are not distinct integers from 0 on."""
    ids = [int(number) for number in ids]
    if len(ids) != len(items) or len(set(ids)) != len(ids) or min(ids, default=0) < 0:
        raise ValueError(f'ids of {len(items)} items must be as many distinct integers from 0 on, got {len(ids)}')
    return ids


def checked_categories(categories: Iterable[int] | None) -> list[int]:
    """Rising distinct category_ids, all 13 for None; ValueError when one of them does not exist."""
    if categories is None:
        return list(range(1, NUM_CATEGORIES + 1))
    found = sorted(set(categories))
    unknown = [category for category in found if category not in range(1, NUM_CATEGORIES + 1)]
    if unknown or not found:
        raise ValueError(
            f"categories must be some of 1 ('{CATEGORY_NAMES[0]}') to {NUM_CATEGORIES} ('{CATEGORY_NAMES[-1]}'), "
            f'got {unknown or "none"}'
        )
    return [int(category) for category in found]


def check_k(k) -> None:
    """ValueError when k is not an integer from 1 on."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f'k must be an integer from 1 on, got {k!r}')


def check_similarity(location, model: str, own: Similarity, given: Similarity | None) -> None:
    """Checks that a gallery was built with the model at hand.

    Args:
        location: What the message calls the gallery.
        model: What identifies the gallery's model.
        own: The gallery's similarity.
        given: The similarity of the model at hand; None accepts any gallery.

    Raises:
        GalleryError: The two similarities differ.
    """
    if given is not None and given.fingerprint() != own.fingerprint():
        raise GalleryError(
            f"{location} was built with model '{model}' (similarity {own.fingerprint()}), the one at hand has "
            f'similarity {given.fingerprint()}: embeddings of different models do not compare; build the gallery anew, '
            'or use its own model'
        )

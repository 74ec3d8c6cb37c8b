"""The interface of galleries, and what a search finds."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mmdf2.categories import CATEGORY_NAMES, NUM_CATEGORIES
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.similarity import Similarity


@dataclass(frozen=True)
class Hit:
    """An item that was found.

    Attributes:
        id: The item's number in the gallery.
        score: The learned similarity, the logit of 'same' minus the other, by the direct form.
        item: What the gallery knows of it.
    """

    id: int
    score: float
    item: GalleryItem


class GalleryError(RuntimeError):
    """A gallery that cannot be used; the message names what is wrong and the remedy."""


class Gallery(ABC):
    """Items that are searched by the learned similarity.

    Attributes:
        similarity: The match head's.
        model: What tells the model apart, such as the checkpoint's name.
    """

    similarity: Similarity
    model: str

    @classmethod
    @abstractmethod
    def load(cls, location, similarity: Similarity | None = None) -> 'Gallery':
        """Opens a gallery.

        Args:
            location: Where ``save`` left it.
            similarity: That of the model at hand; None accepts the gallery's own.

        Raises:
            GalleryError: No gallery, a damaged one, or one of another model.
        """

    @abstractmethod
    def save(self, location=None) -> None:
        """Makes all changes last.

        Args:
            location: Where to; None for where the gallery came from.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Items in the gallery."""

    @abstractmethod
    def counts(self) -> dict[int, int]:
        """Items of each category_id, 1 to 13."""

    @abstractmethod
    def items(self, ids: Iterable[int]) -> dict[int, GalleryItem]:
        """Id -> item of those ids that are there."""

    @abstractmethod
    def embeddings(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """Id -> (D,) float32 embedding of those ids that are there."""

    @abstractmethod
    def present(self, ids: Iterable[int]) -> set[int]:
        """Those ids that are there."""

    @abstractmethod
    def ids_where(self, name: str, values: Iterable) -> list[int]:
        """Rising ids of the items whose own field ``name``, such as a SKU, has one of some values.

        The name 'image' is the photo's.
        """

    @abstractmethod
    def build_index(self) -> None:
        """Makes searches fast where there are many items, with what suits their number; small galleries stay exact."""

    @abstractmethod
    def reserve(self, count: int) -> int:
        """The first of ``count`` ids in a row that nobody else will get; for ``put``."""

    @abstractmethod
    def put(self, ids: Sequence[int], embeddings, items: Sequence[GalleryItem]) -> None:
        """Writes items under given ids, in place of what had them; to do it again changes nothing.

        Raises:
            ValueError: As of ``add``, or ids that are not distinct integers from 0 on.
        """

    def add(self, embeddings, items: Sequence[GalleryItem]) -> list[int]:
        """Adds items.

        Args:
            embeddings: (n, D), finite.
            items: What to keep of each.

        Returns:
            Their ids, which are never given again.

        Raises:
            ValueError: Embeddings of another width or not finite, or not as many as items.
        """
        embeddings = checked_embeddings(embeddings, self.similarity.width)
        check_count(embeddings, items)
        first = self.reserve(len(items))
        ids = list(range(first, first + len(items)))
        self.put(ids, embeddings, items)
        return ids

    @abstractmethod
    def remove(self, ids: Iterable[int]) -> int:
        """Removes items; returns how many of the ids were there."""

    @abstractmethod
    def search(self, embeddings, k: int = 20, categories: Iterable[int] | None = None) -> list[list[Hit]]:
        """The most similar items.

        Args:
            embeddings: (m, D), finite.
            k: Items of each query at most.
            categories: category_ids (1 to 13) to search in; None for all.

        Returns:
            For each query its hits by falling score, those of equal score by rising id; fewer where there are fewer.

        Raises:
            ValueError: As of ``add``, or k below 1, or a category that is none.
        """


def checked_embeddings(embeddings, width: int) -> np.ndarray:
    """(n, width) float32, contiguous; ValueError when they are not, or not finite."""
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
    """ValueError when there are not as many embeddings as items."""
    if len(embeddings) != len(items):
        raise ValueError(f'{len(embeddings)} embeddings need as many items, got {len(items)}')


def checked_ids(ids: Sequence[int], items: Sequence[GalleryItem]) -> list[int]:
    """The ids of items; ValueError when they are not as many, or not distinct integers from 0 on."""
    ids = [int(number) for number in ids]
    if len(ids) != len(items) or len(set(ids)) != len(ids) or min(ids, default=0) < 0:
        raise ValueError(f'ids of {len(items)} items must be as many distinct integers from 0 on, got {len(ids)}')
    return ids


def checked_categories(categories: Iterable[int] | None) -> list[int]:
    """Rising distinct category_ids; all for None; ValueError for one that is none."""
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
    """ValueError when k is no integer from 1 on."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f'k must be an integer from 1 on, got {k!r}')


def check_similarity(location, model: str, own: Similarity, given: Similarity | None) -> None:
    """GalleryError when a gallery's own similarity is not that of the model at hand, which None leaves open."""
    if given is not None and given.fingerprint() != own.fingerprint():
        raise GalleryError(
            f"{location} was built with model '{model}' (similarity {own.fingerprint()}), the one at hand has "
            f'similarity {given.fingerprint()}: embeddings of different models do not compare; build the gallery anew, '
            'or use its own model'
        )

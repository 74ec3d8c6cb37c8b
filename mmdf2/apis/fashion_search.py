"""From a customer's photo to a shop's garments."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mmdf2.apis.embedded_garments import embedded_garments
from mmdf2.apis.inferencer import ClothesInferencer
from mmdf2.apis.model_identity import check_model, open_gallery_of
from mmdf2.retrieval.gallery import Gallery, Hit
from mmdf2.retrieval.items import GalleryItem


@dataclass(frozen=True)
class FoundGarment:
    """A garment on a photo and what the gallery has like it.

    Attributes:
        garment: Category, box and landmarks on the photo.
        score: Of its detection, 0 to 1.
        hits: Best first.
    """

    garment: GalleryItem
    score: float
    hits: list[Hit]


class FashionSearch:
    """Finds the garments of a photo in a gallery.

    Args:
        model: With a match head.
        gallery: A gallery, or where one lies.

    Raises:
        GalleryError: No gallery, or one of another model.
        ValueError: A model without match head.
    """

    def __init__(self, model: ClothesInferencer, gallery) -> None:
        self.model = model
        if isinstance(gallery, Gallery):
            check_model(gallery, model)
        self.gallery = gallery if isinstance(gallery, Gallery) else open_gallery_of(model, gallery)

    def search(
        self,
        image,
        k: int = 20,
        score_threshold: float = 0.3,
        categories: Iterable[int] | None = None,
        same_category: bool = False,
    ) -> list[FoundGarment]:
        """The garments of a photo, the best detected first, with their hits.

        Args:
            image: A path, or (H, W, 3) uint8 RGB.
            k: Hits of a garment at most.
            score_threshold: Garments detected with a lower score are left out; 0 to 1.
            categories: category_ids (1 to 13) to search in; None for all.
            same_category: Whether to search each garment in the category that it was detected as, instead.

        Raises:
            OSError: The image cannot be read.
            ValueError: More than one image, or both kinds of restriction.
        """
        if same_category and categories is not None:
            raise ValueError('give categories or same_category, not both')
        results = list(self.model.predict(image))
        if len(results) != 1:
            raise ValueError(f'search takes one image, got {len(results)}')
        (result,) = results
        if result.error is not None:
            raise OSError(f'{result.path or result.name}: {result.error}')
        instances = result.data_sample.pred_instances
        garments = embedded_garments(instances, result.path or result.name, score_threshold)
        found = self._search(garments, k, categories, same_category)
        return [
            FoundGarment(item, score, hits)
            for item, score, hits in zip(garments.items, garments.scores.tolist(), found, strict=True)
        ]

    def _search(self, garments, k: int, categories, same_category: bool) -> list[list[Hit]]:
        if not same_category:
            return self.gallery.search(garments.embeddings, k, categories)
        labels = np.array([item.category_id for item in garments.items], dtype=np.int64)
        hits: list[list[Hit]] = [[] for _ in labels]
        for category in np.unique(labels).tolist():
            rows = np.flatnonzero(labels == category)
            found = self.gallery.search(garments.embeddings[rows], k, [category])
            for row, line in zip(rows.tolist(), found, strict=True):
                hits[row] = line
        return hits

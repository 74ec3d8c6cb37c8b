"""From a customer's photo to a shop's garments.

The parts that everything about galleries shares are here too: the gallery items of an image, the learned similarity of
a model, and the check that a gallery was built with the model at hand.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData

from mmdf2.apis.inferencer import ClothesInferencer
from mmdf2.apis.inputs import check_score_threshold
from mmdf2.categories import CATEGORIES
from mmdf2.retrieval.expansion import check_hits, expand_by_gallery
from mmdf2.retrieval.gallery import Gallery, GalleryError, Hit, check_k, check_similarity, checked_categories
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.locations import open_gallery
from mmdf2.retrieval.similarity import Similarity

_HASHED_MODEL = re.compile(r' ([0-9a-f]{16})$')


@dataclass(frozen=True)
class FoundGarment:
    """A garment on a photo and the gallery items that are most similar to it.

    Attributes:
        garment: Category, box and landmarks of the garment on the photo.
        score: Detection score of the garment, 0 to 1.
        hits: What was found in the gallery, the most similar first.
        probabilities: The probability of each hit that it is the same garment, 0 to 1, by the gallery's calibration;
            None where there is none, or where the search was expanded, whose scores mean something else.
        is_there: Whether the best hit reaches the score that the wanted share of false accepts asks for; False says
            that nothing like the garment is in the gallery. None where no share was given.
    """

    garment: GalleryItem
    score: float
    hits: list[Hit]
    probabilities: list[float] | None = None
    is_there: bool | None = None


class FashionSearch:
    """Finds the garments of a photo in a gallery.

    Args:
        model: A model with a match head.
        gallery: An open gallery, or the location of one.

    Raises:
        GalleryError: There is no gallery at the location, it is damaged, or it was built with another model.
        ValueError: The model has no match head.
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
        expansion: int = 0,
        false_accepts: float | None = None,
    ) -> list[FoundGarment]:
        """Finds the garments of a photo and searches the gallery for each of them.

        Args:
            image: A path, or an (H, W, 3) uint8 RGB array.
            k: Largest number of hits per garment.
            score_threshold: Garments detected with a lower score are left out; 0 to 1.
            categories: The category_ids (1 to 13) of the gallery items to search; None searches all.
            same_category: Whether to search each garment among the items of its own detected category instead.
            expansion: Number of best hits whose embeddings are averaged with the garment's own embedding for a second
                search, which gives the hits; 0 searches once.
            false_accepts: Share of the garments that are not in the gallery, 0 to 1, for which something may be said to
                be there; None decides nothing. It needs a gallery with a calibration, and no expansion.

        Returns:
            The garments with their hits, the best detected first.

        Raises:
            OSError: The image cannot be read.
            ValueError: More than one image was given, or both ``categories`` and ``same_category``, or a share of false
                accepts that cannot be kept.
        """
        if same_category and categories is not None:
            raise ValueError('give categories or same_category, not both')
        check_k(k)
        check_score_threshold(score_threshold)
        categories = None if categories is None else checked_categories(categories)
        least = least_score(self.gallery, false_accepts, expansion)
        results = list(self.model.predict(image))
        if len(results) != 1:
            raise ValueError(f'search takes one image, got {len(results)}; give the path of one photo')
        (result,) = results
        if result.error is not None:
            raise OSError(result.error)
        instances = result.data_sample.pred_instances
        garments = extracted_items(instances, result.path or result.name, score_threshold)
        found = self._search(garments, k, categories, same_category, expansion)
        calibration = None if expansion else self.gallery.calibration
        return [
            FoundGarment(
                garment=item,
                score=score,
                hits=hits,
                probabilities=calibration and calibration.probability([hit.score for hit in hits]).tolist(),
                is_there=None if least is None else bool(hits) and hits[0].score >= least,
            )
            for item, score, hits in zip(garments.items, garments.scores.tolist(), found, strict=True)
        ]

    def _search(
        self, garments: 'ExtractedItems', k: int, categories, same_category: bool, expansion: int
    ) -> list[list[Hit]]:
        if not same_category:
            return self._hits(garments.embeddings, k, categories, expansion)
        labels = np.array([item.category_id for item in garments.items], dtype=np.int64)
        hits: list[list[Hit]] = [[] for _ in labels]
        for category in np.unique(labels).tolist():
            rows = np.flatnonzero(labels == category)
            found = self._hits(garments.embeddings[rows], k, [category], expansion)
            for row, line in zip(rows.tolist(), found, strict=True):
                hits[row] = line
        return hits

    def _hits(self, embeddings: np.ndarray, k: int, categories, expansion: int) -> list[list[Hit]]:
        embeddings = expand_by_gallery(self.gallery, embeddings, expansion, categories=categories)
        return self.gallery.search(embeddings, k, categories)


def least_score(gallery: Gallery, false_accepts: float | None, expansion: int = 0) -> float | None:
    """The score that the best hit of a garment needs for the garment to count as there.

    Args:
        gallery: A gallery with a calibration.
        false_accepts: Share of the garments that are not in the gallery, 0 to 1, for which something may be said to be
            there. None for no decision, which gives None.
        expansion: Number of hits by which the search is expanded.

    Raises:
        ValueError: The number or the share is out of range, the share cannot be kept, or there is no calibration for
            such a search.
    """
    check_hits(expansion)
    if false_accepts is None:
        return None
    if expansion:
        raise ValueError('scores of an expanded search are not calibrated: give false_accepts or expansion')
    if gallery.calibration is None:
        raise ValueError(
            'the gallery has no calibration, so nobody knows how often a score is wrong: measure one by '
            '`tools/gallery.py calibrate`'
        )
    return gallery.calibration.threshold(false_accepts)


@dataclass(frozen=True, eq=False)
class ExtractedItems:
    """The garments that a model found on one image, as gallery items, the best detected first.

    Attributes:
        items: n gallery items; the v of each landmark is its predicted score, 0 to 1.
        scores: (n,) float64, the detection scores.
        embeddings: (n, D) float32, the vectors of the match head.
    """

    items: list[GalleryItem]
    scores: np.ndarray
    embeddings: np.ndarray


def extracted_items(
    instances: InstanceData, image: str, score_threshold: float, fields: dict | None = None
) -> ExtractedItems:
    """Makes gallery items of the predicted garment instances of an image.

    Args:
        instances: ``pred_instances`` of a data sample on the CPU, with ``embeddings``, and with ``keypoints`` and
            ``keypoint_scores`` where the model predicts landmarks.
        image: Name of the image.
        score_threshold: Garments with a lower score are left out; 0 to 1.
        fields: The caller's own fields, the same for every item.
    """
    scores = instances.scores.double().numpy()
    order = np.argsort(-scores, kind='stable')
    rows = order[scores[order] >= score_threshold]
    return ExtractedItems(
        items=[_gallery_item(instances, int(row), image, fields or {}) for row in rows],
        scores=scores[rows],
        embeddings=instances.embeddings.float().numpy()[rows],
    )


def _gallery_item(instances: InstanceData, row: int, image: str, fields: dict) -> GalleryItem:
    category = CATEGORIES[int(instances.labels[row])]
    landmarks = None
    if 'keypoints' in instances:
        points = instances.keypoints[row, : category.num_landmarks].double()
        confidence = instances.keypoint_scores[row, : category.num_landmarks].double()
        landmarks = tuple((x, y, score) for (x, y), score in zip(points.tolist(), confidence.tolist(), strict=True))
    return GalleryItem(
        image=image,
        box=tuple(instances.bboxes[row].double().tolist()),
        category_id=category.id,
        landmarks=landmarks,
        fields=fields,
    )


def model_similarity(inferencer: ClothesInferencer) -> Similarity:
    """The learned similarity of a model with a match head.

    Raises:
        ValueError: The model has no match head.
    """
    for module in inferencer.model.modules():
        if hasattr(module, 'similarity_parameters'):
            parameters = module.similarity_parameters()
            return Similarity(parameters['weight'].numpy(), parameters['bias'].numpy())
    raise ValueError(
        f'{type(inferencer.model).__name__} has no match head, so its garments cannot be compared; galleries need a '
        'model with roi_head.match_head'
    )


def model_identity(inferencer: ClothesInferencer) -> str:
    """The file name of the checkpoint and a hash of everything that shapes the embeddings.

    The hash covers all weights, and the test setting ``flip_average``.
    """
    digest = hashlib.sha256()
    settings = [getattr(module, 'test_cfg', None) or {} for module in inferencer.model.modules()]
    if any(setting.get('flip_average', False) for setting in settings):
        digest.update(b'flip_average')
    for name, value in sorted(inferencer.model.state_dict().items()):
        array = value.cpu().contiguous().numpy()
        digest.update(f'{name} {array.dtype} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return f'{Path(inferencer.checkpoint).name} {digest.hexdigest()[:16]}'


def check_model(gallery: Gallery, inferencer: ClothesInferencer, location='the gallery') -> None:
    """Checks that a gallery was built with the model at hand.

    If ``gallery.model`` is a text of the caller's own and not a ``model_identity``, only the similarities are compared.

    Raises:
        GalleryError: The gallery was built with another model.
    """
    check_similarity(location, gallery.model, gallery.similarity, model_similarity(inferencer))
    built, own = _HASHED_MODEL.search(gallery.model), model_identity(inferencer)
    if built and built[1] != _HASHED_MODEL.search(own)[1]:
        raise GalleryError(
            f"{location} was built with model '{gallery.model}', the one at hand is '{own}': embeddings of different "
            'models do not compare; build the gallery anew, or use its own model'
        )


def open_gallery_of(inferencer: ClothesInferencer, location) -> Gallery:
    """Opens a gallery that was built with a model.

    Raises:
        GalleryError: There is no gallery, it is damaged, or it was built with another model.
    """
    gallery = open_gallery(location, model_similarity(inferencer))
    check_model(gallery, inferencer, location)
    return gallery

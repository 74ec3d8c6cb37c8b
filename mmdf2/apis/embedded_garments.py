"""From a model's predictions to items of a gallery."""

from dataclasses import dataclass

import numpy as np
from mmengine.structures import InstanceData

from mmdf2.apis.inferencer import ClothesInferencer
from mmdf2.categories import CATEGORIES
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.similarity import Similarity


@dataclass(frozen=True, eq=False)
class EmbeddedGarments:
    """The garments of an image, best first.

    Attributes:
        items: n of them; the v of their landmarks is the predicted score, 0 to 1.
        scores: (n,) float64 of detection.
        embeddings: (n, D) float32.
    """

    items: list[GalleryItem]
    scores: np.ndarray
    embeddings: np.ndarray


def model_similarity(inferencer: ClothesInferencer) -> Similarity:
    """The learned similarity of a model with a match head.

    Raises:
        ValueError: The model has none.
    """
    for module in inferencer.model.modules():
        if hasattr(module, 'similarity_parameters'):
            parameters = module.similarity_parameters()
            return Similarity(parameters['weight'].numpy(), parameters['bias'].numpy())
    raise ValueError(
        f'{type(inferencer.model).__name__} has no match head, so its garments cannot be compared; galleries need a '
        'model with roi_head.match_head'
    )


def embedded_garments(
    instances: InstanceData, image: str, score_threshold: float, fields: dict | None = None
) -> EmbeddedGarments:
    """The garments of a data sample's ``pred_instances``.

    Args:
        instances: On the CPU, with ``embeddings``; with ``keypoints`` where the model finds landmarks.
        image: Name of the image.
        score_threshold: Garments with a lower score are left out.
        fields: The caller's own of every garment.
    """
    scores = instances.scores.double().numpy()
    order = np.argsort(-scores, kind='stable')
    rows = order[scores[order] >= score_threshold]
    return EmbeddedGarments(
        [_item(instances, int(row), image, fields or {}) for row in rows],
        scores[rows],
        instances.embeddings.float().numpy()[rows],
    )


def _item(instances: InstanceData, row: int, image: str, fields: dict) -> GalleryItem:
    category = CATEGORIES[int(instances.labels[row])]
    landmarks = None
    if 'keypoints' in instances:
        points = instances.keypoints[row, : category.num_landmarks].double()
        confidence = instances.keypoint_scores[row, : category.num_landmarks].double()
        landmarks = tuple((x, y, score) for (x, y), score in zip(points.tolist(), confidence.tolist(), strict=True))
    return GalleryItem(image, tuple(instances.bboxes[row].double().tolist()), category.id, landmarks, fields)

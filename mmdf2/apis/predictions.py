"""What a model found on one image, as plain JSON."""

import numpy as np
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils

from mmdf2.categories import CATEGORIES


def prediction_dicts(
    instances: InstanceData, score_threshold: float = 0.0, with_embeddings: bool = False
) -> list[dict]:
    """The predicted garments of an image, best first, for JSON.

    Args:
        instances: ``pred_instances`` of a data sample on the CPU: ``bboxes``, ``labels``, ``scores``, and ``masks``,
            ``keypoints`` with ``keypoint_scores`` and ``embeddings`` where the model has those streams.
        score_threshold: Garments with a lower score are left out.
        with_embeddings: Whether to include the matching embedding.

    Returns:
        A dict for each: ``category_id`` 1 to 13, ``category_name``, ``score``, ``bbox`` [x1, y1, x2, y2] in pixels, and
        ``segmentation`` (COCO's compressed run lengths), ``landmarks`` (a list of ``number`` from 1, ``x``, ``y``,
        ``score``), ``embedding``.
    """
    scores = instances.scores.float().numpy()
    rows = [row for row in np.argsort(-scores, kind='stable') if scores[row] >= score_threshold]
    return [_prediction_dict(instances, int(row), with_embeddings) for row in rows]


def _prediction_dict(instances: InstanceData, row: int, with_embeddings: bool) -> dict:
    category = CATEGORIES[int(instances.labels[row])]
    result = {
        'category_id': category.id,
        'category_name': category.name,
        'score': _rounded(instances.scores[row], 4),
        'bbox': _rounded(instances.bboxes[row], 2),
    }
    if 'masks' in instances:
        mask = np.asfortranarray(instances.masks[row].numpy(), dtype=np.uint8)
        encoded = mask_utils.encode(mask)
        result['segmentation'] = {'size': list(mask.shape), 'counts': encoded['counts'].decode('ascii')}
    if 'keypoints' in instances:
        points = _rounded(instances.keypoints[row, : category.num_landmarks], 2)
        certainty = _rounded(instances.keypoint_scores[row, : category.num_landmarks], 4)
        result['landmarks'] = [
            {'number': number, 'x': x, 'y': y, 'score': score}
            for number, ((x, y), score) in enumerate(zip(points, certainty, strict=True), start=1)
        ]
    if with_embeddings and 'embeddings' in instances:
        result['embedding'] = _rounded(instances.embeddings[row], 6)
    return result


def _rounded(values, digits: int):
    return np.round(values.double().numpy(), digits).tolist()

"""A small split on disk in DeepFashion2's layout, and predictions for it that nearly agree."""

import json

import cv2
import numpy as np
import torch
from mmengine.structures import InstanceData

from mmdf2.categories import ATTRIBUTES, CATEGORIES, MAX_LANDMARKS
from mmdf2.datasets.annotation import ImageAnnotation, Item, to_json_dict
from mmdf2.evaluation.evaluate import ResultFiles

SIZE = 64
DIMS = 8


def write_split(root, rng, num_images=26):
    """Writes user images 1, 3, 5, ... and shop images 2, 4, ..., with three pair_ids and styles 0 to 2."""
    for kind in ('image', 'annos'):
        (root / 'validation' / kind).mkdir(parents=True)
    for image_id in range(1, num_images + 1):
        items = [_item(rng, number + 1) for number in range(rng.integers(1, 4))]
        annotation = ImageAnnotation('user' if image_id % 2 else 'shop', (image_id - 1) // 2 % 3 + 1, items)
        name = root / 'validation' / '{}' / f'{image_id:06d}'
        cv2.imwrite(str(name).format('image') + '.jpg', np.zeros((SIZE, SIZE + image_id, 3), np.uint8))
        with open(str(name).format('annos') + '.json', 'w') as file:
            json.dump(to_json_dict(annotation), file)


def _item(rng, number):
    label = int(rng.choice([0, 7, 8]))
    x, y, width, height = np.round(rng.uniform([2, 2, 12, 12], [24, 24, 38, 38]), 2)
    count = CATEGORIES[label].num_landmarks
    visibility = rng.choice([0, 1, 2], (count, 1)) if rng.random() < 0.8 else np.zeros((count, 1))
    points = np.round([x, y] + rng.random((count, 2)) * [width, height], 2)
    box = (x, y, round(x + width, 2), round(y + height, 2))
    corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3] - 3]])
    return Item(
        item_id=number,
        category_id=label + 1,
        style=int(rng.integers(0, 3)),
        bbox=box,
        landmarks=np.concatenate([points * (visibility > 0), visibility], axis=1).astype(np.float32),
        segmentation=[corners] if rng.random() < 0.9 else [corners, corners + 1],
        **dict(zip(ATTRIBUTES, rng.integers(1, 4, 4).tolist(), strict=True)),
    )


def predict(store, rng, match_similarity):
    """A data sample (as MMEngine's evaluator hands it over) for each image of the store, in random order."""
    samples = []
    for index in rng.permutation(len(store)):
        image = store.image(int(index))
        truth = [image.items[i] for i in rng.integers(len(image.items), size=rng.integers(0, 7))]
        samples.append(
            {
                'img_id': image.image_id,
                'ori_shape': (image.height, image.width),
                'pred_instances': _instances(rng, truth, image),
                'gt_box_instances': {
                    'bboxes': torch.tensor([item.bbox for item in image.items]),
                    'labels': torch.tensor([item.label for item in image.items]),
                    'embeddings': torch.stack([_embedding(rng, image, item) for item in image.items]),
                },
                'match_similarity': match_similarity,
            }
        )
    return samples


def _instances(rng, items, image):
    count = len(items)
    instances = InstanceData()
    instances.bboxes = torch.tensor([item.bbox for item in items]).reshape(-1, 4) + torch.tensor(
        rng.normal(0, 1.5, (count, 4)), dtype=torch.float32
    )
    instances.scores = torch.tensor(rng.integers(1, 9, count) / 10, dtype=torch.float32)
    instances.labels = torch.tensor([item.label if rng.random() < 0.85 else 3 for item in items], dtype=torch.long)
    masks = torch.zeros(count, image.height, image.width, dtype=torch.bool)
    keypoints = torch.zeros(count, MAX_LANDMARKS, 2)
    for row, item in enumerate(items):
        x1, y1, x2, y2 = instances.bboxes[row].round().int().clamp(min=0).tolist()
        masks[row, y1:y2, x1:x2] = True
        own = torch.from_numpy(item.landmarks[:, :2] + rng.normal(0, rng.choice([0.3, 1, 3]), (len(item.landmarks), 2)))
        keypoints[row, : len(own)] = own
    instances.masks = masks
    instances.keypoints = keypoints
    instances.keypoint_scores = torch.ones(count, MAX_LANDMARKS)
    embeddings = [_embedding(rng, image, item) for item in items]
    instances.embeddings = torch.stack(embeddings) if embeddings else torch.zeros(0, DIMS)
    return instances.to_dict()


def _embedding(rng, image, item):
    """An embedding; those of items of one identity are near each other."""
    centre = np.random.default_rng([image.pair_id, item.style]).normal(size=DIMS)
    return torch.tensor(centre + rng.normal(0, 0.6, DIMS), dtype=torch.float32)


def files_of(folder, *kinds):
    """The result files ``r.<kind>.json`` of a folder."""
    return ResultFiles(**{kind: folder / f'r.{kind}.json' for kind in kinds})


def run(metric, samples, batch=3):
    """The figures of a metric to which the samples are given in batches."""
    for start in range(0, len(samples), batch):
        metric.process(None, samples[start : start + batch])
    return metric.evaluate(len(samples))


def collected(metric, samples):
    """The results that a metric keeps of samples; the metric is empty again afterwards."""
    metric.process(None, samples)
    results = list(metric.results)
    metric.results.clear()
    return results

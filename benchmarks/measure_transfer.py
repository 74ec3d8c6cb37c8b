"""Measures how well a model that was trained on drawings finds garments on photographs.

    python benchmarks/measure_transfer.py CONFIG CHECKPOINT --clothing-co-parsing clothing-co-parsing
    python benchmarks/measure_transfer.py CONFIG CHECKPOINT --photos deepfashion2/validation

Every garment counts as one class, 'garment'. The box AP is COCO's. With --photos, which are in DeepFashion2's layout
with landmarks, the landmarks are predicted in the ground-truth boxes with the ground-truth categories; a visible
landmark is found if it is predicted within a fifth of the longer side of its box.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmdf2.command_line import UserError, start

if __name__ == '__main__':
    start()

import cv2
import numpy as np
import torch
from mmdet.structures.bbox import scale_boxes
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.io import loadmat
from tqdm import tqdm

from mmdf2.apis import ClothesInferencer
from mmdf2.categories import Visibility
from mmdf2.datasets.annotation import read_annotation
from mmdf2.datasets.listing import list_split
from mmdf2.datasets.prepare import image_size
from mmdf2.files import write_json
from mmdf2.images import read_image

NEAR = 0.2  # of the box's longer side
# Tags of Clothing Co-Parsing that are garments of DeepFashion2's 13 categories.
GARMENT_TAGS = frozenset(
    (
        'blazer', 'blouse', 'bodysuit', 'cape', 'cardigan', 'coat', 'dress', 'hoodie', 'jacket', 'jeans', 'jumper',
        'leggings', 'pants', 'romper', 'shirt', 'shorts', 'skirt', 'suit', 'sweater', 'sweatshirt', 't-shirt', 'top',
        'vest',
    )
)  # fmt: skip
SMALLEST_SHARE = 0.002  # of the image; smaller pieces of a tag are not counted as garments


@dataclass(frozen=True)
class Photo:
    """A photo with its garments.

    Attributes:
        path: The image.
        boxes: (n, 4) x1, y1, x2, y2 of the garments.
        labels: (n,) labels of their categories, or None where they are unknown.
        landmarks: Landmarks (K, 3) of each garment, or None.
    """

    path: Path
    boxes: np.ndarray
    labels: np.ndarray | None = None
    landmarks: list[np.ndarray] | None = None


def deepfashion2_photos(split: Path) -> Iterator[Photo]:
    """Reads photos in the layout of DeepFashion2."""
    for files in list_split(split.parent, split.name).images:
        items = read_annotation(files.annotation, image_size(files.image)).items
        labels = np.array([item.label for item in items])
        yield Photo(files.image, np.array([item.bbox for item in items]), labels, [item.landmarks for item in items])


def clothing_co_parsing_photos(root: Path, every: int) -> Iterator[Photo]:
    """Reads every n-th photo of Clothing Co-Parsing that has a class per pixel; each tag's pixels are one garment."""
    with open(root / 'label_list.mat', 'rb') as file:  # loadmat does not say which file is missing
        names = [str(entry[0]) for entry in loadmat(file)['label_list'][0]]
    wanted = [number for number, name in enumerate(names) if name in GARMENT_TAGS]
    for path in sorted((root / 'annotations/pixel-level').glob('*.mat'))[::every]:
        classes = loadmat(path)['groundtruth']
        boxes = []
        for number in wanted:
            # Single stray pixels are removed, because they would stretch the box.
            mask = cv2.morphologyEx((classes == number).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
            if mask.mean() >= SMALLEST_SHARE:
                x, y, width, height = cv2.boundingRect(mask)
                boxes.append((x, y, x + width, y + height))
        yield Photo(root / 'photos' / f'{path.stem}.jpg', np.array(boxes, dtype=np.float64).reshape(-1, 4))


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--photos', type=Path, help='a split in the layout of DeepFashion2')
    source.add_argument('--clothing-co-parsing', type=Path, help='folder of the Clothing Co-Parsing dataset')
    parser.add_argument(
        '--every', type=int, default=4, help='take every n-th photo of Clothing Co-Parsing (default: 4)'
    )
    parser.add_argument('--out', type=Path, help='also write the figures to this JSON file')
    args = parser.parse_args()
    if args.photos:
        photos = list(deepfashion2_photos(args.photos))
    else:
        photos = list(clothing_co_parsing_photos(args.clothing_co_parsing, args.every))
    if not photos:
        folder = args.photos or args.clothing_co_parsing
        raise UserError(f'{folder} holds no annotated photo; give the folder of the dataset that --help describes.')
    inferencer = ClothesInferencer(args.config, args.checkpoint)
    figures = {'photos': len(photos), 'garments': sum(len(photo.boxes) for photo in photos)}
    figures |= box_figures(inferencer, photos)
    if args.photos:
        figures |= landmark_figures(inferencer, photos)
    print(json.dumps(figures, indent=1))
    if args.out:
        write_json(args.out, figures)


def box_figures(inferencer: ClothesInferencer, photos: list[Photo]) -> dict[str, float]:
    """AP and AP50 of the class 'garment', by pycocotools."""
    truth, found = [], []
    results = inferencer.predict([photo.path for photo in photos])
    for number, (photo, result) in enumerate(zip(photos, tqdm(results, total=len(photos), disable=None), strict=True)):
        for x1, y1, x2, y2 in photo.boxes.tolist():
            box = [x1, y1, x2 - x1, y2 - y1]
            entry = {'id': len(truth) + 1, 'image_id': number, 'category_id': 1, 'bbox': box, 'iscrowd': 0}
            truth.append(entry | {'area': box[2] * box[3]})
        instances = result.data_sample.pred_instances
        for (x1, y1, x2, y2), score in zip(instances.bboxes.tolist(), instances.scores.tolist(), strict=True):
            found.append({'image_id': number, 'category_id': 1, 'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': score})
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            'images': [{'id': number} for number in range(len(photos))],
            'annotations': truth,
            'categories': [{'id': 1, 'name': 'garment'}],
        }
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(found), 'bbox') if found else None
        if evaluation:
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
    stats = evaluation.stats if evaluation else np.zeros(12)
    return {'garment_AP': float(stats[0]), 'garment_AP50': float(stats[1]), 'garment_AR': float(stats[8])}


@torch.no_grad()
def landmark_figures(inferencer: ClothesInferencer, photos: list[Photo]) -> dict[str, float]:
    """Share of visible landmarks that are predicted near their place, in boxes and categories of the ground truth."""
    model, distances = inferencer.model, []
    for photo in photos:
        packed = inferencer.pipeline({'img': np.ascontiguousarray(read_image(photo.path)[..., ::-1]), 'img_id': 0})
        data = model.data_preprocessor(pseudo_collate([packed]), False)
        sample = data['data_samples'][0]
        boxes = torch.tensor(photo.boxes, dtype=torch.float32, device=inferencer.device)
        garments = InstanceData(
            bboxes=scale_boxes(boxes, sample.scale_factor),
            labels=torch.as_tensor(photo.labels, device=inferencer.device),
            scores=torch.ones(len(boxes), device=inferencer.device),
        )
        levels = model.extract_feat(data['inputs'])
        result = model.roi_head.predict_streams(levels, [garments], [sample.metainfo], rescale=True)[0]
        for points, truth, (x1, y1, x2, y2) in zip(result.keypoints.cpu(), photo.landmarks, photo.boxes, strict=True):
            visible = truth[:, 2] == Visibility.VISIBLE
            apart = np.linalg.norm(points[: len(truth)].numpy()[visible] - truth[visible, :2], axis=1)
            distances.append(apart / max(x2 - x1, y2 - y1))
    distance = np.concatenate(distances)
    return {
        'landmarks': len(distance),
        'landmarks_near': float((distance <= NEAR).mean()),
        'landmarks_within_tenth': float((distance <= NEAR / 2).mean()),
        'landmark_distance_median': float(np.median(distance)),
    }


if __name__ == '__main__':
    main()

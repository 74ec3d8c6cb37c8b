"""Makes the files of this folder with the code of mmdf2 0.1.0; README.md beside this script has the command.

The script runs with that version alone. It is kept because it says exactly what the files hold.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image, ImageDraw

from mmdf2 import __version__
from mmdf2.apis import ClothesInferencer
from mmdf2.categories import CATEGORIES
from mmdf2.datasets.annotation import ImageAnnotation, Item, to_json_dict

CHECKOUT = Path.cwd()
TARGET = Path(sys.argv[1])
DATASET = TARGET / 'dataset'
WORK = TARGET / 'work'
EPOCHS = 160
WIDTH, HEIGHT = 96, 64
IMAGES = 12
# The category of the first item of pair_id 1, 2 and 3, and of the second item, which has style 0.
PAIR_CATEGORIES = (1, 1, 8)
SECOND_CATEGORY = 9
CHANNELS = 8


def main() -> None:
    """Makes everything in the order in which a user would."""
    assert __version__ == '0.1.0', f'made with version 0.1.0 alone, this is {__version__}'
    write_dataset()
    tool('prepare_deepfashion2.py', DATASET, '--split', 'validation', '--export', TARGET / 'exchange')
    config = write_config()
    tool('train.py', config, '--work-dir', WORK)
    shutil.copy(WORK / f'epoch_{EPOCHS}.pth', TARGET / 'checkpoint.pth')
    tool(
        *('test.py', config, TARGET / 'checkpoint.pth', '--work-dir', WORK / 'test', '--subsets'),
        *('--dump', TARGET / 'results'),
    )
    metrics = json.loads(max((WORK / 'test').glob('*/*.json')).read_text())
    write_json(TARGET / 'expected' / 'metrics.json', {k: v for k, v in metrics.items() if 'time' not in k})
    kinds = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')
    options = [w for kind in kinds for w in (f'--{kind.replace("_", "-")}', TARGET / f'results/results.{kind}.json')]
    tool('evaluate.py', '--gt', DATASET, *options, '--subsets', '--out', WORK / 'report.json')
    report = json.loads((WORK / 'report.json').read_text())
    (TARGET / 'expected/report.json').write_text(json.dumps(report) + '\n')
    inferencer = ClothesInferencer(config, TARGET / 'checkpoint.pth', device='cpu')
    images = sorted((DATASET / 'validation/image').iterdir())[:3]
    report = inferencer(images, score_threshold=0.05, with_embeddings=True, progress=False)
    predictions = [{**prediction, 'path': None} for prediction in report.predictions]
    write_json(TARGET / 'expected' / 'predictions.json', predictions)
    shutil.rmtree(WORK)


def write_dataset() -> None:
    """Twelve images: four of each pair_id, by turns of a user and of the shop; every second one shows two items."""
    rng = np.random.default_rng(0)
    for folder in ('image', 'annos'):
        (DATASET / 'validation' / folder).mkdir(parents=True)
    for number in range(1, IMAGES + 1):
        pair_id = 1 + (number - 1) // 4
        items = [make_item(rng, 1, PAIR_CATEGORIES[pair_id - 1], 1, (4, 44))]
        if number % 2:
            items.append(make_item(rng, 2, SECOND_CATEGORY, 0, (52, 92)))
        canvas = Image.new('RGB', (WIDTH, HEIGHT), tuple(rng.integers(180, 230, 3).tolist()))
        for item in items:
            shade = 40 + 15 * item.category_id
            colour = (shade, 200 - shade, 12 * (pair_id if item.style else 0))
            ImageDraw.Draw(canvas).polygon([tuple(point) for point in item.segmentation[0]], fill=colour)
        canvas.save(DATASET / f'validation/image/{number:06d}.png')
        annotation = ImageAnnotation(('user', 'shop')[number % 2], pair_id, items)
        write_json(DATASET / f'validation/annos/{number:06d}.json', to_json_dict(annotation))


def make_item(rng, item_id: int, category_id: int, style: int, columns: tuple[int, int]) -> Item:
    """An item between two columns of the image, with its landmarks on an ellipse and a hexagon as its mask."""
    rows = (6, 58)
    x1, x2 = rng.integers(-3, 4, 2) + columns
    y1, y2 = rng.integers(-4, 5, 2) + rows
    count = CATEGORIES[category_id - 1].num_landmarks
    angle = 2 * np.pi * np.arange(count) / count
    x = (x1 + x2) / 2 + (x2 - x1) / 2.2 * np.cos(angle)
    y = (y1 + y2) / 2 + (y2 - y1) / 2.2 * np.sin(angle)
    visibility = rng.choice([0, 1, 2], count, p=[0.1, 0.3, 0.6])
    landmarks = np.stack([x, y, visibility], axis=1).round(2).astype(np.float32)
    landmarks[visibility == 0] = 0
    middle = (y1 + y2) / 2
    polygon = [(x1 + 6, y1), (x2 - 6, y1), (x2, middle), (x2 - 6, y2), (x1 + 6, y2), (x1, middle)]
    attributes = {name: int(rng.integers(1, 4)) for name in ('scale', 'occlusion', 'zoom_in', 'viewpoint')}
    box = (int(x1), int(y1), int(x2), int(y2))
    return Item(
        item_id=item_id,
        category_id=category_id,
        style=style,
        bbox=box,
        landmarks=landmarks,
        segmentation=[np.array(polygon, dtype=np.float64)],
        **attributes,
    )


def write_config() -> Path:
    """The paper's config with very few channels, as one text file; training and testing read the same split."""
    config = Config.fromfile(CHECKOUT / 'configs/match_rcnn/match-rcnn-pose_r50_fpn_1x_deepfashion2.py')
    model = config.model
    model.backbone.update(depth=18, base_channels=4, frozen_stages=-1, norm_eval=False, init_cfg=None)
    model.neck.update(in_channels=[4, 8, 16, 32], out_channels=CHANNELS)
    model.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    head = model.roi_head
    head.bbox_roi_extractor.out_channels = head.mask_roi_extractor.out_channels = CHANNELS
    head.bbox_head.update(in_channels=CHANNELS, fc_out_channels=24)
    head.mask_head.update(in_channels=CHANNELS, conv_out_channels=CHANNELS, num_convs=1)
    head.keypoint_head.update(in_channels=CHANNELS, conv_channels=8, num_convs=2)
    head.match_head.update(in_channels=8, conv_channels=(8, 16), embed_dims=8)
    model.train_cfg.rcnn.sampler.num = 32
    model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
    model.test_cfg.rpn.update(nms_pre=100, max_per_img=20)
    model.test_cfg.rcnn.update(score_thr=0.05, max_per_img=6)
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.data_root = 'tests/data/v0.1.0/dataset'
    for loader in (config.train_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.update(data_root=str(DATASET), split='validation')
        for transform in loader.dataset.pipeline:
            if transform['type'] == 'mmdf2.Resize':
                transform['scale'] = (WIDTH, HEIGHT)
    for metric in config.test_evaluator:
        metric.data_root = str(DATASET)
    config.randomness = {'seed': 0}
    config.train_cfg.max_epochs = EPOCHS
    config.param_scheduler = [{'type': 'CosineAnnealingLR', 'by_epoch': True, 'begin': 0, 'end': EPOCHS}]
    config.optim_wrapper = {'type': 'OptimWrapper', 'optimizer': {'type': 'Adam', 'lr': 0.004}}
    config.default_hooks.checkpoint.update(interval=EPOCHS, save_optimizer=False)
    config.dump(TARGET / 'config.py')
    return TARGET / 'config.py'


def tool(name: str, *arguments) -> None:
    """Runs one of the checkout's tools as a user does."""
    subprocess.run([sys.executable, str(CHECKOUT / 'tools' / name), *map(str, arguments)], check=True)


def write_json(path: Path, value) -> None:
    """Writes a value with one number per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + '\n')


if __name__ == '__main__':
    main()

"""Measures how long it takes to make and to open a store, on made annotation of DeepFashion2's size.

    python benchmarks/benchmark_store.py --dir /some/disk
    python benchmarks/benchmark_store.py --dir /some/disk --images 20000

The training split has 191,961 images with 312,186 items. The made images are links to one small JPEG, since only their
headers are read. The made dataset is kept, so that a second run does nothing but measure.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from mmdf2.categories import CATEGORIES
from mmdf2.datasets.prepare import prepare

TRAIN_IMAGES, TRAIN_ITEMS = 191_961, 312_186
LINKS_PER_FILE = 50_000  # file systems allow a few more
OPEN = """
import resource, sys, time
from mmdf2.datasets.deepfashion2 import DeepFashion2Dataset
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = used(), time.perf_counter()
dataset = DeepFashion2Dataset(sys.argv[1], 'train')
seconds, after = time.perf_counter() - start, used()
step = max(1, len(dataset) // 2000)
start = time.perf_counter()
for index in range(0, len(dataset), step):
    dataset.get_data_info(index)
each = (time.perf_counter() - start) / len(range(0, len(dataset), step))
print(f'dataset of {len(dataset)} images constructed in {seconds:.2f} s; resident memory {after:.0f} MB, '
      f'of which {before:.0f} MB are imports; {each * 1000:.3f} ms per get_data_info')
"""


def make_dataset(root: Path, images: int, seed: int = 0) -> None:
    """Writes a training split with a number of images, whose items per image are those of the published split."""
    rng = random.Random(seed)
    folder = root / 'train'
    (folder / 'image').mkdir(parents=True, exist_ok=True)
    (folder / 'annos').mkdir(exist_ok=True)
    pictures = []
    for number in tqdm(range(images), desc='making annotation', disable=None):
        if number % LINKS_PER_FILE == 0:
            pictures.append(root / f'picture{len(pictures)}.jpg')
            Image.new('RGB', (468, 702), 'white').save(pictures[-1])
        name = f'{number + 1:06d}'
        picture = folder / 'image' / f'{name}.jpg'
        picture.unlink(missing_ok=True)
        os.link(pictures[-1], picture)
        second = (number + 1) * TRAIN_ITEMS // TRAIN_IMAGES - number * TRAIN_ITEMS // TRAIN_IMAGES
        items = {f'item{index + 1}': make_item(rng) for index in range(second)}
        head = {'source': 'shop' if number % 3 else 'user', 'pair_id': number // 6 + 1}
        (folder / 'annos' / f'{name}.json').write_text(json.dumps({**head, **items}))


def make_item(rng: random.Random) -> dict:
    """Makes an item with 60 polygon points, about as many as annotated items have."""
    category = CATEGORIES[rng.randrange(13)]
    x1, y1 = rng.randrange(0, 100), rng.randrange(0, 200)
    x2, y2 = x1 + rng.randrange(150, 360), y1 + rng.randrange(200, 500)
    landmarks, polygon = [], []
    for _ in range(category.num_landmarks):
        landmarks += rng.randrange(x1, x2), rng.randrange(y1, y2), rng.randrange(1, 3)
    for _ in range(60):
        polygon += rng.randrange(x1, x2) + 0.25, rng.randrange(y1, y2) + 0.5
    return {
        'segmentation': [polygon],
        'scale': rng.randrange(1, 4),
        'viewpoint': rng.randrange(1, 4),
        'zoom_in': rng.randrange(1, 4),
        'landmarks': landmarks,
        'style': rng.randrange(0, 3),
        'bounding_box': [x1, y1, x2, y2],
        'category_id': category.id,
        'occlusion': rng.randrange(1, 4),
        'category_name': category.name,
    }


def main():
    parser = argparse.ArgumentParser(description='Measure how long it takes to make and to open a store.')
    parser.add_argument('--dir', required=True, help='where to make the dataset; about 5 KB per image')
    parser.add_argument('--images', type=int, default=TRAIN_IMAGES, help='number of images (default: %(default)s)')
    parser.add_argument('--workers', type=int, help='processes (default: one per core)')
    args = parser.parse_args()
    root = Path(args.dir)
    annotations = root / 'train' / 'annos'
    if not annotations.is_dir() or sum(1 for _ in os.scandir(annotations)) != args.images:
        shutil.rmtree(root / 'train', ignore_errors=True)
        make_dataset(root, args.images)
    shutil.rmtree(root / 'train.store', ignore_errors=True)
    start = time.perf_counter()
    report = prepare(root, 'train', workers=args.workers)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in report.folder.iterdir()) / 2**20
    print(f'store of {report.images} images, {report.items} items, {size:.0f} MB prepared in {seconds:.1f} s')
    subprocess.run([sys.executable, '-c', OPEN, str(root)], check=True)


if __name__ == '__main__':
    main()

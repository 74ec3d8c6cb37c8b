"""Draws a wardrobe, trains Match R-CNN on it, tests all four tasks and shows what the model learned.

    python tools/demo.py --work-dir work_dirs/demo --images my_photos

Everything is in --work-dir: summary.json, results.md, pictures/, the checkpoint and logs. An interrupted run continues
where it stopped. A finished one is not trained again unless --fresh is given or the recipe has changed.
"""

import argparse
import contextlib
import hashlib
import json
import shutil
import time
from pathlib import Path

from mmdf2.command_line import UserError, start

if __name__ == '__main__':
    start('The same command continues where this one stopped.')

import numpy as np
from mmengine.config import Config

from mmdf2.analysis.retrieval_errors import rows_of_results
from mmdf2.apis import ClothesInferencer
from mmdf2.apis.inputs import list_inputs
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.engine import guard_checkpoint_loading, run_test
from mmdf2.engine.launching import config_of_run, last_checkpoint, launch_training
from mmdf2.evaluation.evaluate import ResultFiles, evaluate_files
from mmdf2.evaluation.report.tables import summary_table, write_report
from mmdf2.files import lock_beside, locked, write_json, write_text
from mmdf2.images import write_image
from mmdf2.visualization import draw_instance_data, draw_items, draw_retrieval_rows
from mmdf2.wardrobe import make_wardrobe
from mmdf2.wardrobe.version import CURRENT_VERSION

TOOLS = Path(__file__).resolve().parent
CONFIG = TOOLS.parent / 'configs/synthetic/match-rcnn_r18-narrow_wardrobe.py'
IMAGE_SIZE = 320
PREDICTION_PICTURES = 24
SCORE_THRESHOLD = 0.4
SUMMARY_KEYS = (
    'bbox_AP',
    'segm_AP',
    'keypoints_AP_visible',
    'keypoints_AP_all',
    'retrieval_top1',
    'retrieval_top10',
    'retrieval_top20',
    'retrieval_gt_top1',
    'retrieval_chance_top1',
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo'), help='folder of the run (default: work_dirs/demo)'
    )
    parser.add_argument('--config', type=Path, default=CONFIG, help='the recipe (default: the wardrobe recipe)')
    parser.add_argument('--images', type=Path, help='folder of your own photos, to run the trained model on')
    parser.add_argument('--identities', type=int, default=800, help='identities to train on (default: 800)')
    parser.add_argument(
        '--validation-identities', type=int, default=280, help='other identities to test on (default: 280)'
    )
    # The backbone that the recipe starts from was trained on the garments of seed 0.
    parser.add_argument('--seed', type=int, default=1, help='seed of the wardrobe and of the training (default: 1)')
    parser.add_argument('--fresh', action='store_true', help='start over even if --work-dir holds a finished run')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Runs the demo."""
    args = parse_args(argv)
    if args.images and not args.images.exists():
        raise UserError(f'--images {args.images}: there is no such image or folder; correct the path.')
    if args.images and not list_inputs(args.images)[0]:
        raise UserError(f'--images {args.images}: there is no image in it; name a photo, or a folder of photos.')
    guard_checkpoint_loading()
    config = load_config(args)
    with alone(args.work_dir):
        run(args, config)


def alone(work_dir: Path) -> contextlib.AbstractContextManager[None]:
    """A block that one demo of a folder is in; a second one ends at once, because it could empty the folder."""

    def refuse() -> None:
        raise UserError(f'--work-dir {work_dir}: another demo is running there; wait for it, or name another folder.')

    return locked(lock_beside(work_dir.resolve()), refuse)


def run(args: argparse.Namespace, config: Config) -> None:
    """Draws, trains, tests and shows."""
    begin(args, config)
    data_root = Path(config.data_root)
    make_wardrobe(
        data_root, args.identities, args.seed, validation_identities=args.validation_identities, size=IMAGE_SIZE
    )
    checkpoint, train_seconds = train(config)
    metrics = test(config, checkpoint)
    draw(args.work_dir, config, checkpoint)
    report(args.work_dir, metrics, train_seconds)
    if args.images:
        predict(args.images, args.work_dir / 'your_images', config, checkpoint)


def load_config(args: argparse.Namespace) -> Config:
    """Reads the recipe and points it at this run's wardrobe and folder."""
    config = config_of_run(args.config, args.work_dir, args.seed)
    config.test_dataloader.dataset.data_root = config.data_root
    for evaluator in config.test_evaluator:
        evaluator.data_root = config.data_root
        evaluator.outfile_prefix = str(args.work_dir / 'results')
    return config


def begin(args: argparse.Namespace, config: Config) -> None:
    """Empties --work-dir if it holds a run of another recipe, so that the results are always those of this one."""
    counts = f'{args.identities} {args.validation_identities} {args.seed}'
    recipe = hashlib.sha256(f'{config.pretty_text}\n{counts}'.encode()).hexdigest()
    mark = args.work_dir / 'recipe.sha256'
    # Only a folder that carries the mark is the demo's own to empty.
    if mark.exists() and (args.fresh or mark.read_text() != recipe):
        print(f'Starting over in {args.work_dir}')
        shutil.rmtree(args.work_dir)
    elif not mark.exists() and args.work_dir.exists() and any(args.work_dir.iterdir()):
        raise UserError(f'--work-dir {args.work_dir} holds something else than a run of the demo; name another folder.')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    write_text(mark, recipe)


def train(config: Config) -> tuple[Path, float]:
    """Trains, continues, or finds the training done; returns the checkpoint and the seconds that it took in all."""
    checkpoint = last_checkpoint(config)
    clock = Path(config.work_dir) / 'train_seconds.json'
    try:
        before = float(json.loads(clock.read_text()))
    except (OSError, ValueError, TypeError):  # nothing was trained yet, or the file is damaged
        before = 0.0
    if not checkpoint.exists():
        start = time.monotonic()
        try:
            launch_training(config, TOOLS / 'train.py')
        finally:
            before += time.monotonic() - start
            write_json(clock, before)
    return checkpoint, before


def test(config: Config, checkpoint: Path) -> dict[str, float]:
    """Returns the metrics of all four tasks, on garments and images that training never saw."""
    config = config.copy()
    config.load_from, config.resume = str(checkpoint), False
    return run_test(config)


def draw(work_dir: Path, config: Config, checkpoint: Path) -> None:
    """Draws test images, ground truth on the left and predictions on the right, and queries with their hits."""
    images = Path(config.data_root) / 'validation' / 'image'
    store = open_or_prepare(config.data_root, 'validation')
    pictures = work_dir / 'pictures'
    records = [store.image(index) for index in range(0, len(store), -(-len(store) // PREDICTION_PICTURES))]
    predicted = ClothesInferencer(config, checkpoint).predict([images / record.file_name for record in records])
    for record, result in zip(records, predicted, strict=True):
        if result.error is not None:
            print(f'no picture of {record.file_name}: {result.error}')
            continue
        sides = (
            draw_items(result.image, record.items),
            draw_instance_data(result.image, result.data_sample.pred_instances, score_threshold=SCORE_THRESHOLD),
        )
        write_image(pictures / f'{Path(record.file_name).stem}.jpg', np.concatenate(sides, axis=1))
    results = json.loads((work_dir / 'results.retrieval.json').read_text())
    write_image(pictures / 'retrieval.jpg', draw_retrieval_rows(rows_of_results(results, store, images)))


def report(work_dir: Path, metrics: dict[str, float], train_seconds: float) -> None:
    """Prints the table of all tasks and writes summary.json, results.md and the paper's tables as tables.*."""
    summary = {key: metrics[key] for key in SUMMARY_KEYS}
    summary |= {'train_seconds': train_seconds, 'wardrobe_version': CURRENT_VERSION.number}
    write_json(work_dir / 'summary.json', summary)
    write_text(work_dir / 'results.md', summary_table(metrics, markdown=True) + '\n')
    print(f'\n{summary_table(metrics)}\n')
    print(f'Trained in {train_seconds / 60:.1f} minutes on version {CURRENT_VERSION.number} of the wardrobe.')
    print(f'Pictures: {work_dir / "pictures"}')
    kinds = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')
    files = ResultFiles(**{kind: work_dir / f'results.{kind}.json' for kind in kinds})
    tables = write_report(evaluate_files(files, work_dir / 'wardrobe', subsets=True), work_dir / 'tables.json')
    paths = [work_dir / 'summary.json', work_dir / 'results.md', *tables]
    print('Figures: ' + ', '.join(map(str, paths)))


def predict(images: Path, out_dir: Path, config: Config, checkpoint: Path) -> None:
    """Runs the trained model on a folder of photos."""
    ClothesInferencer(config, checkpoint)(images, out_dir=out_dir)
    print(f'Your images: {out_dir}')


if __name__ == '__main__':
    main()

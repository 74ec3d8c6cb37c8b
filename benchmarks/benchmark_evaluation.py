"""Measures tools/evaluate.py on made results of the validation split's size, and other evaluators on a part of it.

    python benchmarks/benchmark_evaluation.py --dir /some/disk
    python benchmarks/benchmark_evaluation.py --dir /some/disk --images 2000 --part 500

The released validation split has 32,153 images with 51,490 items; here each image has four detections. The whole split
is evaluated in all four tasks and thirteen columns, and the time includes reading the files. On the part, mmdf2,
pycocotools and (if it is installed) faster-coco-eval read the same files, one task and one column at a time. The made
files are left in place, so that a second run only measures.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

from made_split import IMAGES, make_results, make_split
from measuring import measured

from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import prepare
from mmdf2.datasets.store import Store

TOOLS = Path(__file__).resolve().parents[1] / 'tools'
TASKS = {'bbox': 'bbox', 'segm': 'segm', 'keypoints_all': 'keypoints'}
OTHERS = {'pycocotools': 'pycocotools', 'faster-coco-eval': 'faster_coco_eval'}


def main() -> None:
    """Makes the files that are missing, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', type=Path, required=True, help='the folder of the made files (about 1 GB)')
    parser.add_argument('--images', type=int, default=IMAGES, help='number of images of the whole split')
    parser.add_argument('--part', type=int, default=2000, help='number of images of the part')
    parser.add_argument('--run', nargs=4, help=argparse.SUPPRESS)
    parser.add_argument('--make', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.dir, args.images)
        return
    if args.run:
        print(json.dumps(run_one(*args.run)))
        return
    whole, part = (made(args.dir / str(images), images) for images in (args.images, args.part))
    results = [f'--{kind}={whole / f"results.{kind}.json"}' for kind in ('bbox', 'segm', 'keypoints', 'retrieval')]
    size = sum(path.stat().st_size for path in whole.glob('results.*.json')) / 1e6
    command = [str(TOOLS / 'evaluate.py'), f'--gt={whole}', *results, '--subsets', f'--out={whole / "report.json"}']
    run = measured(command)
    print(f'{args.images} images, four tasks, thirteen columns, {size:.0f} MB of results read:')
    print(f'    {run.seconds:.1f} s, peak memory {run.largest / 2**20:.0f} MB (both include the start of Python)\n')
    compare(part, args.part)


def made(folder: Path, images: int) -> Path:
    """Returns the folder of a split with its store, exchange files and results, and makes it when it is missing."""
    if not (folder / 'finished').exists():
        # This is done in another process, because the peak memory of a process that is started later begins at ours.
        command = [sys.executable, __file__, '--make', '--dir', str(folder), '--images', str(images)]
        subprocess.run(command, check=True)
    return folder


def make(folder: Path, images: int) -> None:
    """Makes a split with its store, exchange files and results."""
    make_results(folder, make_split(folder, images))
    export(Store.open(prepare(folder, 'validation').folder), folder, 'validation')
    (folder / 'finished').touch()


def compare(folder: Path, images: int) -> None:
    """Prints time, peak memory and AP of every evaluator on every task."""
    print(f'{images} images, one task and the overall column; the time includes reading the files:')
    print(f'    {"task":<15}{"evaluator":<18}{"seconds":>8}{"ratio":>8}{"MB":>7}{"AP":>12}')
    for task in TASKS:
        own = None
        for evaluator in ('mmdf2', *OTHERS):
            if OTHERS.get(evaluator) and importlib.util.find_spec(OTHERS[evaluator]) is None:
                print(f'    {task:<15}{evaluator:<18}  not installed')
                continue
            gt, found = exchange_files(folder, task)
            command = [__file__, '--dir', str(folder), '--run', evaluator, task, str(gt), str(found)]
            run = measured(command)
            figures = run.numbers()
            own = own or figures['seconds']
            ratio = figures['seconds'] / own
            line = f'{figures["seconds"]:>8.2f}{ratio:>8.1f}{run.largest / 2**20:>7.0f}{figures["AP"]:>12.6f}'
            print(f'    {task:<15}{evaluator:<18}{line}')


def exchange_files(folder: Path, task: str) -> tuple[Path, Path]:
    """Returns the paths of a task's ground truth and results in COCO's format."""
    gt = 'keypoints_val_vis_and_occ.json' if task.startswith('keypoints') else 'instances_val.json'
    return folder / gt, folder / f'results.{TASKS[task]}.json'


def run_one(evaluator: str, task: str, gt: str, found: str) -> dict[str, float]:
    """Returns seconds and AP of one evaluator on one task; imports are not counted."""
    run = run_own if evaluator == 'mmdf2' else prepare_other(evaluator)
    start = time.perf_counter()
    precision = run(task, gt, found)
    return {'seconds': time.perf_counter() - start, 'AP': precision}


def run_own(task: str, gt: str, found: str) -> float:
    """Evaluates the files with mmdf2 and returns the AP."""
    # Imported here, so that the other evaluators are measured without it.
    from mmdf2.evaluation.evaluate import ResultFiles, evaluate_files

    return evaluate_files(ResultFiles(**{TASKS[task]: Path(found)}), gt)[task]['overall']['AP']


def prepare_other(evaluator: str):
    """Returns a function as :func:`run_own`, of pycocotools or faster-coco-eval.

    It uses the official OKS sigmas and the official limit of detections per image.
    """
    # Imported here, so that the time and the memory of one evaluator do not include another one.
    import numpy as np

    from mmdf2.categories import CATEGORIES
    from mmdf2.evaluation.coco import MAX_DETECTIONS

    if evaluator == 'pycocotools':
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval

    def run(task: str, gt: str, found: str) -> float:
        truth = COCO(gt)
        evaluation = COCOeval(truth, truth.loadRes(found), TASKS[task])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ['all']
        evaluation.params.maxDets = [MAX_DETECTIONS[task]]
        evaluation.params.kpt_oks_sigmas = np.concatenate([category.oks_sigmas for category in CATEGORIES])
        evaluation.evaluate()
        evaluation.accumulate()
        precision = np.asarray(evaluation.eval['precision'])
        return float(precision[precision > -1].mean())

    return run


if __name__ == '__main__':
    main()

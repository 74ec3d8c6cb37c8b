"""Shows a dataset, or the failures of results, as one self-contained page, and the numbers as JSON.

python tools/analyze.py dataset --store data/deepfashion2/validation.store --out statistics
python tools/analyze.py errors --gt data/deepfashion2 --bbox results.bbox.json --retrieval retrieved.json --out failures
"""

import argparse
import math
from pathlib import Path

from mmdf2.command_line import UserError, require_folder, require_input, start

if __name__ == '__main__':
    start()

from mmdf2.analysis.dataset_page import dataset_page
from mmdf2.analysis.detection_errors import with_boxes
from mmdf2.analysis.error_page import error_numbers, error_page
from mmdf2.analysis.error_report import TASKS, report_errors
from mmdf2.analysis.page import write_numbers
from mmdf2.analysis.statistics import dataset_statistics
from mmdf2.datasets.prepare import open_annotation
from mmdf2.evaluation.files.detections import read_detections
from mmdf2.evaluation.files.retrieval import read_retrieved_lists
from mmdf2.evaluation.truth import source_of_store
from mmdf2.files import write_text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    dataset = commands.add_parser('dataset', help='write OUT/dataset.html and OUT/dataset.json')
    dataset.add_argument('--store', required=True, help="a store, a split's folder, or the dataset's folder")
    dataset.add_argument('--split', default='validation', help="split in the dataset's folder (default: validation)")
    dataset.add_argument('--out', required=True, metavar='DIR', help='folder to write to')
    errors = commands.add_parser('errors', help='write OUT/errors.html and OUT/errors.json of official result files')
    errors.add_argument('--gt', required=True, help="ground truth: a store, a split's folder, or the dataset's folder")
    errors.add_argument('--split', default='validation', help="split in the dataset's folder (default: validation)")
    for kind in TASKS:
        errors.add_argument(f'--{kind}', metavar='JSON', help=f'COCO results of type {kind}')
    errors.add_argument(
        '--retrieval', metavar='JSON', nargs='+', default=[], help='retrieved lists; the first file is shown in detail'
    )
    errors.add_argument('--images', metavar='DIR', help="folder with the images (default: the split's)")
    errors.add_argument('--out', required=True, metavar='DIR', help='folder to write to')
    errors.add_argument(
        '--score',
        type=float,
        help='lowest score of the detections to look at (default: the one with the best F1 at IoU 0.5)',
    )
    errors.add_argument('--worst', type=int, default=12, metavar='N', help='number of pictures per kind (default: 12)')
    args = parser.parse_args(argv)
    if args.command == 'errors':
        if not args.retrieval and not any(getattr(args, kind) for kind in TASKS):
            parser.error('give at least one of --bbox, --segm, --keypoints, --retrieval')
        if args.worst < 1:
            parser.error(f'--worst must be 1 or more, got {args.worst}')
        if args.score is not None and not math.isfinite(args.score):
            parser.error(f'--score must be finite, got {args.score}')
        if args.images and not Path(args.images).is_dir():
            raise UserError(f'--images {args.images}: there is no such folder; correct the path.')
    return args


def show_dataset(args: argparse.Namespace) -> list[Path]:
    """Writes the page and the numbers of a dataset; returns their paths."""
    store, _ = open_annotation(args.store, args.split)
    statistics = dataset_statistics(store)
    out = Path(args.out)
    write_text(out / 'dataset.html', dataset_page(statistics, store.folder.name))
    write_numbers(out / 'dataset.json', statistics)
    return [out / 'dataset.html', out / 'dataset.json']


def show_errors(args: argparse.Namespace) -> list[Path]:
    """Writes the page and the numbers of a system's failures; returns their paths."""
    for option, paths in (*((kind, [getattr(args, kind)]) for kind in TASKS), ('retrieval', args.retrieval)):
        for path in filter(None, paths):
            require_input(f'--{option}', path)
    store, images = open_annotation(args.gt, args.split)
    files = {kind: getattr(args, kind) for kind in TASKS if getattr(args, kind)}
    source = source_of_store(store, masks='segm' in files)
    bare = source.bare()
    results = {kind: with_boxes(read_detections(path, kind, source.sizes, bare)) for kind, path in files.items()}
    names = [Path(path).name for path in args.retrieval]
    if len(set(names)) < len(names):
        names = args.retrieval
    lists = {name: read_retrieved_lists(path) for name, path in zip(names, args.retrieval, strict=True)}
    report = report_errors(store, source.ground_truth, results, lists, args.score)
    out, images = Path(args.out), Path(args.images) if args.images else images
    write_text(out / 'errors.html', error_page(report, store, images, args.worst))
    write_numbers(out / 'errors.json', error_numbers(report))
    return [out / 'errors.html', out / 'errors.json']


def main(argv: list[str] | None = None) -> None:
    """Runs one of the commands."""
    args = parse_args(argv)
    require_folder('--out', args.out)
    commands = {'dataset': show_dataset, 'errors': show_errors}
    for path in commands[args.command](args):
        print(f'wrote {path}')


if __name__ == '__main__':
    main()

"""Shows a dataset, or the failures of results, as one self-contained page and the numbers as JSON.

python tools/analyze.py dataset --store data/deepfashion2/validation.store --out statistics
"""

import argparse
import sys
from pathlib import Path

from mmdf2.analysis.dataset_page import dataset_page
from mmdf2.analysis.page import write_numbers, write_text
from mmdf2.analysis.sources import open_annotation
from mmdf2.analysis.statistics import dataset_statistics
from mmdf2.datasets.prepare import PrepareError
from mmdf2.datasets.store import StoreError


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    dataset = commands.add_parser('dataset', help="the paper's statistics: OUT/dataset.html, OUT/dataset.json")
    dataset.add_argument('--store', required=True, help="a store, a split's folder, or the dataset's folder")
    dataset.add_argument('--split', default='validation', help="split of the dataset's folder (default: validation)")
    dataset.add_argument('--out', required=True, metavar='DIR', help='where to write')
    return parser.parse_args()


def show_dataset(args: argparse.Namespace) -> list[Path]:
    """Writes the page and the numbers of a dataset."""
    store, _ = open_annotation(args.store, args.split)
    statistics = dataset_statistics(store)
    out = Path(args.out)
    return [
        write_text(out / 'dataset.html', dataset_page(statistics, store.folder.name)),
        write_numbers(out / 'dataset.json', statistics),
    ]


def main() -> None:
    """Runs one of the commands."""
    args = parse_args()
    commands = {'dataset': show_dataset}
    try:
        for path in commands[args.command](args):
            print(f'wrote {path}')
    except (OSError, ValueError, PrepareError, StoreError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()

"""Makes the stores of a dataset in DeepFashion2's layout and, on request, the official exchange files.

python tools/prepare_deepfashion2.py ROOT
python tools/prepare_deepfashion2.py ROOT --split validation --export ground_truth
"""

import argparse
from pathlib import Path

from mmdf2.command_line import UserError, require_folder, start

if __name__ == '__main__':
    start()

from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import prepare
from mmdf2.datasets.store import Store


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', help='folder with train/ and validation/, each with image/ and annos/')
    parser.add_argument('--split', nargs='+', help='splits to prepare (default: train, validation)')
    parser.add_argument('--store', help='folder of the store, for one split (default: ROOT/<split>.store)')
    parser.add_argument('--workers', type=int, help='number of processes (default: one per core)')
    parser.add_argument(
        '--strict', action='store_true', help='decode all images, and refuse the dataset if anything is wrong'
    )
    parser.add_argument('--force', action='store_true', help='make the stores again, even if they exist')
    parser.add_argument('--export', metavar='DIR', help='also write COCO-style ground truth and the retrieval files')
    args = parser.parse_args(argv)
    args.split = args.split or [name for name in ('train', 'validation') if Path(args.root, name).is_dir()]
    if not args.split:
        raise UserError(f'{args.root} has neither a train nor a validation folder; give the folder that holds them.')
    if args.store and len(args.split) != 1:
        parser.error('--store names one folder, so give one --split with it')
    return args


def main(argv: list[str] | None = None) -> None:
    """Makes the stores and writes the exchange files."""
    args = parse_args(argv)
    if args.export:
        require_folder('--export', args.export)
    for split in args.split:
        report = prepare(args.root, split, args.store, args.workers, args.strict, args.force)
        print(report)
        if args.export:
            for path in export(Store.open(report.folder), args.export, split):
                print(f'wrote {path}')


if __name__ == '__main__':
    main()

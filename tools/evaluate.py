"""Evaluates result files of any system by DeepFashion2's protocols, and prints the paper's Tables 2 to 5.

    python tools/evaluate.py --gt data/deepfashion2 --bbox results.bbox.json --segm results.segm.json \\
        --keypoints results.keypoints.json --retrieval results.retrieval.json --subsets --out report.json

Ground truth is a folder in DeepFashion2's layout, a store made of it, or a JSON file in COCO's format.
docs/evaluation.md describes the formats and what each figure means.
"""

import argparse
from pathlib import Path

from mmdf2.command_line import require_file, require_input, start

if __name__ == '__main__':
    start()

from mmdf2.evaluation.evaluate import ResultFiles, evaluate_files
from mmdf2.evaluation.report.tables import report_paths, report_text, write_report


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gt', help='ground truth: a dataset folder, a store or a COCO-style JSON file')
    parser.add_argument('--split', default='validation', help="split in the dataset's folder (default: validation)")
    results = parser.add_argument_group('results, at least one')
    results.add_argument('--bbox', type=Path, metavar='F', help='COCO results with boxes')
    results.add_argument('--segm', type=Path, metavar='F', help='COCO results with masks')
    results.add_argument('--keypoints', type=Path, metavar='F', help='COCO results with all 294 landmarks')
    results.add_argument('--retrieval', type=Path, metavar='F', help='official retrieval results of detected boxes')
    results.add_argument(
        '--retrieval-gt', type=Path, metavar='F', help='official retrieval results of ground-truth boxes'
    )
    results.add_argument(
        '--verification', type=Path, metavar='F', help='a list of pairs {"score": ..., "same": 0 or 1}'
    )
    parser.add_argument(
        '--query-gt', metavar='F', help='val_query.json (default: made from --gt, if that is a folder or a store)'
    )
    parser.add_argument('--gallery-gt', metavar='F', help='val_gallery.json (default: as for --query-gt)')
    parser.add_argument('--subsets', action='store_true', help="the paper's thirteen columns, not only the overall one")
    parser.add_argument('--out', type=Path, metavar='REPORT.json', help='write the report, with .md and .csv beside it')
    args = parser.parse_args(argv)
    try:
        report_paths(args.out or 'report.json')
    except ValueError as error:
        parser.error(f'--out: {error}')
    return args


def main(argv: list[str] | None = None) -> None:
    """Evaluates, prints the report and writes it."""
    args = parse_args(argv)
    for path in report_paths(args.out) if args.out else ():
        require_file('--out', path)
    results = {name: getattr(args, name) for name in ResultFiles.__dataclass_fields__}
    for name, path in (*results.items(), ('query_gt', args.query_gt), ('gallery_gt', args.gallery_gt)):
        if path is not None:
            require_input(f'--{name.replace("_", "-")}', path)
    report = evaluate_files(ResultFiles(**results), args.gt, args.split, args.query_gt, args.gallery_gt, args.subsets)
    print(report_text(report))
    for path in write_report(report, args.out) if args.out else ():
        print(f'wrote {path}')


if __name__ == '__main__':
    main()

"""Masks from landmarks, for annotators: contours through the landmarks, and whether they cover the annotated masks.

    python tools/mask_tool.py data/deepfashion2 --split validation --out contours
    python tools/mask_tool.py my_photos --split new --out contours --fill

Reads ROOT/<split>/image and ROOT/<split>/annos. Writes OUT/contours.jsonl (a line an item: its polygons, share of the
annotated mask inside, IoU) and OUT/contours.html, which shows the items that the contour covers least. --fill also
writes OUT/annos: the annotation, with the contour as segmentation of every item that has none.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmdf2.analysis.contours import LEAST_INSIDE, ItemContour, contour_page, item_contour, worst_first
from mmdf2.datasets.annotation import AnnotationError, ImageAnnotation, Problem, read_annotation, to_json_dict
from mmdf2.datasets.listing import ImageFiles, list_split
from mmdf2.datasets.prepare import image_size
from mmdf2.files import write_text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', help="folder in the dataset's layout")
    parser.add_argument('--split', default='validation', help='its split (default: validation)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='where to write')
    parser.add_argument('--fill', action='store_true', help='write annotation with contours where masks are missing')
    parser.add_argument('--least-inside', type=float, default=LEAST_INSIDE, metavar='SHARE', help=argparse.SUPPRESS)
    parser.add_argument('--worst', type=int, default=24, metavar='N', help='pictures (default: 24)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Reads, draws, writes and prints."""
    args = parse_args(argv)
    try:
        listing = list_split(args.root, args.split)
    except FileNotFoundError as error:
        sys.exit(f'error: {error}')
    contours, problems, filled = [], list(listing.problems), 0
    for files in tqdm(listing.images, desc='contours', disable=None):
        try:
            annotation, found = contours_of(files, problems)
        except (AnnotationError, OSError) as error:
            problems.append(error)
            continue
        contours += found
        if args.fill:
            filled += write_filled(args.out / 'annos' / files.annotation.name, annotation, found)
    paths = [args.out / 'contours.jsonl', args.out / 'contours.html']
    write_text(paths[0], ''.join(json.dumps(line_of(contour)) + '\n' for contour in contours))
    write_text(paths[1], page_of(args, contours))
    report(args, contours, problems, filled, paths)


def contours_of(files: ImageFiles, problems: list) -> tuple[ImageAnnotation, list[ItemContour]]:
    """An image's annotation and the contours of its items; what is wrong with it is added to the problems."""
    width, height = image_size(files.image)

    def note(problem: Problem) -> None:
        if problem.kind != 'no mask':  # what --fill is for
            problems.append(problem)

    annotation = read_annotation(files.annotation, (width, height), note)
    return annotation, [item_contour(files.image.name, item, height, width) for item in annotation.items]


def write_filled(path: Path, annotation: ImageAnnotation, contours: list[ItemContour]) -> int:
    """Writes the annotation, contours standing in for missing masks; returns how many do."""
    filled = 0
    for item, contour in zip(annotation.items, contours, strict=True):
        if not item.segmentation and contour.polygons:
            item.segmentation = contour.polygons
            filled += 1
    write_text(path, json.dumps(to_json_dict(annotation)))
    return filled


def line_of(contour: ItemContour) -> dict:
    """The line of contours.jsonl."""
    covered = contour.coverage
    return {
        'image': contour.name,
        'item': contour.item.item_id,
        'category_id': contour.item.category_id,
        'contour': [np.round(polygon, 2).ravel().tolist() for polygon in contour.polygons],
        'inside': None if covered is None else round(covered.inside, 4),
        'iou': None if covered is None else round(covered.iou, 4),
    }


def page_of(args: argparse.Namespace, contours: list[ItemContour]) -> str:
    """The page."""
    return contour_page(contours, Path(args.root, args.split, 'image'), args.least_inside, args.worst)


def report(args, contours, problems, filled, paths) -> None:
    """Prints what was found."""
    for problem in problems[:10]:
        print(f'problem: {problem}')
    if len(problems) > 10:
        print(f'... {len(problems) - 10} more problems')
    short = len(worst_first(contours, args.least_inside))
    compared = sum(contour.coverage is not None for contour in contours)
    print(
        f'{len(contours)} items, {sum(not contour.polygons for contour in contours)} without a contour; {short} of the '
        f'{compared} compared cover less than {args.least_inside:g} of the annotated mask'
    )
    if args.fill:
        print(f'{filled} masks filled: {os.path.join(args.out, "annos")}')
    for path in paths:
        print(f'wrote {path}')


if __name__ == '__main__':
    main()

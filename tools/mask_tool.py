"""Draws contours through the landmarks, as masks for annotators, and measures how well they cover annotated masks.

    python tools/mask_tool.py data/deepfashion2 --split validation --out contours
    python tools/mask_tool.py my_photos --split new --out contours --fill

Reads ROOT/<split>/image and ROOT/<split>/annos. Writes OUT/contours.jsonl, which has one line per item with its
polygons, the share of the annotated mask that lies inside, and the IoU; and OUT/contours.html, which shows the items
that their contour covers least. With --fill, it also writes OUT/annos: the annotation, in which every item without a
mask has its contour as segmentation.
"""

import argparse
import json
import os
from pathlib import Path

from mmdf2.command_line import UserError, require_folder, start

if __name__ == '__main__':
    start()

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
    parser.add_argument('root', help="folder in DeepFashion2's layout")
    parser.add_argument('--split', default='validation', help='split in that folder (default: validation)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write to')
    parser.add_argument(
        '--fill', action='store_true', help='write the annotation with contours where masks are missing'
    )
    parser.add_argument('--least-inside', type=float, default=LEAST_INSIDE, metavar='SHARE', help=argparse.SUPPRESS)
    parser.add_argument('--worst', type=int, default=24, metavar='N', help='number of pictures (default: 24)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Reads the annotation, writes contours and page, and prints what was found."""
    args = parse_args(argv)
    require_folder('--out', args.out)
    if args.fill and (args.out / 'annos').resolve() == Path(args.root, args.split, 'annos').resolve():
        raise UserError(
            f"--out {args.out}: the dataset's own annotation is there, and filled files lack what could not be read of "
            'it; give another folder.'
        )
    listing = list_split(args.root, args.split)
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
    """Writes the annotation with contours in place of missing masks; returns how many masks were missing."""
    filled = 0
    for item, contour in zip(annotation.items, contours, strict=True):
        if not item.segmentation and contour.polygons:
            item.segmentation = contour.polygons
            filled += 1
    write_text(path, json.dumps(to_json_dict(annotation)))
    return filled


def line_of(contour: ItemContour) -> dict:
    """One line of contours.jsonl."""
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
    """The page of the items that their contour covers least."""
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

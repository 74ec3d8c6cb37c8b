"""Draws a synthetic wardrobe in DeepFashion2's own layout.

python tools/make_wardrobe.py --out data/wardrobe --identities 1000 --validation-identities 120 --seed 0
"""

import argparse
import sys

from mmdf2.wardrobe import make_wardrobe
from mmdf2.wardrobe.contact_sheet import write_contact_sheet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Draw a synthetic wardrobe in the layout of DeepFashion2.')
    parser.add_argument('--out', help='folder to write OUT/<split>/{image,annos} into')
    parser.add_argument('--identities', type=int, default=1000, help='number of identities in --split')
    parser.add_argument(
        '--validation-identities', type=int, default=0, help='number of identities in an additional validation split'
    )
    parser.add_argument('--split', choices=('train', 'validation'), default='train')
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
    parser.add_argument('--size', type=int, default=400, help='longer side of the images in pixels')
    parser.add_argument(
        '--images-per-identity',
        type=int,
        nargs=2,
        default=(2, 3),
        metavar=('SHOP', 'USER'),
        help='images made of each identity',
    )
    parser.add_argument('--workers', type=int, help='number of processes (default: one per core)')
    parser.add_argument('--contact-sheet', metavar='JPG', help='only write a picture of all categories')
    args = parser.parse_args(argv)
    if not args.out and not args.contact_sheet:
        parser.error('give --out, or --contact-sheet')
    return args


def main(argv: list[str] | None = None) -> None:
    """Draws the wardrobe, or its contact sheet."""
    args = parse_args(argv)
    try:
        if args.contact_sheet:
            print(f'wrote {write_contact_sheet(args.contact_sheet, args.seed)}')
        else:
            out = make_wardrobe(
                args.out,
                args.identities,
                args.seed,
                validation_identities=args.validation_identities,
                split=args.split,
                size=args.size,
                images_per_identity=tuple(args.images_per_identity),
                workers=args.workers,
            )
            print(f'wrote {out}')
    except ValueError as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()

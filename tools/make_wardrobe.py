"""Draws a synthetic wardrobe in the layout of DeepFashion2.

python tools/make_wardrobe.py --out data/wardrobe --identities 1000 --validation-identities 120 --seed 0
"""

import argparse

from mmdf2.command_line import require_file, start

if __name__ == '__main__':
    start()

from mmdf2.wardrobe import make_wardrobe
from mmdf2.wardrobe.contact_sheet import write_contact_sheet
from mmdf2.wardrobe.version import ADDITIONS, CURRENT_VERSION, VERSIONS, Version


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', help='folder in which to write <split>/image and <split>/annos')
    parser.add_argument('--identities', type=int, default=1000, help='number of identities of --split (default: 1000)')
    parser.add_argument(
        '--validation-identities', type=int, default=0, help='number of identities of an additional validation split'
    )
    parser.add_argument(
        '--split', choices=('train', 'validation'), default='train', help='split to draw (default: train)'
    )
    parser.add_argument('--seed', type=int, default=0, help='the same seed draws the same bytes (default: 0)')
    parser.add_argument('--size', type=int, default=400, help='longer side of the images in pixels (default: 400)')
    parser.add_argument(
        '--images-per-identity',
        type=int,
        nargs=2,
        default=(2, 3),
        metavar=('SHOP', 'USER'),
        help='numbers of shop and of user images per identity (default: 2 3)',
    )
    parser.add_argument(
        '--version',
        type=int,
        choices=sorted(VERSIONS),
        default=CURRENT_VERSION.number,
        help=f'version of the drawing (default: {CURRENT_VERSION.number}); figures of two versions cannot be compared',
    )
    parser.add_argument(
        '--without',
        nargs='+',
        choices=list(ADDITIONS),
        default=[],
        metavar='ADDITION',
        help=f'leave out additions of version 2, to measure what they do: {", ".join(ADDITIONS)}',
    )
    parser.add_argument('--backgrounds', default='', metavar='FOLDER', help='photos to use as backgrounds, too')
    parser.add_argument('--textures', default='', metavar='FOLDER', help='photos of cloth to cut textures from')
    parser.add_argument('--workers', type=int, help='number of processes (default: one per core)')
    parser.add_argument('--contact-sheet', metavar='JPG', help='only write a picture of all categories')
    args = parser.parse_args(argv)
    if not args.out and not args.contact_sheet:
        parser.error('give --out, or --contact-sheet')
    return args


def main(argv: list[str] | None = None) -> None:
    """Draws the wardrobe, or only its contact sheet."""
    args = parse_args(argv)
    version = Version(args.version, without=tuple(args.without), backgrounds=args.backgrounds, textures=args.textures)
    if args.contact_sheet:
        require_file('--contact-sheet', args.contact_sheet)
        print(f'wrote {write_contact_sheet(args.contact_sheet, args.seed, version=version)}')
        return
    out = make_wardrobe(
        args.out,
        args.identities,
        args.seed,
        validation_identities=args.validation_identities,
        split=args.split,
        size=args.size,
        images_per_identity=tuple(args.images_per_identity),
        version=version,
        workers=args.workers,
    )
    print(f'wrote {out}')


if __name__ == '__main__':
    main()

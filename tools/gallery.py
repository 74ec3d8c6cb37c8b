"""Builds galleries of a shop's photos, searches them, changes them and measures them.

    python tools/gallery.py build --images photos --model CONFIG --weights W --out gallery
    python tools/gallery.py search gallery photo.jpg --model CONFIG --weights W --out found
    python tools/gallery.py add gallery --images more_photos --model CONFIG --weights W --fields fields.jsonl
    python tools/gallery.py remove gallery --field sku A17
    python tools/gallery.py index gallery
    python tools/gallery.py info gallery

By the official protocol, with a split in DeepFashion2's layout as shop and customers:

    python tools/gallery.py build --shop-of ROOT --score-threshold 0 --model CONFIG --weights W --out gallery
    python tools/gallery.py evaluate gallery --queries ROOT --model CONFIG --weights W
    python tools/gallery.py calibrate gallery --queries ROOT --model CONFIG --weights W

GALLERY is a folder, a milvus-lite file that ends in .db, or the address of a Milvus server, http://host:19530. A file
or a server can hold several galleries: #NAME behind it says which one. The environment variable MILVUS_TOKEN holds the
token of the server.

An interrupted build or add continues when it is started again; until then GALLERY.partial holds what is done. On
several GPUs, or in several processes: torchrun --nproc-per-node N tools/gallery.py build ... --launcher pytorch
"""

import argparse
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from mmdf2.command_line import UserError, require_folder, require_input, start

if __name__ == '__main__':
    start('An interrupted build or add continues when it is started again.')

import numpy as np
import torch
from tqdm import tqdm

from mmdf2.apis import ClothesInferencer, FashionSearch
from mmdf2.apis.gallery_building import add_images, adding, photo_name, photo_names, process_rank
from mmdf2.apis.gallery_evaluation import calibrate_gallery, evaluate_gallery, split_images
from mmdf2.apis.inputs import check_batch_size, check_score_threshold, list_inputs
from mmdf2.apis.search import check_model, least_score, model_identity, model_similarity, open_gallery_of
from mmdf2.categories import CATEGORY_NAMES, NUM_CATEGORIES, Source
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.engine import process_group
from mmdf2.files import parse_json, write_json, write_text
from mmdf2.images import read_image, write_image
from mmdf2.retrieval.gallery import Gallery, GalleryError, check_k, checked_categories
from mmdf2.retrieval.items import number_of
from mmdf2.retrieval.locations import beside, create_gallery, is_in_folder, open_gallery
from mmdf2.visualization import RetrievalRow, draw_retrieval_rows

_NOT_THERE = 'nothing like it in this shop'
_PRESENT = 'were there already; a photo whose content has changed is to be removed by --image first, then added again'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # The spelling that torch.distributed.launch uses depends on its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, purpose in (('build', 'build a gallery from photos'), ('add', 'add photos to a gallery')):
        command = commands.add_parser(name, help=purpose)
        if name == 'build':
            command.add_argument('--out', dest='gallery', required=True, metavar='GALLERY', help='the new gallery')
        else:
            command.add_argument('gallery')
        _add_building(command)
    command = commands.add_parser('remove', help='remove items from a gallery')
    command.add_argument('gallery')
    command.add_argument('--id', type=int, nargs='+', default=[], help='numbers of the items')
    command.add_argument('--image', nargs='+', default=[], help='paths of the photos')
    command.add_argument(
        '--field', nargs=2, metavar=('NAME', 'VALUE'), help='items whose own field NAME has this value'
    )
    command.add_argument(
        '--type', choices=('text', 'number', 'truth'), help='what VALUE is; needed where fields are written alike'
    )
    command = commands.add_parser('search', help='search the garments of a photo in a gallery')
    command.add_argument('gallery')
    command.add_argument('image')
    _add_model(command)
    command.add_argument('--out', type=Path, metavar='DIR', help='folder for search.json and search.jpg')
    command.add_argument('-k', type=int, default=20, help='number of hits per garment (default: 20)')
    command.add_argument(
        '--score-threshold', type=float, default=0.3, help='lowest score of detected garments (default: 0.3)'
    )
    command.add_argument('--category', type=int, nargs='+', help='category_ids to search in (default: all)')
    command.add_argument('--same-category', action='store_true', help="search in each garment's own category")
    command.add_argument(
        '--expansion', type=int, default=0, metavar='N', help='search again by the average with the N best hits'
    )
    command.add_argument(
        '--false-accepts',
        type=float,
        metavar='SHARE',
        help='say that nothing is like a garment, but for this share of those that are not there (see calibrate)',
    )
    command = commands.add_parser('index', help='build indexes, which make searches of large galleries fast')
    command.add_argument('gallery')
    command.add_argument(
        '--least-items', type=int, default=50_000, help='smaller categories are searched exactly (default: 50000)'
    )
    commands.add_parser('info', help='show what a gallery holds').add_argument('gallery')
    command = commands.add_parser('evaluate', help='measure top-k by the official protocol')
    command.add_argument('gallery')
    _add_queries(command, command, required=True)
    command = commands.add_parser('calibrate', help='measure what the scores mean: how sure a hit is')
    command.add_argument('gallery')
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument('--from', dest='source', metavar='OTHER', help='take the calibration of another gallery')
    _add_queries(command, source, required=False)
    return parser.parse_args(argv)


def _add_queries(command: argparse.ArgumentParser, group, required: bool) -> None:
    group.add_argument('--queries', required=required, metavar='ROOT', help="folder in DeepFashion2's layout")
    command.add_argument('--split', default='validation', help='split in that folder (default: validation)')
    _add_model(command, required)


def _add_model(command: argparse.ArgumentParser, required: bool = True) -> None:
    command.add_argument('--model', required=required, metavar='CONFIG', help='the config file')
    command.add_argument('--weights', required=required, help='the checkpoint file')
    command.add_argument('--device', help='where to run; by default a GPU where there is one')


def _add_building(command: argparse.ArgumentParser) -> None:
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument('--images', nargs='+', help='photos, or folders of them')
    source.add_argument('--shop-of', metavar='ROOT', help="folder in DeepFashion2's layout, for its shop images")
    command.add_argument('--split', default='validation', help='split in the folder of --shop-of (default: validation)')
    _add_model(command)
    command.add_argument('--fields', type=Path, help='JSON lines with "image", a path, and its own fields')
    command.add_argument(
        '--score-threshold', type=float, default=0.3, help='lowest score of detected garments (default: 0.3)'
    )
    command.add_argument('--batch-size', type=int, default=1, help='number of images per forward pass (default: 1)')
    command.add_argument('--launcher', choices=('none', 'pytorch'), default='none', help='what started the processes')


def main(argv: list[str] | None = None) -> None:
    """Runs one of the commands."""
    args = parse_args(argv)
    commands = {
        'build': build,
        'add': build,
        'remove': remove,
        'search': search,
        'index': index,
        'info': info,
        'evaluate': evaluate,
        'calibrate': calibrate,
    }
    commands[args.command](args)


def build(args: argparse.Namespace) -> None:
    """Builds a gallery, or adds to one, in one process or several; where there are GPUs, each process uses one."""
    check_score_threshold(args.score_threshold)
    check_batch_size(args.batch_size)
    _require_writable(args.gallery)
    images, fields = _images(args), _fields(args.fields)
    strangers = sorted(set(fields) - set(map(photo_name, images)))
    if strangers:
        raise UserError(
            f'{args.fields} names {len(strangers)} images that are not among those given, such as {strangers[0]}; '
            'correct the paths in that file.'
        )
    # One process may have much more to do than another, so the others wait for it a week.
    with process_group(7 * 24 * 60 * 60) if args.launcher == 'pytorch' else contextlib.nullcontext():
        _add(args, images, fields)


def _add(args: argparse.Namespace, images: list[str], fields: dict[str, dict]) -> None:
    model, partial = _model(args), beside(args.gallery, 'partial')
    first = process_rank()[0] == 0
    with adding(partial) if first else contextlib.nullcontext():
        gallery = _gallery_to_fill(args, model, partial) if first else None
        added = add_images(gallery, model, images, partial, fields, args.score_threshold, args.batch_size)
    if added is None:
        return
    print(f'{added.items} garments of {added.images} images added; the gallery {args.gallery} holds {len(gallery)}')
    for count, what in ((added.resumed, 'had been done before an interruption'), (added.present, _PRESENT)):
        if count:
            print(f'{count} images {what}')
    if added.empty:
        print(f'{added.empty} images have no garment of score {args.score_threshold} or more')
    if added.broken:
        lines = ''.join(f'{image}\t{error}\n' for image, error in added.broken.items())
        path = beside(args.gallery, 'broken.txt')
        write_text(path, lines)
        print(f'{len(added.broken)} images could not be read, such as {next(iter(added.broken))}; all are in {path}')


def _gallery_to_fill(args: argparse.Namespace, model: ClothesInferencer, partial: Path) -> Gallery:
    if not args.gallery.partition('#')[0].endswith('.db') and Path(args.gallery).is_file():
        raise UserError(f'{args.gallery} is a file; a gallery needs a folder, or a file that ends in .db.')
    if args.command == 'build':
        try:
            return create_gallery(args.gallery, model_similarity(model), model_identity(model))
        except GalleryError:
            # An interrupted build leaves a gallery and a journal; a gallery alone is a finished one.
            if not partial.exists():
                raise
    return open_gallery_of(model, args.gallery)


def remove(args: argparse.Namespace) -> None:
    """Removes items."""
    if not (args.id or args.image or args.field):
        raise UserError('say what to remove: --id, --image or --field.')
    gallery = open_gallery(args.gallery)
    with gallery.changing():
        ids = {*args.id, *gallery.ids_where('image', set().union(*map(photo_names, args.image)))}
        if args.field:
            name, value = args.field
            ids.update(_ids_with_field(gallery, name, value, args.type))
        count = gallery.remove(ids)
    print(f'{count} items removed; {args.gallery} holds {len(gallery)}')


def search(args: argparse.Namespace) -> None:
    """Searches the garments of a photo."""
    require_input('IMAGE', args.image)
    if args.out:
        require_folder('--out', args.out)
    check_k(args.k)
    check_score_threshold(args.score_threshold)
    checked_categories(args.category)
    if args.same_category and args.category:
        raise UserError('give --category or --same-category, not both.')
    gallery = open_gallery(args.gallery)
    least_score(gallery, args.false_accepts, args.expansion)
    finder = FashionSearch(_model(args), gallery)
    found = finder.search(
        args.image,
        args.k,
        args.score_threshold,
        args.category,
        args.same_category,
        args.expansion,
        args.false_accepts,
    )
    answer = [_answer(garment) for garment in found]
    for garment in found:
        name = CATEGORY_NAMES[garment.garment.category_id - 1]
        print(f'{name} {garment.score:.2f} at {[round(side) for side in garment.garment.box]}')
        if garment.is_there is False:
            print(f'  {_NOT_THERE}; the best hits:')
        for hit, sure in zip(garment.hits[:5], _percents(garment), strict=False):
            print(f'  {hit.score:8.3f}{sure}  item {hit.id}  {hit.item.image}  {json.dumps(hit.item.fields)}')
    if not found:
        print(f'no garment of score {args.score_threshold} or more on {args.image}')
    if args.out:
        write_json(args.out / 'search.json', answer)
        print(args.out / 'search.json')
        if found:
            path = args.out / 'search.jpg'
            write_image(path, draw_retrieval_rows([_row(args.image, garment) for garment in found]))
            print(path)


def index(args: argparse.Namespace) -> None:
    """Builds the indexes of a gallery anew and saves them with it."""
    _require_writable(args.gallery)
    gallery = open_gallery(args.gallery, index=False)
    with gallery.changing():
        gallery.build_index(least_items=args.least_items)
    _print_indexes(gallery)


def info(args: argparse.Namespace) -> None:
    """Shows what a gallery holds."""
    gallery = open_gallery(args.gallery)
    print(f'{args.gallery}: {len(gallery)} items, embeddings of {gallery.similarity.width} numbers')
    print(f"model '{gallery.model}', similarity {gallery.similarity.fingerprint()}")
    for category, count in gallery.counts().items():
        print(f'{count:10}  {category:2} {CATEGORY_NAMES[category - 1]}')
    _print_indexes(gallery)


def _print_indexes(gallery: Gallery) -> None:
    indexed = gallery.indexed()
    for category, what in indexed.items():
        print(f'index of {CATEGORY_NAMES[category - 1]}: {what}')
    if len(indexed) < NUM_CATEGORIES:
        print(f'searches {"of the other categories " if indexed else ""}are exact')


def evaluate(args: argparse.Namespace) -> None:
    """Prints the official figures as JSON."""
    _print_figures(_measured(args, open_gallery(args.gallery), evaluate_gallery))


def calibrate(args: argparse.Namespace) -> None:
    """Measures what scores mean, or takes it from another gallery, and saves it with the gallery."""
    gallery = open_gallery(args.gallery)
    if args.source:
        other = open_gallery(args.source, gallery.similarity)
        calibration = other.calibration
        if calibration is None:
            raise UserError(f'{args.source} has no calibration; measure one there by --queries.')
        if other.model != gallery.model:
            raise UserError(
                f"{args.source} was built with model '{other.model}', {args.gallery} with '{gallery.model}': scores of "
                'different models mean different things.'
            )
    else:
        for option in ('model', 'weights'):
            if getattr(args, option) is None:
                raise UserError(f'--queries needs --{option}.')
        _require_writable(args.gallery)
        calibration, figures = _measured(args, gallery, calibrate_gallery)
        _print_figures(figures)
    with gallery.changing():
        gallery.set_calibration(calibration)
    print(f'{args.gallery} is calibrated, by {calibration.queries} queries')


def _measured(args: argparse.Namespace, gallery: Gallery, measure: Callable):
    """What ``evaluate_gallery`` or ``calibrate_gallery`` finds with the user images of --queries."""
    store = open_or_prepare(args.queries, args.split)
    model = _model(args)
    check_model(gallery, model, args.gallery)
    folder = Path(args.queries, args.split, 'image')
    with tqdm(total=len(split_images(store, folder, Source.USER)), desc='queries', unit='image') as bar:
        return measure(gallery, model, store, folder, bar.update)


def _print_figures(figures: dict[str, float]) -> None:
    print(json.dumps({name: round(value, 6) for name, value in figures.items()}, indent=1))


def _require_writable(gallery: str) -> None:
    """Refuses a gallery in a folder that cannot be changed, before the work that ends with a change."""
    if is_in_folder(gallery) and not Path(gallery).is_file():
        require_folder('GALLERY', gallery)


def _model(args: argparse.Namespace) -> ClothesInferencer:
    device = args.device
    if device is None and getattr(args, 'launcher', 'none') == 'pytorch' and torch.cuda.is_available():
        device = f'cuda:{os.environ["LOCAL_RANK"]}'
    return ClothesInferencer(args.model, args.weights, device)


def _images(args: argparse.Namespace) -> list[str]:
    if args.shop_of:
        store = open_or_prepare(args.shop_of, args.split)
        return list(split_images(store, Path(args.shop_of, args.split, 'image'), Source.SHOP))
    for path in args.images:
        if not Path(path).expanduser().exists():
            raise UserError(f'{path}: there is no such image or folder; correct the path behind --images.')
    inputs, others = list_inputs(args.images)
    if others:
        print(f'{len(others)} files without the suffix of an image are skipped, such as {others[0]}')
    if not inputs:
        raise UserError(f'there is no image in {" ".join(args.images)}; name photos, or folders of them.')
    return [str(entry.source) for entry in inputs]


def _fields(path: Path | None) -> dict[str, dict]:
    fields: dict[str, dict] = {}
    for number, line in enumerate(path.read_bytes().splitlines() if path else [], start=1):
        try:
            entry = parse_json(line, parse_float=_exact_float, parse_constant=_no_number, object_pairs_hook=_distinct)
            image = photo_name(entry.pop('image'))
            if image in fields:
                raise ValueError(f'{image} has a line already')
            fields[image] = entry
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise UserError(f'{path}, line {number}: must be a JSON object with "image" ({error!r}).') from error
    return fields


def _exact_float(text: str) -> float:
    if not isinstance(number_of(text), float):
        raise ValueError(f'the number {text} has more digits than can be kept: write it as a text, "{text}"')
    return float(text)


def _no_number(text: str) -> float:
    raise ValueError(f'{text} is no number of JSON')


def _distinct(pairs: list[tuple]) -> dict:
    if len(dict(pairs)) < len(pairs):
        raise ValueError('a name is there twice')
    return dict(pairs)


def _ids_with_field(gallery: Gallery, name: str, value: str, kind: str | None) -> list[int]:
    """The items whose field is written like the text of a command line; its type has to be clear or given."""
    meanings = {'text': value, 'number': number_of(value), 'truth': {'true': True, 'false': False}.get(value)}
    found = {
        each: gallery.ids_where(name, [meaning])
        for each, meaning in meanings.items()
        if meaning is not None and kind in (None, each)
    }
    kinds = [each for each, ids in found.items() if ids]
    if len(kinds) > 1:
        counts = ' and '.join(f'{len(found[each])} items the {each} {value}' for each in kinds)
        raise UserError(f'{name} is in {counts}: say which by --type {" or --type ".join(kinds)}.')
    return [number for ids in found.values() for number in ids]


def _plain(item) -> dict:
    values = asdict(item)
    return {'category_name': CATEGORY_NAMES[item.category_id - 1], **values}


def _answer(found) -> dict:
    """What search.json says of a garment."""
    hits = [{'id': hit.id, 'similarity': hit.score, **_plain(hit.item)} for hit in found.hits]
    for hit, probability in zip(hits, found.probabilities or (), strict=False):
        hit['probability'] = probability
    answer = {**_plain(found.garment), 'score': found.score, 'hits': hits}
    return answer if found.is_there is None else {**answer, 'is_there': found.is_there}


def _percents(found) -> list[str]:
    """How sure each hit is, where the gallery knows."""
    if found.probabilities is None:
        return [''] * len(found.hits)
    return [f'  {probability:4.0%}' for probability in found.probabilities]


def _row(image, found, shown: int = 5) -> RetrievalRow:
    """A row of pictures; a hit whose photo cannot be read any more is drawn blank."""
    hits = found.hits[:shown]
    pictures = [_picture(hit) for hit in hits]
    return RetrievalRow(
        image=image,
        box=found.garment.box,
        hit_images=[picture for picture, _ in pictures],
        hit_boxes=[box for _, box in pictures],
        correct=None,
        scores=[hit.score for hit in hits],
        probabilities=found.probabilities and found.probabilities[:shown],
        title=_NOT_THERE if found.is_there is False else CATEGORY_NAMES[found.garment.category_id - 1],
    )


def _picture(hit) -> tuple[np.ndarray, tuple]:
    try:
        return read_image(hit.item.image), hit.item.box
    except OSError as error:
        print(f'  item {hit.id} is drawn blank: {error}')
        return np.full((64, 64, 3), 200, np.uint8), (0, 0, 64, 64)


if __name__ == '__main__':
    main()

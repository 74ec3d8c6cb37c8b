"""Changes a gallery again and again: ``python changer.py COMMAND FOLDER FIRST COUNT``."""

import contextlib
import sys

import numpy as np

from mmdf2.retrieval import FaissGallery
from retrieval.made_gallery import item_of


def add(folder: str, first: int, count: int) -> None:
    """Adds items of the numbers first, first + 1, ..., one per save; each number is in the item and its embedding."""
    gallery = FaissGallery.load(folder)
    for number in range(first, first + count):
        with gallery.changing():
            vector = np.full((1, gallery.similarity.width), number, np.float32)
            gallery.add(vector, [item_of(number)])
        print(number, flush=True)


def remove(folder: str, first: int, count: int) -> None:
    """Removes the items of the numbers first, first + 1, ..., one per save, each by a gallery that is opened anew."""
    for number in range(first, first + count):
        gallery = FaissGallery.load(folder)
        with gallery.changing():
            assert gallery.remove(gallery.ids_where('of', [number])) == 1, number
        print(number, flush=True)


def hold(folder: str, *_: int) -> None:
    """Keeps other writers waiting until the end of standard input."""
    with FaissGallery.load(folder).changing():
        print('holding', flush=True)
        with contextlib.suppress(EOFError):
            input()


if __name__ == '__main__':
    {'add': add, 'remove': remove, 'hold': hold}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))

"""Saves made galleries into a folder, one after another, until it is killed: ``python saver.py FOLDER FIRST``."""

import sys

import numpy as np

from mmdf2.retrieval.folder import Stored, write_folder
from mmdf2.retrieval.items import GalleryItem, ItemTable
from mmdf2.retrieval.similarity import Similarity


def content(number: int) -> Stored:
    """A gallery that says its number in every file."""
    count = 200 + number % 7
    items = ItemTable()
    items.put(range(count), [GalleryItem(f'{number}', (0, 0, 1, 1), 1, None, {'of': number})] * count)
    counts = np.array([count] + [0] * 12)
    similarity = Similarity(np.full((2, 8), number), np.zeros(2))
    return Stored(
        similarity, np.full((count, 8), number, np.float32), np.arange(count), counts, items, count, f'{number}'
    )


if __name__ == '__main__':
    number = int(sys.argv[2])
    print('ready', flush=True)
    while True:
        write_folder(sys.argv[1], content(number))
        print(number, flush=True)
        number += 1

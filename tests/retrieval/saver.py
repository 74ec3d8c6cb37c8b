"""Saves made galleries into a folder, one after another, until it is killed: ``python saver.py FOLDER FIRST``."""

import sys

import numpy as np

from mmdf2.retrieval.items import GalleryItem, ItemTable
from mmdf2.retrieval.local.folder import GalleryContent, write_folder
from mmdf2.retrieval.similarity import Similarity


def content(number: int) -> GalleryContent:
    """A gallery with its number in every file."""
    count = 200 + number % 7
    items = ItemTable()
    item = GalleryItem(image=f'{number}', box=(0, 0, 1, 1), category_id=1, fields={'of': number})
    items.put(range(count), [item] * count)
    return GalleryContent(
        similarity=Similarity(np.full((2, 8), number), np.zeros(2)),
        model=f'{number}',
        vectors=np.full((count, 8), number, np.float32),
        ids=np.arange(count),
        counts=np.array([count] + [0] * 12),
        items=items,
        next_id=count,
    )


if __name__ == '__main__':
    number = int(sys.argv[2])
    print('ready', flush=True)
    while True:
        write_folder(sys.argv[1], content(number))
        print(number, flush=True)
        number += 1

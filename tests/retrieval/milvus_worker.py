"""Commands that tests of MilvusGallery run in other processes: ``python milvus_worker.py COMMAND URI PATH``."""

import json
import sys

import numpy as np

from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.milvus.gallery import MilvusGallery
from mmdf2.retrieval.transfer import transfer


def search(uri: str, queries_path: str) -> None:
    """Prints the hits of saved queries."""
    gallery = MilvusGallery.load(uri)
    hits = gallery.search(np.load(queries_path), 7)
    print(json.dumps([[[hit.id, hit.score, hit.item.fields] for hit in line] for line in hits]))
    gallery.close()


def copy(uri: str, folder: str) -> None:
    """Transfers a gallery from a folder, printing its progress; continues an earlier transfer."""
    source = FaissGallery.load(folder)
    try:
        target = MilvusGallery.load(uri)
    except GalleryError:
        target = MilvusGallery.create(uri, source.similarity, source.model)
    print('ready', flush=True)
    written = transfer(source, target, lambda done, _: print(done, flush=True))
    print('written', written, flush=True)
    target.close()


if __name__ == '__main__':
    {'search': search, 'copy': copy}[sys.argv[1]](*sys.argv[2:])

"""Where galleries lie: a folder is an embedded gallery, a file that ends in .db and an address are galleries in Milvus.

``shop.db`` is the gallery of milvus-lite's file, ``http://host:19530`` that of a server, ``shop.db#winter`` and
``http://host:19530#winter`` are those named winter. The server's token is in the environment's ``MILVUS_TOKEN``.
"""

import os
import re
from pathlib import Path

from mmdf2.retrieval.faiss_gallery import FaissGallery
from mmdf2.retrieval.folder import MANIFEST
from mmdf2.retrieval.gallery import Gallery, GalleryError
from mmdf2.retrieval.milvus_gallery import MilvusGallery
from mmdf2.retrieval.similarity import Similarity

_SCHEMES = ('http://', 'https://')
_COLLECTION = re.compile('[A-Za-z_][A-Za-z0-9_]{0,199}')


def open_gallery(location, similarity: Similarity | None = None) -> Gallery:
    """Opens the gallery at a location, see ``Gallery.load``."""
    milvus = _milvus(location)
    if milvus is not None:
        uri, collection = milvus
        return MilvusGallery.load(uri, similarity, collection, _token())
    return FaissGallery.load(Path(location), similarity)


def create_gallery(location, similarity: Similarity, model: str) -> Gallery:
    """An empty gallery at a location; that of a folder is written by ``save``.

    Raises:
        GalleryError: There is a gallery already.
    """
    milvus = _milvus(location)
    if milvus is not None:
        uri, collection = milvus
        return MilvusGallery.create(uri, similarity, model, collection, _token())
    if (Path(location) / MANIFEST).exists():
        raise GalleryError(f'{location} is a gallery already; add to it, or give another folder')
    return FaissGallery(similarity, model, Path(location))


def beside(location, ending: str) -> Path:
    """A path for what belongs to a gallery: beside its folder or file, in the working folder for an address."""
    name = str(location).rstrip('/')
    return Path(f'{re.sub("[^A-Za-z0-9.]+", "_", name) if name.startswith(_SCHEMES) else name}.{ending}')


def _milvus(location) -> tuple[str, str] | None:
    """Address or file, and the gallery's name there; None for a folder."""
    uri, _, collection = str(location).rpartition('#') if '#' in str(location) else (str(location), '', 'gallery')
    if not uri.startswith(_SCHEMES) and not uri.endswith('.db'):
        if '://' in uri:
            raise GalleryError(f'{location} is no gallery: addresses begin with http:// or https://')
        return None
    if not _COLLECTION.fullmatch(collection):
        raise GalleryError(f'{location}: a name in Milvus has letters, digits and _, got {collection[:80]!r}')
    return uri, collection


def _token() -> str:
    return os.environ.get('MILVUS_TOKEN', '')

"""Opening and creating a gallery by its location.

A folder is a gallery in this process. A file that ends in .db and an address are galleries in Milvus: ``shop.db`` is
the gallery of a milvus-lite file, ``http://host:19530`` that of a server, ``shop.db#winter`` and
``http://host:19530#winter`` are those named winter. The server's token is read from the environment variable
``MILVUS_TOKEN``.
"""

import os
import re
from pathlib import Path

from mmdf2.retrieval.gallery import Gallery, GalleryError
from mmdf2.retrieval.local.folder import MANIFEST, check_only_gallery
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.milvus.gallery import MilvusGallery
from mmdf2.retrieval.similarity import Similarity

_SCHEMES = ('http://', 'https://')
_COLLECTION = re.compile('[A-Za-z_][A-Za-z0-9_]{0,199}')


def open_gallery(location, similarity: Similarity | None = None, index: bool = True) -> Gallery:
    """Opens the gallery at a location.

    Args:
        location: A folder, a file of milvus-lite or an address of Milvus, see this module.
        similarity: The similarity of the model at hand; None accepts the gallery's own.
        index: Whether to read the indexes that are saved in a folder. Milvus keeps its own.

    Raises:
        GalleryError: There is no gallery, it is damaged, or it was built with another model.
    """
    milvus = _milvus(location)
    if milvus is not None:
        uri, collection = milvus
        return MilvusGallery.load(uri, similarity, collection, _token())
    return FaissGallery.load(Path(location), similarity, index=index)


def create_gallery(location, similarity: Similarity, model: str) -> Gallery:
    """Makes an empty gallery at a location. That of a folder is on disk after its first ``save``.

    Args:
        location: A folder, a file of milvus-lite or an address of Milvus, see this module.
        similarity: The match head's similarity.
        model: What identifies the model, such as the checkpoint's name.

    Raises:
        GalleryError: There is a gallery already, or the folder holds files that belong to no gallery.
    """
    milvus = _milvus(location)
    if milvus is not None:
        uri, collection = milvus
        return MilvusGallery.create(uri, similarity, model, collection, _token())
    if (Path(location) / MANIFEST).exists():
        raise GalleryError(f'{location} is a gallery already; add to it, or give another folder')
    check_only_gallery(location)
    return FaissGallery(similarity, model, Path(location))


def is_in_folder(location) -> bool:
    """Whether a location is that of a gallery in a folder, and not in Milvus."""
    return _milvus(location) is None


def beside(location, ending: str) -> Path:
    """A path for a file that belongs to a gallery: beside its folder or file, in the working folder for an address."""
    name = str(location).rstrip('/')
    return Path(f'{re.sub("[^A-Za-z0-9.]+", "_", name) if name.startswith(_SCHEMES) else name}.{ending}')


def _milvus(location) -> tuple[str, str] | None:
    """A file's path or an address, and the gallery's name there; None for a folder."""
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

"""Where galleries lie: a folder is an embedded gallery."""

from pathlib import Path

from mmdf2.retrieval.faiss_gallery import FaissGallery
from mmdf2.retrieval.folder import MANIFEST
from mmdf2.retrieval.gallery import Gallery, GalleryError
from mmdf2.retrieval.similarity import Similarity


def open_gallery(location, similarity: Similarity | None = None) -> Gallery:
    """Opens the gallery at a location, see ``Gallery.load``."""
    return FaissGallery.load(_folder(location), similarity)


def create_gallery(location, similarity: Similarity, model: str) -> Gallery:
    """An empty gallery whose ``save`` writes to a location.

    Raises:
        GalleryError: There is a gallery already.
    """
    folder = _folder(location)
    if (folder / MANIFEST).exists():
        raise GalleryError(f'{folder} is a gallery already; add to it, or give another folder')
    return FaissGallery(similarity, model, folder)


def _folder(location) -> Path:
    if '://' in str(location):
        raise GalleryError(f'{location} is an address; a gallery is a folder')
    return Path(location)

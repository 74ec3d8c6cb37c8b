"""Galleries: garments on shop photos that are searched by the learned similarity of the match head.

:mod:`~mmdf2.retrieval.gallery` is the interface, :mod:`~mmdf2.retrieval.items` what a gallery knows of an item,
:mod:`~mmdf2.retrieval.similarity` the algebra. Two kinds of galleries implement the interface: ``local`` in this
process and its files, ``milvus`` in Milvus.

The names below are imported when they are first used. A kind of gallery imports its library when it needs it: faiss
when an index is built, pymilvus when a gallery in Milvus is opened.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdf2.retrieval.expansion import expand_by_gallery, expand_queries
    from mmdf2.retrieval.gallery import Gallery, GalleryError, Hit
    from mmdf2.retrieval.items import GalleryItem
    from mmdf2.retrieval.local.gallery import FaissGallery
    from mmdf2.retrieval.local.graph import GraphSettings
    from mmdf2.retrieval.local.lists import ListSettings
    from mmdf2.retrieval.locations import create_gallery, open_gallery
    from mmdf2.retrieval.milvus.gallery import MilvusGallery
    from mmdf2.retrieval.similarity import Similarity

__all__ = [
    'FaissGallery',
    'Gallery',
    'GalleryError',
    'GalleryItem',
    'GraphSettings',
    'Hit',
    'ListSettings',
    'MilvusGallery',
    'Similarity',
    'create_gallery',
    'expand_by_gallery',
    'expand_queries',
    'open_gallery',
]

_MODULES = {
    'FaissGallery': 'local.gallery',
    'Gallery': 'gallery',
    'GalleryError': 'gallery',
    'GalleryItem': 'items',
    'GraphSettings': 'local.graph',
    'Hit': 'gallery',
    'ListSettings': 'local.lists',
    'MilvusGallery': 'milvus.gallery',
    'Similarity': 'similarity',
    'create_gallery': 'locations',
    'expand_by_gallery': 'expansion',
    'expand_queries': 'expansion',
    'open_gallery': 'locations',
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

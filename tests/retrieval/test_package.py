"""The package's face: what it offers, and which libraries it imports when."""

import subprocess
import sys

import pytest

import mmdf2.retrieval

_GALLERY = """
import sys
import numpy as np
from mmdf2.retrieval import FaissGallery, Gallery, GalleryError, GalleryItem, Hit, MilvusGallery, Similarity
from mmdf2.retrieval import ListSettings, create_gallery, open_gallery

gallery = create_gallery('gallery', Similarity(np.array([[-1.0, 0.5], [1.0, 0.0]]), np.zeros(2)), 'model')
rng = np.random.default_rng(0)
items = [GalleryItem(f'{row}.jpg', (0, 0, 1, 1), 1) for row in range(50)]
gallery.add(rng.normal(size=(50, 2)).astype(np.float32), items)
gallery.save()
gallery = open_gallery('gallery')
assert isinstance(gallery, FaissGallery) and len(gallery.search(np.ones((1, 2), np.float32), 3)[0]) == 3
loaded = lambda: [name for name in ('faiss', 'pymilvus', 'milvus_lite') if name in sys.modules]
"""


def run(code: str, folder) -> None:
    done = subprocess.run([sys.executable, '-c', _GALLERY + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there_and_listed():
    for name in mmdf2.retrieval.__all__:
        assert getattr(mmdf2.retrieval, name).__name__ == name and name in dir(mmdf2.retrieval)
    with pytest.raises(AttributeError, match=r"module 'mmdf2\.retrieval' has no attribute 'Nothing'"):
        mmdf2.retrieval.Nothing  # noqa: B018


def test_faiss_is_imported_when_an_index_is_built(tmp_path):
    run(
        'assert loaded() == [], loaded()\ngallery.build_index(ListSettings(), 1)\nassert loaded() == ["faiss"]',
        tmp_path,
    )


def test_pymilvus_is_imported_when_a_gallery_in_milvus_is_opened(tmp_path):
    pytest.importorskip('milvus_lite', reason='galleries in Milvus are an extra: pip install pymilvus milvus-lite')
    run(
        'assert loaded() == [], loaded()\n'
        'MilvusGallery.create("shop.db", gallery.similarity, "model").close()\n'
        # milvus-lite itself imports faiss.
        'assert {"pymilvus", "milvus_lite"} <= set(loaded()), loaded()',
        tmp_path,
    )

"""What the tests of galleries in Milvus share."""

import numpy as np
import pytest

from .made_gallery import make_similarity


@pytest.fixture(name='small')
def fixture_small(tmp_path):
    """An empty gallery of mixed weights and its file."""
    from mmdf2.retrieval.milvus.gallery import MilvusGallery

    gallery = MilvusGallery.create(tmp_path / 'small.db', make_similarity(np.random.default_rng(1)), 'small')
    yield gallery, tmp_path / 'small.db'
    gallery.close()

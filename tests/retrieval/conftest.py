"""A fixture for the tests of galleries in Milvus."""

import numpy as np
import pytest

from mmdf2.retrieval import MilvusGallery

from .made_gallery import make_similarity


@pytest.fixture(name='small')
def fixture_small(tmp_path):
    """An empty gallery with weights of both signs, and its file."""
    gallery = MilvusGallery.create(tmp_path / 'small.db', make_similarity(np.random.default_rng(1)), 'small')
    yield gallery, tmp_path / 'small.db'
    gallery.close()

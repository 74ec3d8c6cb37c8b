"""Galleries by their location, and the paths of files beside them."""

from pathlib import Path

import numpy as np
import pytest

from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.locations import beside, create_gallery, open_gallery

from .made_gallery import make_similarity


@pytest.mark.parametrize(
    ('location', 'expected'),
    [
        ('shops/winter/', 'shops/winter.partial'),
        ('shops/winter.db', 'shops/winter.db.partial'),
        ('shops/all.db#winter', 'shops/all.db#winter.partial'),
        ('http://host:19530#winter', 'http_host_19530_winter.partial'),
        ('https://a/../b', 'https_a_.._b.partial'),
    ],
)
def test_what_lies_beside(location, expected):
    assert beside(location, 'partial') == Path(expected)


def test_folders_may_be_named_as_they_like(tmp_path):
    similarity = make_similarity(np.random.default_rng(0))
    create_gallery(tmp_path / 'a #1', similarity, 'm').save()
    assert open_gallery(tmp_path / 'a #1').model == 'm'
    with pytest.raises(GalleryError, match='is a gallery already'):
        create_gallery(tmp_path / 'a #1', similarity, 'm')


@pytest.mark.parametrize('location', ['ftp://host/gallery', 'milvus://host:19530'])
def test_addresses_of_other_kinds_are_refused(location):
    with pytest.raises(GalleryError, match='addresses begin with http:// or https://'):
        open_gallery(location)


@pytest.mark.parametrize('name', ['', '1st', 'a b', 'x" or 1 == 1', 'ü'])
def test_names_that_milvus_does_not_take_are_refused(tmp_path, name):
    with pytest.raises(GalleryError, match='a name in Milvus has letters, digits and _'):
        open_gallery(f'{tmp_path}/shop.db#{name}')


def test_several_galleries_share_a_file(tmp_path):
    pytest.importorskip('milvus_lite', reason='galleries in Milvus are an extra: pip install pymilvus milvus-lite')
    similarity = make_similarity(np.random.default_rng(0))
    for name in ('winter', 'summer'):
        create_gallery(f'{tmp_path}/shop.db#{name}', similarity, name).save()
    gallery = open_gallery(f'{tmp_path}/shop.db#winter')
    assert gallery.model == 'winter' and open_gallery(f'{tmp_path}/shop.db#summer').model == 'summer'
    with pytest.raises(GalleryError, match="no gallery 'gallery'"):
        open_gallery(f'{tmp_path}/shop.db')
    gallery.close()

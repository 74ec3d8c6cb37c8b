"""Galleries that version 0.1.0 wrote: the present code finds the same items and hits in them, or says what to do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmdf2.retrieval import FaissGallery, Gallery, GalleryError, GalleryItem, MilvusGallery, open_gallery
from mmdf2.retrieval.local.folder import LOCK

from .made_gallery import make_embeddings, make_items

OLD = Path(__file__).parents[1] / 'data/v0.1.0/gallery'
EXPECTED = json.loads((OLD / 'expected.json').read_text())


@pytest.fixture(name='folder')
def fixture_folder(tmp_path) -> Path:
    """A copy of the old folder, to be changed."""
    return Path(shutil.copytree(OLD / 'folder', tmp_path / 'gallery'))


def expected_items() -> dict[int, GalleryItem]:
    return {
        int(number): GalleryItem(
            image=item['image'],
            box=item['box'],
            category_id=item['category_id'],
            landmarks=item['landmarks'],
            fields=item['fields'],
        )
        for number, item in EXPECTED['items'].items()
    }


def assert_as_it_was(gallery: Gallery, tolerance: float) -> None:
    """The gallery has the items, embeddings and hits that version 0.1.0 had."""
    assert gallery.model == EXPECTED['model'] and gallery.similarity.fingerprint() == EXPECTED['similarity']
    assert gallery.counts() == {int(category): count for category, count in EXPECTED['counts'].items()}
    assert gallery.items(range(100)) == expected_items()
    embeddings = gallery.embeddings(range(100))
    assert {str(number): vector.tolist() for number, vector in embeddings.items()} == EXPECTED['embeddings']
    assert gallery.ids_where('sku', ['A7']) == EXPECTED['ids_where_sku_is_A7'] == [7]
    queries = np.array(EXPECTED['queries'], np.float32)
    for name, settings in (('hits', {'k': 12}), ('hits_in_categories_1_and_8', {'k': 3, 'categories': [1, 8]})):
        for hits, line in zip(gallery.search(queries, **settings), EXPECTED[name], strict=True):
            assert [hit.id for hit in hits] == [number for number, _ in line]
            np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in line], rtol=tolerance)


def test_a_folder_opens_with_the_same_items_and_hits():
    gallery = open_gallery(OLD / 'folder')
    assert isinstance(gallery, FaissGallery)
    # Another processor may add up the direct form's terms in another order.
    assert_as_it_was(gallery, 1e-12)


def test_a_folder_is_saved_as_the_same_files(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    gallery = open_gallery(folder)
    gallery.save()
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    arrays = {name for name in before if name.endswith('.npy')}
    assert len(arrays) == 3 and {name: after[name] for name in arrays} == {name: before[name] for name in arrays}
    assert_as_it_was(open_gallery(folder), 1e-12)
    # Ids of removed items stay given.
    rng = np.random.default_rng(0)
    assert gallery.add(make_embeddings(rng, 1, 8), make_items(rng, 1)) == [EXPECTED['next_id']]


def test_left_over_files_of_that_version_are_removed(folder):
    for name in ('new-4711.tmp', 'new-items-4711.tmp', 'new-items-4711.tmp-journal'):
        (folder / name).write_bytes(b'left over')
    open_gallery(folder).save()
    assert len(set(folder.iterdir()) - {folder / LOCK}) == 5
    assert_as_it_was(open_gallery(folder), 1e-12)


def test_a_newer_version_is_refused_with_what_to_do(folder):
    path = folder / 'manifest.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'version': 3}))
    with pytest.raises(
        GalleryError, match='is of version 3, this mmdf2 reads 1 and 2: open the gallery with the mmdf2 that'
    ):
        open_gallery(folder)


def test_a_gallery_in_milvus_opens_with_the_same_items_and_hits(tmp_path):
    for name in ('pymilvus', 'milvus_lite'):
        pytest.importorskip(name, reason='galleries in Milvus are an extra: pip install pymilvus milvus-lite')
    shutil.copytree(OLD / 'milvus.db', tmp_path / 'milvus.db')
    gallery = open_gallery(tmp_path / 'milvus.db')
    assert isinstance(gallery, MilvusGallery)
    assert_as_it_was(gallery, 1e-12)
    rng = np.random.default_rng(0)
    # The copy never had item 13, which had been removed from the folder before.
    assert gallery.add(make_embeddings(rng, 1, 8), make_items(rng, 1)) == [13]
    gallery.close()

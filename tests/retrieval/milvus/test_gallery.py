"""MilvusGallery over a file of milvus-lite, against FaissGallery."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmdf2.retrieval import FaissGallery, GalleryItem, MilvusGallery
from mmdf2.retrieval.milvus import rows as milvus_rows

from ..made_gallery import assert_same_hits, brute_force, make_articles, make_embeddings, make_items, make_similarity

_REASON = 'galleries in Milvus are an extra: pip install pymilvus milvus-lite'
pytest.importorskip('pymilvus', reason=_REASON)
pytest.importorskip('milvus_lite', reason=_REASON)


_WORKER = Path(__file__).parents[1] / 'milvus_worker.py'


@pytest.fixture(name='made', params=[0.2, 0.0], ids=['mixed', 'negative'])
def fixture_made(request, tmp_path):
    """The same 900 items in both galleries, and queries; with weights of both signs and with negative ones only."""
    rng = np.random.default_rng(0)
    similarity = make_similarity(rng, positive=request.param)
    assert (similarity.difference > 0).any() == bool(request.param)
    faiss = FaissGallery(similarity, 'made')
    milvus = MilvusGallery.create(tmp_path / 'shop.db', similarity, 'made')
    # A common offset, like that of features after a ReLU, for which the centre is subtracted.
    vectors, items = make_embeddings(rng, 900, offset=3.0), make_items(rng, 900)
    for rows in (slice(0, 200), slice(200, 900)):
        assert faiss.add(vectors[rows], items[rows]) == milvus.add(vectors[rows], items[rows])
    yield faiss, milvus, vectors, items, make_embeddings(rng, 25, offset=3.0)
    milvus.close()


def test_hits_are_those_of_the_embedded_gallery(made):
    faiss, milvus, _, _, queries = made
    assert_same_hits(faiss, milvus, queries)
    for categories in ([2], [1, 8], [3], [1, 2, 8]):
        assert_same_hits(faiss, milvus, queries, 20, categories)
    assert_same_hits(faiss, milvus, queries[:3], 900)
    assert_same_hits(faiss, milvus, queries[:0])
    assert len(milvus) == 900 and milvus.counts() == faiss.counts()
    assert milvus.items([3, 5, 900]) == faiss.items([3, 5, 900])


def test_removed_items_are_gone_and_their_ids_not_given_again(made):
    faiss, milvus, vectors, items, queries = made
    assert faiss.remove([0, 5, 899, 4000]) == milvus.remove([0, 5, 899, 4000]) == 3
    assert milvus.remove([0, 5, 899]) == 0 and len(milvus) == 897
    assert_same_hits(faiss, milvus, queries)
    assert faiss.add(vectors[:2], items[:2]) == milvus.add(vectors[:2], items[:2]) == [900, 901]
    assert_same_hits(faiss, milvus, vectors[:2])


def test_ties_go_to_the_smaller_id_however_many(made):
    _, milvus, vectors, items, _ = made
    more = milvus.add(np.repeat(vectors[:1], 200, axis=0), items[:200])
    assert [hit.id for hit in milvus.search(vectors[:1], 6)[0]] == [0, *more[:5]]
    assert [hit.id for hit in milvus.search(vectors[:1], 201)[0]] == [0, *more]


def test_many_hits_are_read_some_at_a_time(made, monkeypatch):
    faiss, milvus, _, _, queries = made
    monkeypatch.setattr(milvus_rows, '_ROWS_PER_READ', 50)
    client, largest = milvus._connection._client, []
    search, query = client.search, client.query

    def noted_search(*args, **kwargs):
        found = search(*args, **kwargs)
        largest.append(sum(map(len, found)) if 'embedding' in kwargs['output_fields'] else 0)
        return found

    def noted_query(*args, **kwargs):
        found = query(*args, **kwargs)
        largest.append(len(found))
        return found

    monkeypatch.setattr(client, 'search', noted_search)
    monkeypatch.setattr(client, 'query', noted_query)
    for k in (5, 20, 300):
        assert_same_hits(faiss, milvus, queries, k)
    assert 0 < max(largest) <= 50


def test_scores_are_the_direct_form(made):
    _, milvus, vectors, _, queries = made
    for query, hits in zip(queries, milvus.search(queries, 5), strict=True):
        expected, scores = brute_force(milvus.similarity, query, vectors, np.arange(900), 5)
        assert [hit.id for hit in hits] == expected
        np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=1e-12)


def test_a_graph_finds_nearly_all_and_gives_way_to_items_beyond_its_radius(made):
    faiss, milvus, vectors, items, queries = made
    milvus.build_index(least_items=901)
    assert milvus._index.kind() == 'FLAT'
    milvus.build_index(least_items=500)
    assert milvus._index.describe()['index_type'] == 'HNSW' and milvus._index.describe()['metric_type'] == 'L2'
    assert _recall(faiss, milvus, queries) > 0.95
    # Longer than the radius, which is one and a half times the longest item.
    far = vectors[:3] * 6
    assert faiss.add(far, items[:3]) == milvus.add(far, items[:3])
    if (milvus.similarity.difference > 0).any():
        assert milvus._index.kind() == 'FLAT' and milvus._description.mixed
        assert_same_hits(faiss, milvus, np.concatenate([queries, far]))
        milvus.build_index(least_items=500)
        assert not milvus._description.mixed
    assert milvus._index.kind() == 'HNSW'
    assert _recall(faiss, milvus, queries) > 0.95


@pytest.mark.parametrize('positive', [0.2, 0.0])
def test_removed_items_and_other_categories_hide_nothing_from_a_graph(tmp_path, positive, caplog, monkeypatch):
    rng = np.random.default_rng(0)
    faiss = FaissGallery(make_similarity(rng, 16, positive))
    milvus = MilvusGallery.create(tmp_path / 'shop.db', faiss.similarity)
    centres, vectors, articles = make_articles(rng, 40, 40, 16)
    items = make_items(rng, 1600, (1,))
    items = [replace(item, category_id=1 + row % 3) for item, row in zip(items, articles, strict=True)]
    for gallery in (faiss, milvus):
        gallery.add(vectors, items)
    milvus.build_index(least_items=500)
    near = np.argsort(-faiss.similarity.scores(centres[7:8], centres)[0])[:15]
    queries = centres[near].astype(np.float32)
    gone = np.flatnonzero(np.isin(articles, near))
    assert faiss.remove(gone) == milvus.remove(gone) == 600
    with caplog.at_level(logging.WARNING, milvus_rows.__name__):
        for categories in (None, [2]):
            assert _recall(faiss, milvus, queries, categories) > 0.95
        monkeypatch.setattr(milvus_rows, '_LARGEST_EFFORT', 599)
        for _ in range(2):
            milvus.search(queries[:1])
    # What grpc logs of milvus-lite is no warning of ours.
    (record,) = [record for record in caplog.records if record.name == milvus_rows.__name__]
    assert '600 items were removed or are of categories that are not searched' in record.getMessage()
    milvus.close()


def test_an_index_that_another_exchanged_is_noticed(made, tmp_path):
    faiss, milvus, _, _, queries = made
    reader = MilvusGallery.load(tmp_path / 'shop.db')
    assert_same_hits(faiss, reader, queries)
    milvus.build_index(least_items=500)
    assert _recall(faiss, reader, queries) > 0.95
    milvus.build_index(least_items=10**6)
    assert_same_hits(faiss, reader, queries)


def _recall(faiss, milvus, queries, categories=None):
    """Recall of the 20 best hits, whose scores have to be those of the direct form."""
    shares, found = [], milvus.search(queries, 20, categories)
    for query, right, line in zip(queries, faiss.search(queries, 20, categories), found, strict=True):
        ids = [hit.id for hit in line]
        shares.append(np.isin([hit.id for hit in right], ids).mean())
        stored = milvus.embeddings(ids)
        scores = milvus.similarity.scores(query[None], np.stack([stored[number] for number in ids]))[0]
        np.testing.assert_allclose([hit.score for hit in line], scores, rtol=1e-12)
    return np.mean(shares)


def test_a_new_process_finds_the_same(made, tmp_path):
    _, milvus, _, _, queries = made
    expected = [[[hit.id, hit.score, hit.item.fields] for hit in line] for line in milvus.search(queries, 7)]
    milvus.save()
    milvus.close()
    np.save(tmp_path / 'queries.npy', queries)
    done = subprocess.run(
        [sys.executable, _WORKER, 'search', tmp_path / 'shop.db', tmp_path / 'queries.npy'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    again = MilvusGallery.load(tmp_path / 'shop.db', milvus.similarity)
    assert again.model == 'made' and len(again) == 900 and again.add(queries[:1], make_items(np.random, 1)) == [900]
    again.close()


class TestFields:
    HOSTILE = ('x" or 1==1 //', "' OR 1=1 --", '"] or id >= 0 or image in ["', '\\', '\n', '𝄞', '%', '')

    def test_come_back_as_they_were_and_are_found_by_name_and_value(self, small):
        gallery, _ = small
        fields = [{'sku': text, text: 1, 'deep': {'a': [1, None, 2**70]}, 'price': 9.5} for text in self.HOSTILE]
        items = [
            GalleryItem(image=text, box=(0.1, 2, 3, 4), category_id=1, fields=own)
            for text, own in zip(self.HOSTILE, fields, strict=True)
        ]
        gallery.add(np.random.default_rng(0).normal(size=(len(items), 32)).astype(np.float32), items)
        assert gallery.items(range(len(items))) == dict(enumerate(items))
        for number, text in enumerate(self.HOSTILE):
            assert gallery.ids_where('sku', [text]) == gallery.ids_where('image', [text]) == [number]
            assert gallery.ids_where(text, [1]) == [number]
            assert gallery.ids_where(text, [2]) == [] and gallery.ids_where('price', [text]) == []
        assert gallery.ids_where('price', [9.5, 'none']) == list(range(len(items)))
        assert gallery.ids_where('price', []) == gallery.ids_where('deep', [1]) == []

    def test_that_are_none_find_nothing(self, small):
        gallery, _ = small
        rng = np.random.default_rng(0)
        gallery.add(make_embeddings(rng, 20), make_items(rng, 20))
        for text in self.HOSTILE:
            assert gallery.ids_where('sku', [text]) == gallery.ids_where(text, ['A1']) == []
        assert gallery.ids_where('sku', ['A1', 'A3', 'x']) == [1, 3]

    def test_numbers_are_equal_as_sqlite_has_them(self, small):
        gallery, _ = small
        values = [1, 1.0, True, 0, '1', 1.5, None]
        items = [GalleryItem(image='a', box=(0, 0, 1, 1), category_id=1, fields={'n': value}) for value in values]
        vectors = np.zeros((len(items), 32), np.float32)
        faiss = FaissGallery(gallery.similarity)
        assert gallery.add(vectors, items) == faiss.add(vectors, items)
        for value in values[:-1]:
            assert gallery.ids_where('n', [value]) == faiss.ids_where('n', [value])

    def test_refusals(self, small):
        gallery, _ = small
        vectors = np.zeros((1, 32), np.float32)
        with pytest.raises(ValueError, match='fields of an item must be what JSON can hold'):
            gallery.add(vectors, [GalleryItem(image='a', box=(0, 0, 1, 1), category_id=1, fields={'price': object()})])
        with pytest.raises(ValueError, match='take 70023 bytes, Milvus holds 65535'):
            gallery.add(vectors, [GalleryItem(image='a', box=(0, 0, 1, 1), category_id=1, fields={'t': 'x' * 69_984})])
        with pytest.raises(TypeError, match="got the string 'A1'"):
            gallery.ids_where('sku', 'A1')
        with pytest.raises(TypeError, match=r'searched by texts and numbers, got \[1\]'):
            gallery.ids_where('sku', [[1]])
        assert len(gallery) == 0 and gallery.search(vectors) == [[]]

"""The gallery in Milvus against the embedded one, over milvus-lite's real file and its server."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmdf2.retrieval.faiss_gallery import FaissGallery
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.items import GalleryItem

from .made_gallery import brute_force, make_embeddings, make_items, make_similarity

_REASON = 'galleries in Milvus are an extra: pip install mmdf2[milvus]'
pymilvus = pytest.importorskip('pymilvus', reason=_REASON)
pytest.importorskip('milvus_lite', reason=_REASON)

from mmdf2.retrieval.milvus_gallery import MilvusGallery  # noqa: E402
from mmdf2.retrieval.transfer import transfer  # noqa: E402

_WORKER = Path(__file__).with_name('milvus_worker.py')


@pytest.fixture(name='made', params=[0.2, 0.0], ids=['mixed', 'negative'])
def fixture_made(request, tmp_path):
    """The same 900 items in both galleries, and queries; weights of either sign and of one."""
    rng = np.random.default_rng(0)
    similarity = make_similarity(rng, positive=request.param)
    assert (similarity.difference > 0).any() == bool(request.param)
    faiss = FaissGallery(similarity, 'made')
    milvus = MilvusGallery.create(tmp_path / 'shop.db', similarity, 'made')
    # An offset as of features after a ReLU: what a centre is for.
    vectors, items = make_embeddings(rng, 900, offset=3.0), make_items(rng, 900)
    for rows in (slice(0, 200), slice(200, 900)):
        assert faiss.add(vectors[rows], items[rows]) == milvus.add(vectors[rows], items[rows])
    yield faiss, milvus, vectors, items, make_embeddings(rng, 25, offset=3.0)
    milvus.close()


@pytest.fixture(name='small')
def fixture_small(tmp_path):
    """An empty gallery of mixed weights and its file."""
    gallery = MilvusGallery.create(tmp_path / 'small.db', make_similarity(np.random.default_rng(1)), 'small')
    yield gallery, tmp_path / 'small.db'
    gallery.close()


def assert_same_hits(faiss, milvus, queries, k=20, categories=None):
    expected, found = faiss.search(queries, k, categories), milvus.search(queries, k, categories)
    assert [[hit.id for hit in line] for line in found] == [[hit.id for hit in line] for line in expected]
    assert [[hit.item for hit in line] for line in found] == [[hit.item for hit in line] for line in expected]
    for right, line in zip(expected, found, strict=True):
        np.testing.assert_allclose([hit.score for hit in line], [hit.score for hit in right], atol=1e-4)


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
    # Longer than the radius, which has a margin of a half.
    far = vectors[:3] * 6
    assert faiss.add(far, items[:3]) == milvus.add(far, items[:3])
    if (milvus.similarity.difference > 0).any():
        assert milvus._index.kind() == 'FLAT' and milvus._about.mixed
        assert_same_hits(faiss, milvus, np.concatenate([queries, far]))
        milvus.build_index(least_items=500)
        assert not milvus._about.mixed
    assert milvus._index.kind() == 'HNSW'
    assert _recall(faiss, milvus, queries) > 0.95


def test_an_index_that_another_exchanged_is_noticed(made, tmp_path):
    faiss, milvus, _, _, queries = made
    reader = MilvusGallery.load(tmp_path / 'shop.db')
    assert_same_hits(faiss, reader, queries)
    milvus.build_index(least_items=500)
    assert _recall(faiss, reader, queries) > 0.95
    milvus.build_index(least_items=10**6)
    assert_same_hits(faiss, reader, queries)


def _recall(faiss, milvus, queries):
    """Of 20 hits, whose scores have to be the direct form's."""
    shares, found = [], milvus.search(queries, 20)
    for query, right, line in zip(queries, faiss.search(queries, 20), found, strict=True):
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
            GalleryItem(text, (0.1, 2, 3, 4), 1, None, own) for text, own in zip(self.HOSTILE, fields, strict=True)
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
        items = [GalleryItem('a', (0, 0, 1, 1), 1, None, {'n': value}) for value in values]
        vectors = np.zeros((len(items), 32), np.float32)
        faiss = FaissGallery(gallery.similarity)
        assert gallery.add(vectors, items) == faiss.add(vectors, items)
        for value in values[:-1]:
            assert gallery.ids_where('n', [value]) == faiss.ids_where('n', [value])

    def test_refusals(self, small):
        gallery, _ = small
        vectors = np.zeros((1, 32), np.float32)
        with pytest.raises(ValueError, match='fields of an item must be what JSON can hold'):
            gallery.add(vectors, [GalleryItem('a', (0, 0, 1, 1), 1, None, {'price': object()})])
        with pytest.raises(ValueError, match='take 70023 bytes, Milvus holds 65535'):
            gallery.add(vectors, [GalleryItem('a', (0, 0, 1, 1), 1, None, {'t': 'x' * 69_984})])
        with pytest.raises(TypeError, match="got the string 'A1'"):
            gallery.ids_where('sku', 'A1')
        with pytest.raises(TypeError, match=r'searched by texts and numbers, got \[1\]'):
            gallery.ids_where('sku', [[1]])
        assert len(gallery) == 0 and gallery.search(vectors) == [[]]


class TestOpening:
    def test_another_model_is_refused_by_name(self, small):
        gallery, path = small
        other = make_similarity(np.random.default_rng(5))
        with pytest.raises(GalleryError, match=f"model 'small' .*{gallery.similarity.fingerprint()}.*") as caught:
            MilvusGallery.load(path, other)
        assert other.fingerprint() in str(caught.value)
        assert MilvusGallery.load(path, gallery.similarity).model == 'small'

    def test_what_is_no_gallery(self, small, tmp_path):
        gallery, path = small
        with pytest.raises(GalleryError, match='there is no file'):
            MilvusGallery.load(tmp_path / 'none.db')
        assert not (tmp_path / 'none.db').exists()
        with pytest.raises(GalleryError, match="no gallery 'other'"):
            MilvusGallery.load(path, collection='other')
        with pytest.raises(GalleryError, match="there is a gallery 'gallery'"):
            MilvusGallery.create(path, gallery.similarity)
        with pytest.raises(ValueError, match=r'whose name ends in \.db'):
            MilvusGallery.load(tmp_path / 'folder')
        with pytest.raises(ValueError, match='transfer copies galleries'):
            gallery.save(tmp_path / 'else.db')

    @pytest.mark.parametrize('text', ['', '[]', '{"format": 1}', '{"format": 2}', None])
    def test_a_changed_description_is_refused(self, small, text):
        gallery, path = small
        collection = gallery._about_collection
        if text is None:
            collection._write(1, 'AAAA')
        else:
            collection._write(0, text)
        with pytest.raises(GalleryError, match=r"collection gallery_about of gallery 'gallery' .* is damaged"):
            MilvusGallery.load(path)

    def test_a_killed_creation_is_begun_again_and_a_stranger_s_collection_kept(self, small):
        gallery, path = small
        client = gallery._connection._client
        client.delete('gallery_about', ids=[0])
        with pytest.raises(GalleryError, match='its creation was not finished'):
            MilvusGallery.load(path)
        again = MilvusGallery.create(path, gallery.similarity, 'again')
        assert again.add(np.zeros((1, 32), np.float32), make_items(np.random.default_rng(0), 1)) == [0]
        client.create_collection('theirs', dimension=4)
        with pytest.raises(GalleryError, match=r"'theirs' .* is no gallery"):
            MilvusGallery.create(path, gallery.similarity, collection='theirs')
        assert client.has_collection('theirs')


def _fail_first(monkeypatch, gallery, name, errors):
    """Has a method of the client raise some errors before it works; returns the list of its calls."""
    client, calls = gallery._connection._client, []
    method = getattr(client, name)

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return method(*args, **kwargs)

    monkeypatch.setattr(client, name, failing)
    return calls


class TestFailures:
    PASSING = (
        lambda: pymilvus.MilvusException(8, 'rate limit exceeded'),
        lambda: pymilvus.exceptions.MilvusUnavailableException(message='server unavailable'),
        lambda: pymilvus.MilvusException(500, 'node is offline', retriable=True),
    )

    @pytest.mark.parametrize('make', PASSING)
    def test_those_that_pass_are_tried_again(self, small, monkeypatch, make):
        gallery, _ = small
        rng = np.random.default_rng(0)
        vectors, items = make_embeddings(rng, 5), make_items(rng, 5)
        gallery.add(vectors, items)
        calls = _fail_first(monkeypatch, gallery, 'upsert', [make(), make()])
        assert gallery.add(vectors, items) == [5, 6, 7, 8, 9]
        # The reserved ids, twice in vain, and the items.
        assert len(calls) == 4 and len(gallery) == 10

    def test_those_that_last_end(self, small, monkeypatch):
        gallery, path = small
        calls = _fail_first(monkeypatch, gallery, 'query', [self.PASSING[1]() for _ in range(100)])
        with pytest.raises(GalleryError, match=f'Milvus at {path} does not answer query .*server unavailable'):
            len(gallery)
        assert len(calls) == 5

    def test_refusals_are_not_repeated(self, small, monkeypatch):
        gallery, path = small
        calls = _fail_first(monkeypatch, gallery, 'query', [pymilvus.MilvusException(1100, 'bad filter')])
        with pytest.raises(GalleryError, match=f'Milvus at {path} refused query: bad filter'):
            len(gallery)
        assert len(calls) == 1

    def test_an_id_is_not_given_twice_when_the_items_failed(self, small, monkeypatch):
        gallery, _ = small
        rng = np.random.default_rng(0)
        gallery.add(make_embeddings(rng, 2), make_items(rng, 2))
        upsert = gallery._connection._client.upsert

        def refuse_items(collection, *args, **kwargs):
            if collection == 'gallery':
                raise pymilvus.MilvusException(1100, 'no')
            return upsert(collection, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(gallery._connection._client, 'upsert', refuse_items)
            with pytest.raises(GalleryError, match='none of 4 items was written'):
                gallery.add(make_embeddings(rng, 4), make_items(rng, 4))
        assert gallery.add(make_embeddings(rng, 1), make_items(rng, 1)) == [6]

    def test_nothing_at_the_address(self, monkeypatch):
        attempts, client = [], pymilvus.MilvusClient

        def counting(*args, **kwargs):
            attempts.append(args)
            return client(*args, **kwargs)

        monkeypatch.setattr(pymilvus, 'MilvusClient', counting)
        with pytest.raises(GalleryError, match=r'http://127\.0\.0\.1:9 does not answer connect .*check that'):
            MilvusGallery.load('http://127.0.0.1:9', patience=3.0)
        assert 1 <= len(attempts) <= 5


@pytest.fixture(name='server')
def fixture_server(tmp_path):
    """A server of milvus-lite's as a process, and its address."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'milvus_lite', 'server', '--data-dir', tmp_path / 'served', '--port', str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', port)) == 0:
                break
        assert process.poll() is None, 'the server ended'
        time.sleep(0.1)
    yield process, f'http://127.0.0.1:{port}'
    process.kill()
    process.wait()


def test_a_server_s_address_is_the_only_change_and_its_end_a_clear_error(server):
    process, address = server
    rng = np.random.default_rng(2)
    faiss = FaissGallery(make_similarity(rng), 'served')
    milvus = MilvusGallery.create(address, faiss.similarity, 'served', patience=3.0)
    vectors, items = make_embeddings(rng, 300), make_items(rng, 300)
    assert faiss.add(vectors, items) == milvus.add(vectors, items)
    assert_same_hits(faiss, milvus, vectors[:20])
    assert_same_hits(faiss, MilvusGallery.load(address, faiss.similarity), vectors[:5], 5, [2])
    process.kill()
    process.wait()
    with pytest.raises(GalleryError, match=f'Milvus at {address} does not answer'):
        milvus.search(vectors[:1])


class TestTransfer:
    def test_a_killed_one_continues_without_duplicates_or_omissions(self, tmp_path):
        rng = np.random.default_rng(3)
        source = FaissGallery(make_similarity(rng), 'source')
        vectors, items = make_embeddings(rng, 9000), make_items(rng, 9000)
        source.add(vectors, items)
        gone = rng.choice(9000, 400, replace=False)
        source.remove(gone)
        source.save(tmp_path / 'source')
        command = [sys.executable, _WORKER, 'copy', tmp_path / 'copy.db', tmp_path / 'source']
        kills, moments = 0, random.Random(4)
        for _ in range(6):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout.readline() == 'ready\n'
                time.sleep(moments.uniform(0.0, 0.5))
                process.send_signal(signal.SIGKILL)
            kills += process.returncode == -signal.SIGKILL
        assert kills >= 1
        target = MilvusGallery.load(tmp_path / 'copy.db', source.similarity)
        before, progress = len(target), []
        assert transfer(source, target, lambda done, of: progress.append((done, of))) == 8600 - before
        assert progress[-1] == (8600, 8600) and len(target) == len(source) == 8600
        left = np.setdiff1d(np.arange(9000), gone).tolist()
        assert target.items(range(9000)) == source.items(left)
        found = target.embeddings(range(9000))
        assert sorted(found) == left and np.array_equal(np.stack([found[number] for number in left]), vectors[left])
        assert_same_hits(source, target, make_embeddings(rng, 20))
        assert transfer(source, target) == 0 and len(target) == 8600
        target.close()

    def test_refuses_a_target_of_other_items(self, small):
        gallery, _ = small
        rng = np.random.default_rng(0)
        source = FaissGallery(gallery.similarity, 'small')
        vectors, items = make_embeddings(rng, 10), make_items(rng, 10)
        source.add(vectors, items)
        gallery.add(vectors[:3], items[:3])
        gallery.put([1], vectors[5:6], items[1:2])
        with pytest.raises(GalleryError, match='item 1 of the target is not that of the source'):
            transfer(source, gallery)
        gallery.put([1, 12], vectors[1:3], items[1:3])
        with pytest.raises(GalleryError, match='the target holds 1 items that the source does not have'):
            transfer(source, gallery)
        gallery.remove([12])
        assert transfer(source, gallery) == 7 and gallery.items(range(20)) == dict(enumerate(items))
        # Ids of removed items stay given.
        assert gallery.add(vectors[:1], items[:1]) == [13]

    def test_refuses_another_model(self, small):
        gallery, _ = small
        with pytest.raises(GalleryError, match="model 'small'"):
            transfer(FaissGallery(make_similarity(np.random.default_rng(9)), 'x'), gallery)

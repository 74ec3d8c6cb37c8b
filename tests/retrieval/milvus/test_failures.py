"""What a gallery in Milvus does when it is opened wrongly, when calls fail and when the server is gone."""

import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mmdf2.retrieval import FaissGallery, GalleryError, MilvusGallery

from ..made_gallery import assert_same_hits, make_embeddings, make_items, make_similarity

_REASON = 'galleries in Milvus are an extra: pip install pymilvus milvus-lite'
pymilvus = pytest.importorskip('pymilvus', reason=_REASON)
pytest.importorskip('milvus_lite', reason=_REASON)


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
        for address in ('http://', 'https:///path', 'http://:19530'):
            with pytest.raises(ValueError, match=r'a Milvus server is at http\(s\)://host:port, got'):
                MilvusGallery.load(address)
        with pytest.raises(ValueError, match='transfer copies galleries'):
            gallery.save(tmp_path / 'else.db')

    @pytest.mark.parametrize('text', ['', '[]', '{"format": 1}', '{"format": 2}', None])
    def test_a_changed_description_is_refused(self, small, text):
        gallery, path = small
        collection = gallery._descriptions
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
    """Makes a method of the client raise some errors before it works; returns the list of its calls."""
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
        reserving = _fail_first(monkeypatch, gallery, 'upsert', [make(), make()])
        assert gallery.add(vectors, items) == [5, 6, 7, 8, 9]
        assert len(reserving) == 3 and len(gallery) == 10

    @pytest.mark.parametrize('version', [None, (2, 3, 5)])
    def test_what_was_written_without_an_answer_is_not_written_twice(self, small, monkeypatch, version):
        gallery, _ = small
        rng = np.random.default_rng(0)
        # An old server's upsert loses the category, so what may be there is deleted and inserted.
        monkeypatch.setitem(vars(gallery._connection), 'version', version)
        client, inserted = gallery._connection._client, []
        insert = client.insert

        def first_answer_lost(*args, **kwargs):
            insert(*args, **kwargs)
            inserted.append(args)
            if len(inserted) == 1:
                raise pymilvus.exceptions.MilvusUnavailableException(message='the answer was lost')

        monkeypatch.setattr(client, 'insert', first_answer_lost)
        items = make_items(rng, 5)
        assert gallery.add(make_embeddings(rng, 5), items) == [0, 1, 2, 3, 4]
        assert len(inserted) == (1 if version is None else 2)
        assert len(gallery) == sum(gallery.counts().values()) == 5
        assert gallery.items(range(9)) == dict(enumerate(items))

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
        with monkeypatch.context() as patch:
            _fail_first(patch, gallery, 'insert', [pymilvus.MilvusException(1100, 'no')])
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
    """A server of milvus-lite in a process of its own, and its address."""
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

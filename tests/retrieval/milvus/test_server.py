"""MilvusGallery on a real server, against FaissGallery: its hits, what others see of changes, and a crash."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mmdf2.retrieval import FaissGallery, GalleryError, MilvusGallery
from mmdf2.retrieval.transfer import transfer

from ..made_gallery import assert_same_hits, make_embeddings, make_items, make_similarity

pytestmark = pytest.mark.slow

_WORKER = Path(__file__).parents[1] / 'milvus_worker.py'
_COUNT = """
import sys
from mmdf2.retrieval import MilvusGallery
gallery = MilvusGallery.load(sys.argv[1], collection=sys.argv[2])
print(len(gallery), sum(gallery.counts().values()), len(gallery.search(gallery.embeddings([0])[0][None], 5000)[0]))
"""
_CREATE = """
import sys
import numpy as np
from mmdf2.retrieval import MilvusGallery, Similarity
MilvusGallery.create(sys.argv[1], Similarity(-np.ones((2, 32)), np.zeros(2)), 'second', sys.argv[2])
"""


@pytest.fixture(name='made', params=[0.2, 0.0], ids=['mixed', 'negative'])
def fixture_made(request, milvus_server):
    """The same 900 items in a folder and on the server, and queries; with weights of both signs and negative ones."""
    rng = np.random.default_rng(0)
    similarity = make_similarity(rng, positive=request.param)
    faiss = FaissGallery(similarity, 'made')
    name = f'made_{"mixed" if request.param else "negative"}'
    milvus = MilvusGallery.create(milvus_server.address, similarity, 'made', name)
    vectors, items = make_embeddings(rng, 900, offset=3.0), make_items(rng, 900)
    for rows in (slice(0, 200), slice(200, 900)):
        assert faiss.add(vectors[rows], items[rows]) == milvus.add(vectors[rows], items[rows])
    yield faiss, milvus, vectors, items, make_embeddings(rng, 25, offset=3.0)
    client = milvus._connection._client
    for collection in (name, f'{name}_about'):
        client.drop_collection(collection)
    milvus.close()


def test_hits_are_those_of_the_folder_after_every_change(made):
    faiss, milvus, vectors, items, queries = made
    assert_same_hits(faiss, milvus, queries)
    for categories in ([2], [1, 8], [3]):
        assert_same_hits(faiss, milvus, queries[:5], 20, categories)
    assert_same_hits(faiss, milvus, queries[:2], 900)
    assert faiss.remove([0, 5, 899, 4000]) == milvus.remove([0, 5, 899, 4000]) == 3
    assert milvus.counts() == faiss.counts() and len(milvus) == 897
    assert_same_hits(faiss, milvus, queries)
    assert faiss.add(vectors[:2], items[:2]) == milvus.add(vectors[:2], items[:2]) == [900, 901]
    assert_same_hits(faiss, milvus, vectors[:2])
    milvus.save()
    assert_same_hits(faiss, milvus, queries)
    wanted = ['A0', 'A7', 'B7']
    assert milvus.ids_where('sku', wanted) == faiss.ids_where('sku', wanted) == [7, 900]
    assert milvus.ids_where('image', ['shop/3.jpg']) == [3]


def test_a_graph_finds_nearly_all(made):
    faiss, milvus, _, _, queries = made
    milvus.build_index(least_items=1)
    assert set(milvus.indexed().values()) == {"Milvus's HNSW"}
    exact, found = faiss.search(queries, 20), milvus.search(queries, 20)
    shares = [
        len({hit.id for hit in line} & {hit.id for hit in right}) / 20 for right, line in zip(exact, found, strict=True)
    ]
    assert np.mean(shares) > 0.95
    milvus.build_index(least_items=901)
    assert_same_hits(faiss, milvus, queries)


def test_another_process_sees_what_was_written_before_it_opened_the_gallery(made, milvus_server):
    _, milvus, vectors, items, _ = made
    name = milvus._collection
    for written in (950, 1000):
        milvus.add(vectors[:50], items[:50])
        command = [sys.executable, '-c', _COUNT, milvus_server.address, name]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        assert said.split() == [str(written)] * 3


def test_another_process_never_makes_a_gallery_anew_that_has_just_been_made(milvus_server):
    similarity = make_similarity(np.random.default_rng(0))
    for number in range(3):
        name = f'twice_{number}'
        milvus = MilvusGallery.create(milvus_server.address, similarity, 'first', name)
        command = [sys.executable, '-c', _CREATE, milvus_server.address, name]
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and f"there is a gallery '{name}'" in done.stderr
        milvus.close()
        assert MilvusGallery.load(milvus_server.address, collection=name).model == 'first'


def test_what_an_older_server_lacks_is_one_line(milvus_server, caplog, capfd):
    with caplog.at_level(logging.WARNING):
        similarity = make_similarity(np.random.default_rng(0))
        milvus = MilvusGallery.create(milvus_server.address, similarity, 'made', 'lines')
    milvus.close()
    printed = capfd.readouterr()
    assert 'Traceback' not in printed.out + printed.err + caplog.text
    assert [len(record.getMessage().splitlines()) for record in caplog.records] == [1] * len(caplog.records)


def test_a_server_that_crashes_in_the_middle_of_a_load_loses_nothing(milvus_server, monkeypatch):
    monkeypatch.setattr('mmdf2.retrieval.transfer._BATCH', 500)
    rng = np.random.default_rng(2)
    source = FaissGallery(make_similarity(rng), 'made')
    source.add(make_embeddings(rng, 3000), make_items(rng, 3000))
    target = MilvusGallery.create(milvus_server.address, source.similarity, 'made', 'crash', patience=3.0)
    steps = []

    def kill_after_two_batches(done, _):
        steps.append(done)
        if len(steps) == 2:
            threading.Timer(0.05, milvus_server.kill).start()

    with pytest.raises(GalleryError, match=f'Milvus at {milvus_server.address} does not answer'):
        transfer(source, target, kill_after_two_batches)
    assert len(steps) < 6
    milvus_server.start()
    target = MilvusGallery.load(milvus_server.address, collection='crash')
    before = len(target)
    assert transfer(source, target) == 3000 - before
    assert len(target) == 3000 and target.counts() == source.counts()
    assert target.items(range(3000)) == source.items(range(3000))
    assert_same_hits(source, target, make_embeddings(rng, 10))

"""Copies of a gallery into another one: killed, continued and refused."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmdf2.retrieval import FaissGallery, GalleryError, MilvusGallery
from mmdf2.retrieval.transfer import transfer

from .made_gallery import assert_same_hits, make_embeddings, make_items, make_similarity

_REASON = 'galleries in Milvus are an extra: pip install pymilvus milvus-lite'
pytest.importorskip('pymilvus', reason=_REASON)
pytest.importorskip('milvus_lite', reason=_REASON)


_WORKER = Path(__file__).with_name('milvus_worker.py')


@pytest.mark.slow
def test_a_killed_copy_continues_without_duplicates_or_omissions(tmp_path):
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


def test_a_copy_refuses_a_target_of_other_items(small):
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


def test_a_copy_refuses_another_model(small):
    gallery, _ = small
    with pytest.raises(GalleryError, match="model 'small'"):
        transfer(FaissGallery(make_similarity(np.random.default_rng(9)), 'x'), gallery)

"""Indexes that are built to a recall: what they reach, against brute force, on embeddings of several shapes."""

import logging

import numpy as np
import pytest

from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.local.graph import GraphSettings
from mmdf2.retrieval.local.lists import ListSettings
from mmdf2.retrieval.local.tuning import least_effort

from ..made_gallery import brute_force, make_embeddings, make_items, make_similarity

WIDTH, COUNT = 24, 6000


def clusters(rng):
    return make_embeddings(rng, COUNT, WIDTH)


def uneven_clusters(rng):
    """A few styles have most of the items, as in shops."""
    centres = rng.normal(size=(300, WIDTH))
    rows = np.minimum(rng.zipf(1.3, COUNT) - 1, 299)
    return (centres[rows] + 0.4 * rng.normal(size=(COUNT, WIDTH))).astype(np.float32)


def low_rank(rng):
    return (rng.normal(size=(COUNT, 6)) @ rng.normal(size=(6, WIDTH))).astype(np.float32)


def gaussian(rng):
    return rng.normal(size=(COUNT, WIDTH)).astype(np.float32)


def build(make, positive=0.2, categories=(3,), **arguments):
    rng = np.random.default_rng(5)
    gallery = FaissGallery(make_similarity(rng, WIDTH, positive))
    vectors = make(rng)
    gallery.add(vectors, make_items(rng, len(vectors), categories))
    gallery.build_index(least_items=500, **arguments)
    return gallery, vectors


def recall(gallery, vectors, k=20):
    """By brute force, with queries near items that are not those of the tuning."""
    rng = np.random.default_rng(77)
    queries = vectors[rng.choice(len(vectors), 150)] + 0.02 * rng.normal(size=(150, vectors.shape[1]))
    shares = []
    for query, hits in zip(queries, gallery.search(queries.astype(np.float32), k), strict=True):
        right, _ = brute_force(gallery.similarity, query, vectors, np.arange(len(vectors)), k)
        shares.append(np.isin(right, [hit.id for hit in hits]).mean())
    return np.mean(shares)


@pytest.mark.parametrize('positive', [0.2, 0.0])
@pytest.mark.parametrize('categories', [(3,), (3, 8, 11)], ids=['one category', 'three categories'])
@pytest.mark.parametrize('make', [clusters, uneven_clusters, low_rank], ids=lambda make: make.__name__)
def test_the_target_is_reached_whatever_the_embeddings_are_like(make, positive, categories):
    gallery, vectors = build(make, positive, categories, target_recall=0.95)
    assert sorted(gallery.indexed()) == list(categories)
    assert recall(gallery, vectors) >= 0.93
    for partition in gallery._partitions:
        if len(partition):
            index = partition.state.index
            assert index.settings.probes <= index.lists // 2 and index.recall >= 0.95


def test_a_higher_target_takes_more_probes():
    low, _ = build(low_rank, target_recall=0.7)
    high, _ = build(low_rank, target_recall=0.98)
    probes = [gallery._partitions[2].state.index.settings.probes for gallery in (low, high)]
    assert probes[0] < probes[1]


def test_codes_are_tuned_as_well():
    gallery, vectors = build(clusters, settings=ListSettings(code_bytes=5), target_recall=0.9)
    assert 'with 5 bytes per item' in gallery.indexed()[3]
    assert recall(gallery, vectors) >= 0.88


def test_embeddings_without_structure_stay_exact(caplog):
    with caplog.at_level(logging.WARNING):
        gallery, vectors = build(gaussian, target_recall=0.99)
    assert 'category 3 stays exact: to find 0.99 of the 20 best hits' in caplog.text
    assert gallery.indexed() == {}
    assert recall(gallery, vectors) == 1


@pytest.mark.parametrize('settings', [ListSettings(probes=1), GraphSettings(links=2, effort=1, candidates=1)])
def test_settings_that_were_given_stay_and_are_measured(settings, caplog):
    with caplog.at_level(logging.WARNING):
        gallery, vectors = build(uneven_clusters, settings=settings, target_recall=0.99)
    index = gallery._partitions[2].state.index
    assert index.settings == settings
    assert abs(index.recall - recall(gallery, vectors)) < 0.1
    assert not caplog.records, 'who gives a number knows what it is for'


def test_without_a_target_nothing_is_measured():
    gallery, _ = build(clusters, target_recall=None)
    index = gallery._partitions[2].state.index
    assert index.settings == ListSettings() and index.recall is None and 'recall' not in gallery.indexed()[3]


def test_what_was_reached_is_saved(tmp_path):
    gallery, _ = build(clusters, categories=(3, 8), target_recall=0.9)
    gallery.save(tmp_path / 'g')
    again = FaissGallery.load(tmp_path / 'g')
    assert again.indexed() == gallery.indexed()
    assert 'recall@20 0.9' in again.indexed()[3]
    for one, other in zip(gallery._partitions, again._partitions, strict=True):
        if len(one):
            assert one.state.index.shared_probes == other.state.index.shared_probes > 0
            assert one.state.index.settings == other.state.index.settings


def test_equal_items_and_few_items():
    """Every item is as good as the others, and there may be fewer than 20 others."""
    rng = np.random.default_rng(0)
    gallery = FaissGallery(make_similarity(rng, WIDTH))
    gallery.add(np.ones((700, WIDTH), np.float32), make_items(rng, 700, (3,)))
    gallery.add(rng.normal(size=(5, WIDTH)).astype(np.float32), make_items(rng, 5, (4,)))
    gallery.add(rng.normal(size=(1, WIDTH)).astype(np.float32), make_items(rng, 1, (5,)))
    gallery.build_index(least_items=1)
    assert [len(line) for line in gallery.search(np.ones((2, WIDTH), np.float32), 30)] == [30, 30]
    assert len(gallery.search(np.ones((1, WIDTH), np.float32), 30, (4,))[0]) == 5


@pytest.mark.parametrize('target', [-0.1, 1.1, float('nan')])
def test_a_target_that_is_no_share_is_refused(target):
    gallery = FaissGallery(make_similarity(np.random.default_rng(0), WIDTH))
    with pytest.raises(ValueError, match='target_recall must be from 0 to 1'):
        gallery.build_index(target_recall=target)


@pytest.mark.parametrize('needed', [1, 7, 8, 9, 100, 700])
def test_the_least_effort_is_found_within_some_percent(needed):
    tried = []

    def recall_at(effort):
        tried.append(effort)
        return float(effort >= needed)

    found = least_effort(recall_at, 0.5, 1000)
    assert needed <= found <= needed * 1.08 + 1 and max(tried) <= 1000 and len(tried) < 15
    assert least_effort(recall_at, 0.5, needed - 1) is None if needed > 1 else True

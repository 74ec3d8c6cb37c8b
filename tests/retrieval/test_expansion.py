"""Query expansion against its formula, item by item."""

import math

import numpy as np
import pytest

from mmdf2.retrieval.expansion import expand_by_gallery, expand_queries, expanded_queries
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.similarity import Similarity

from .made_gallery import brute_force, make_embeddings, make_items, make_similarity


def by_hand(similarity, query, vectors, hits, power):
    """The formula for one query, hit by hit."""
    rows, scores = brute_force(similarity, query, vectors, np.arange(len(vectors)), hits)
    parts = [(1.0, query)] + [
        ((1 / (1 + math.exp(-score))) ** power, vectors[row]) for row, score in zip(rows, scores, strict=True)
    ]
    return sum(weight * vector.astype(np.float64) for weight, vector in parts) / sum(weight for weight, _ in parts)


@pytest.mark.parametrize('power', [0.0, 1.0, 3.0])
@pytest.mark.parametrize('hits', [1, 4, 60])
def test_equals_the_formula_query_by_query(hits, power):
    rng = np.random.default_rng(0)
    similarity = make_similarity(rng)
    vectors, queries = make_embeddings(rng, 50, offset=2.0), make_embeddings(rng, 9, offset=2.0)
    found = expand_queries(similarity, queries, vectors, hits, power)
    expected = [by_hand(similarity, query, vectors, min(hits, 50), power) for query in queries]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('hits', [0, 2, 60])
def test_by_a_gallery_it_is_the_same(hits):
    rng = np.random.default_rng(0)
    gallery = FaissGallery(make_similarity(rng))
    vectors, queries = make_embeddings(rng, 50), make_embeddings(rng, 9)
    items = make_items(rng, 50)
    gallery.add(vectors, items)
    found = expand_by_gallery(gallery, queries, hits)
    np.testing.assert_allclose(found, expand_queries(gallery.similarity, queries, vectors, hits), rtol=1e-5, atol=1e-6)
    held = np.array([item.category_id == 2 for item in items])
    found = expand_by_gallery(gallery, queries, hits, 2.0, [2])
    expected = expand_queries(gallery.similarity, queries, vectors[held], hits, 2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert expand_by_gallery(gallery, queries[:0], hits).shape == (0, 32)
    with pytest.raises(ValueError, match='hits must be'):
        expand_by_gallery(gallery, queries, -1)


def test_a_hit_that_is_surely_another_garment_moves_nothing():
    query, far = np.ones((1, 4)), np.full((1, 1, 4), 9.0)
    np.testing.assert_array_equal(expanded_queries(query, far, [[-1000.0]]), query)
    np.testing.assert_array_equal(expanded_queries(query, far, [[1000.0]]), query * 5)


def test_missing_hits_count_nothing_whatever_their_embeddings_hold():
    found = np.array([[[3.0, 5.0], [np.nan, np.inf]]])
    expanded = expanded_queries([[1.0, 1.0]], found, [[1000.0, -np.inf]], power=0.0)
    np.testing.assert_array_equal(expanded, [[2.0, 3.0]])


def test_without_hits_queries_stay_as_they_are():
    rng = np.random.default_rng(0)
    similarity, queries = make_similarity(rng), make_embeddings(rng, 5)
    for vectors, hits in ((make_embeddings(rng, 7), 0), (np.zeros((0, 32), np.float32), 3)):
        np.testing.assert_array_equal(expand_queries(similarity, queries, vectors, hits), queries)
    assert expand_queries(similarity, queries[:0], make_embeddings(rng, 7)).shape == (0, 32)


def test_a_query_between_photos_of_its_garment_finds_the_other_one():
    """Its purpose: the second photo is nearer to the mean than another garment is, though not to the query."""
    similarity = Similarity(np.array([[-0.5, -0.5], [0.5, 0.5]]), np.array([2.0, -2.0]))
    query = np.array([[0.0, 0.0]], np.float32)
    vectors = np.array([[1.0, 0.0], [2.2, 0.0], [-2.0, 0.0]], np.float32)
    before = brute_force(similarity, query[0], vectors, np.arange(3), 3)[0]
    after = brute_force(similarity, expand_queries(similarity, query, vectors, 1)[0], vectors, np.arange(3), 3)[0]
    assert (before, after) == ([0, 2, 1], [0, 1, 2])


@pytest.mark.parametrize(
    'queries, found, scores',
    [
        (np.zeros(3), np.zeros((1, 2, 3)), np.zeros((1, 2))),
        (np.zeros((1, 3)), np.zeros((1, 2, 4)), np.zeros((1, 2))),
        (np.zeros((2, 3)), np.zeros((1, 2, 3)), np.zeros((1, 2))),
        (np.zeros((1, 3)), np.zeros((1, 2, 3)), np.zeros((1, 1))),
    ],
)
def test_shapes_that_do_not_fit_are_named(queries, found, scores):
    with pytest.raises(ValueError, match=r'queries \(M, D\)'):
        expanded_queries(queries, found, scores)


def test_settings_out_of_range_are_named():
    rng = np.random.default_rng(0)
    similarity, vectors = make_similarity(rng), make_embeddings(rng, 5)
    for hits in (-1, 1.5, True):
        with pytest.raises(ValueError, match='hits must be'):
            expand_queries(similarity, vectors, vectors, hits)
    for power in (-1.0, float('nan')):
        with pytest.raises(ValueError, match='power must be'):
            expand_queries(similarity, vectors, vectors, 1, power)
    vectors[0, 0] = np.nan
    with pytest.raises(ValueError, match='NaN'):
        expand_queries(similarity, vectors, vectors)

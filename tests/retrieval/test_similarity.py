"""The similarity, and its spaces of inner products and of distances against the direct form."""

import numpy as np
import pytest

from mmdf2.retrieval.similarity import DistanceSpace, InnerProductSpace, Similarity

from .made_gallery import make_embeddings, make_similarity


@pytest.mark.parametrize('positive', [0.0, 0.2, 1.0])
@pytest.mark.parametrize('offset', [0.0, 50.0])
def test_both_spaces_give_the_direct_form(positive, offset):
    rng = np.random.default_rng(3)
    similarity = make_similarity(rng, positive=positive)
    vectors, queries = make_embeddings(rng, 500, offset=offset), make_embeddings(rng, 20, offset=offset)
    direct = similarity.scores(queries, vectors)
    products = InnerProductSpace.fitted(similarity, vectors)
    found = products.queries(queries).astype(np.float64) @ products.items(vectors).astype(np.float64).T
    np.testing.assert_allclose(products.scores(found, queries), direct, atol=2e-5)
    space = DistanceSpace.fitted(similarity, vectors)
    assert (space.radius is None) == (positive == 0.0)
    items, points = space.items(vectors).astype(np.float64), space.queries(queries).astype(np.float64)
    squared = ((points[:, None] - items) ** 2).sum(axis=2)
    np.testing.assert_allclose(space.scores(squared, queries), direct, atol=2e-4)
    nearest = np.take_along_axis(direct, squared.argmin(axis=1)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(nearest, direct.max(axis=1), atol=2e-4)


def test_without_a_centre_digits_are_lost():
    rng = np.random.default_rng(4)
    similarity = make_similarity(rng)
    vectors, queries = make_embeddings(rng, 300, offset=50.0), make_embeddings(rng, 10, offset=50.0)
    direct = similarity.scores(queries, vectors)
    errors = []
    for space in (InnerProductSpace(similarity, np.zeros(32)), InnerProductSpace.fitted(similarity, vectors)):
        found = space.queries(queries) @ space.items(vectors).T
        errors.append(np.abs(space.scores(found, queries) - direct).max())
    assert errors[1] < 1e-4 < errors[0]


def test_an_item_beyond_the_radius_is_refused():
    rng = np.random.default_rng(5)
    similarity, vectors = make_similarity(rng), make_embeddings(rng, 100)
    space = DistanceSpace.fitted(similarity, vectors)
    space.items(vectors)
    with pytest.raises(ValueError, match=r'outside the radius .* fit it to all items'):
        space.items(vectors * 5)


def test_empty_and_equal_galleries_have_a_space():
    similarity = make_similarity(np.random.default_rng(6))
    for vectors in (np.zeros((0, 32)), np.ones((4, 32))):
        space = InnerProductSpace.fitted(similarity, vectors)
        assert space.scale == 1.0 and space.items(vectors).shape == (len(vectors), 33)


class TestSimilarity:
    def test_scores_by_hand(self):
        similarity = Similarity(np.array([[2.0, 0], [0, 1]]), np.array([0.5, 0.25]))
        assert similarity.scores([[1.0, 1]], [[3.0, 4]]).tolist() == [[2 * 4 - 9 + 0.25]]
        assert similarity.offset == 0.25 and similarity.width == 2

    def test_fingerprints_tell_models_apart(self):
        one = Similarity(np.ones((2, 3)), np.zeros(2))
        assert one.fingerprint() == Similarity(np.ones((2, 3)), np.zeros(2)).fingerprint()
        changed = np.ones((2, 3), np.float32)
        changed[1, 2] += 1e-7
        others = [Similarity(changed, np.zeros(2)), Similarity(np.ones((2, 3)), np.array([0, 1.0]))]
        assert len({similarity.fingerprint() for similarity in (one, *others)}) == 3

    @pytest.mark.parametrize(
        ('weight', 'bias'),
        [(np.ones((3, 4)), np.ones(2)), (np.ones((2, 0)), np.ones(2)), (np.ones((2, 4)), np.ones(1))],
    )
    def test_refuses_other_shapes(self, weight, bias):
        with pytest.raises(ValueError, match=r'weight of shape \(2, D\) and a bias of shape \(2,\)'):
            Similarity(weight, bias)

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match='must be finite'):
            Similarity(np.full((2, 4), np.nan), np.ones(2))

"""Made embeddings with clusters like a gallery's, weights of either sign, and items for them."""

import numpy as np

from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.similarity import Similarity


def make_similarity(rng, width=32, positive=0.2):
    """Mostly distances, with a share of weights of the other sign."""
    weight = -np.abs(rng.normal(size=width)) / width
    flipped = rng.random(width) < positive
    weight[flipped] *= -0.5
    return Similarity(np.stack([weight, -weight]), np.array([1.0, -1.0]))


def make_embeddings(rng, count, width=32, offset=0.0):
    """Identities around styles, some items each."""
    styles = rng.normal(size=(40, width))
    identities = styles[rng.integers(0, 40, max(count // 5, 1))] + rng.normal(size=(max(count // 5, 1), width)) * 0.5
    rows = rng.integers(0, len(identities), count)
    return (identities[rows] + rng.normal(size=(count, width)) * 0.3 + offset).astype(np.float32)


def make_items(rng, count, categories=(1, 2, 8)):
    """Items with fields of their own."""
    return [
        GalleryItem(
            image=f'shop/{row}.jpg',
            box=(1.0, 2.0, 30.0, 40.5),
            category_id=int(rng.choice(categories)),
            fields={'sku': f'A{row}'},
        )
        for row in range(count)
    ]


def brute_force(similarity, query, vectors, ids, k):
    """Ids of the k best by the direct form in float64, ties by id."""
    scores = similarity.scores(query[None], vectors)[0]
    return [int(ids[row]) for row in np.lexsort((ids, -scores))[:k]], np.sort(scores)[::-1][:k]


def assert_same_hits(faiss, milvus, queries, k=20, categories=None):
    """Two galleries find the same items, in the same order, with the same scores."""
    expected, found = faiss.search(queries, k, categories), milvus.search(queries, k, categories)
    assert [[hit.id for hit in line] for line in found] == [[hit.id for hit in line] for line in expected]
    assert [[hit.item for hit in line] for line in found] == [[hit.item for hit in line] for line in expected]
    for right, line in zip(expected, found, strict=True):
        np.testing.assert_allclose([hit.score for hit in line], [hit.score for hit in right], atol=1e-4)

"""Made similarities, embeddings with clusters like those of a gallery, and items; comparisons of hits; damage."""

import numpy as np
import pytest

from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.local.folder import read_folder
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.locations import create_gallery
from mmdf2.retrieval.similarity import Similarity


def make_similarity(rng, width=32, positive=0.2):
    """A similarity with negative weights, except for a share of positive ones."""
    weight = -np.abs(rng.normal(size=width)) / width
    flipped = rng.random(width) < positive
    weight[flipped] *= -0.5
    return Similarity(np.stack([weight, -weight]), np.array([1.0, -1.0]))


def make_embeddings(rng, count, width=32, offset=0.0):
    """Embeddings in clusters: identities around styles, and some items around each identity."""
    styles = rng.normal(size=(40, width))
    identities = styles[rng.integers(0, 40, max(count // 5, 1))] + rng.normal(size=(max(count // 5, 1), width)) * 0.5
    rows = rng.integers(0, len(identities), count)
    return (identities[rows] + rng.normal(size=(count, width)) * 0.3 + offset).astype(np.float32)


def make_articles(rng, articles, photos, width=32):
    """(articles, width) centres, the near-duplicate embeddings around each of them, and each embedding's article."""
    centres = rng.normal(size=(articles, width))
    numbers = np.repeat(np.arange(articles), photos)
    return centres, (centres[numbers] + rng.normal(size=(len(numbers), width)) * 0.01).astype(np.float32), numbers


def make_items(rng, count, categories=(1, 2, 8)):
    """Items with a field each, by which they can be told apart."""
    return [
        GalleryItem(
            image=f'shop/{row}.jpg',
            box=(1.0, 2.0, 30.0, 40.5),
            category_id=int(rng.choice(categories)),
            fields={'sku': f'A{row}'},
        )
        for row in range(count)
    ]


def item_of(number: int) -> GalleryItem:
    """The item of a number, which is also in each column of its embedding."""
    return GalleryItem(f'{number}', (0, 0, 1, 1), 1 + number % 13, fields={'of': number})


def make_numbered(folder, count: int) -> None:
    """Makes a gallery of the items 0 to count - 1."""
    gallery = create_gallery(folder, make_similarity(np.random.default_rng(0), width=8), 'model')
    gallery.add(np.repeat(np.arange(float(count))[:, None], 8, axis=1), [item_of(number) for number in range(count)])
    gallery.save()


def numbers_in(folder) -> set[int]:
    """The numbers that a gallery holds, each of which agrees in the item and in the embedding."""
    gallery = FaissGallery.load(folder)
    items, embeddings = gallery.items(range(100_000)), gallery.embeddings(range(100_000))
    found = [item.fields['of'] for item in items.values()]
    assert len(set(found)) == len(found) == len(gallery)
    assert all(item == item_of(item.fields['of']) for item in items.values())
    assert all((embeddings[number] == item.fields['of']).all() for number, item in items.items())
    return set(found)


def brute_force(similarity, query, vectors, ids, k):
    """Ids and scores of the k best by the direct form in float64; equal scores are ordered by id."""
    scores = similarity.scores(query[None], vectors)[0]
    return [int(ids[row]) for row in np.lexsort((ids, -scores))[:k]], np.sort(scores)[::-1][:k]


def assert_same_hits(faiss, milvus, queries, k=20, categories=None):
    """Two galleries find the same items, in the same order, with the same scores."""
    expected, found = faiss.search(queries, k, categories), milvus.search(queries, k, categories)
    assert [[hit.id for hit in line] for line in found] == [[hit.id for hit in line] for line in expected]
    assert [[hit.item for hit in line] for line in found] == [[hit.item for hit in line] for line in expected]
    for right, line in zip(expected, found, strict=True):
        np.testing.assert_allclose([hit.score for hit in line], [hit.score for hit in right], atol=1e-4)


def assert_damage_is_named(path):
    """A gallery whose file was cut, or changed in one bit, is refused by the file's name; the file stays changed."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(GalleryError, match=rf'{path.name} has \d+ bytes, \d+ by the manifest: it was cut or changed'):
        read_folder(path.parent)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(GalleryError, match=rf'{path.name} has been changed: its hash'):
        read_folder(path.parent)

"""Makes the galleries of this folder with mmdf2 0.1.0: ``python make_gallery.py FOLDER``. README.md says more."""

import json
import sys
from pathlib import Path

import numpy as np

import mmdf2
from mmdf2.categories import CATEGORIES
from mmdf2.retrieval.faiss_gallery import FaissGallery
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.milvus_gallery import MilvusGallery
from mmdf2.retrieval.similarity import Similarity
from mmdf2.retrieval.transfer import transfer

WIDTH = 8


def make_item(rng, row: int) -> GalleryItem:
    """An item, every third of which has landmarks and every fourth of which has no fields."""
    category = (1, 1, 2, 7, 8, 13)[row % 6]
    landmarks = None
    if row % 3 == 0:
        count = CATEGORIES[category - 1].num_landmarks
        points = np.column_stack([rng.uniform(0, 200, count), rng.uniform(0, 300, count), rng.integers(0, 3, count)])
        landmarks = tuple(map(tuple, points.round(2).tolist()))
    fields = {'sku': f'A{row}', 'price': 9.5 + row, 'tags': ['new', None], 'size': {'eu': 38}} if row % 4 else {}
    if row == 5:
        fields = {'sku': 'ärmel "5"', 'sold': True}
    box = tuple(np.concatenate([rng.uniform(0, 100, 2), rng.uniform(100, 300, 2)]).round(3).tolist())
    return GalleryItem(image=f'shop/{row:02d}.jpg', box=box, category_id=category, landmarks=landmarks, fields=fields)


def main(out: Path) -> None:
    rng = np.random.default_rng(12)
    weight = rng.normal(size=(2, WIDTH)) * 0.3
    weight[0] -= 0.3
    similarity = Similarity(weight, np.array([1.5, -1.25]))
    assert mmdf2.__version__ == '0.1.0' and 0 < (similarity.difference > 0).sum() < WIDTH
    gallery = FaissGallery(similarity, 'epoch_2.pth 0123456789abcdef')
    vectors = rng.normal(size=(14, WIDTH)).astype(np.float32)
    vectors[9] = vectors[3]  # equal scores
    gallery.add(vectors, [make_item(rng, row) for row in range(14)])
    gallery.remove([4, 13])
    gallery.save(out / 'folder')
    in_milvus = MilvusGallery.create(out / 'milvus.db', similarity, gallery.model)
    transfer(gallery, in_milvus)
    in_milvus.close()

    queries = rng.normal(size=(4, WIDTH)).astype(np.float32)
    queries[3] = vectors[3]

    def hits(**settings):
        return [[[hit.id, hit.score] for hit in line] for line in gallery.search(queries, **settings)]

    expected = {
        'model': gallery.model,
        'similarity': similarity.fingerprint(),
        'counts': gallery.counts(),
        'next_id': 14,
        'queries': queries.tolist(),
        'hits': hits(k=12),
        'hits_in_categories_1_and_8': hits(k=3, categories=[1, 8]),
        'ids_where_sku_is_A7': gallery.ids_where('sku', ['A7']),
        'items': {number: vars(item) for number, item in gallery.items(range(14)).items()},
        'embeddings': {number: vector.tolist() for number, vector in gallery.embeddings(range(14)).items()},
    }
    (out / 'expected.json').write_text(json.dumps(expected) + '\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]))

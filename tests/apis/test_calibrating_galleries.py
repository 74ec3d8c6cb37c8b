"""Calibration of a gallery: a model that sees everything and embeds with noise, and searches that use the result."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from models.tiny import build_tiny, tiny_config

from mmdf2.apis import ClothesInferencer, FashionSearch
from mmdf2.apis.gallery_evaluation import calibrate_gallery, split_images
from mmdf2.apis.search import extracted_items, model_similarity
from mmdf2.categories import Source, identity_code
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.retrieval import FaissGallery, Similarity
from mmdf2.retrieval.calibration import Calibration
from mmdf2.wardrobe import make_wardrobe

WIDTH = 12


@pytest.fixture(scope='module')
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp('wardrobe')
    make_wardrobe(root, 60, seed=2, split='validation', size=64, workers=1, progress=False)
    return open_or_prepare(root, 'validation'), root / 'validation' / 'image'


class SeesEverything:
    """Finds the annotated boxes; an embedding is the identity's place and noise."""

    def __init__(self, store, noise):
        self._records = {store.image(row).file_name: store.image(row) for row in range(len(store))}
        self._noise = noise

    def predict(self, paths):
        for path in paths:
            record = self._records[path.rpartition('/')[2]]
            rows = []
            for item in record.items:
                code = identity_code(record.pair_id, item.style)
                place = np.random.default_rng(code if code >= 0 else [record.image_id, item.item_id])
                own = np.random.default_rng([record.image_id, item.item_id, 1])
                rows.append(place.normal(size=WIDTH) + self._noise * own.normal(size=WIDTH))
            yield SimpleNamespace(
                error=None,
                data_sample=SimpleNamespace(
                    pred_instances=InstanceData(
                        scores=torch.ones(len(rows)),
                        labels=torch.tensor([item.label for item in record.items], dtype=torch.int64),
                        bboxes=torch.tensor(np.array([item.bbox for item in record.items]).reshape(-1, 4)),
                        embeddings=torch.tensor(np.array(rows).reshape(-1, WIDTH)),
                    )
                ),
            )


def gallery_of(model, store, folder, sign=1):
    weight = np.full(WIDTH, -0.5 * sign)
    gallery = FaissGallery(Similarity(np.stack([weight, -weight]), np.zeros(2)))
    paths = list(split_images(store, folder, Source.SHOP))
    for path, result in zip(paths, model.predict(paths), strict=True):
        found = extracted_items(result.data_sample.pred_instances, path, 0.0)
        gallery.add(found.embeddings, found.items)
    return gallery


def test_a_sharp_model_is_sure_and_a_blurred_one_is_not(split):
    store, folder = split
    found = {}
    for noise in (0.1, 0.8):
        model = SeesEverything(store, noise)
        gallery = gallery_of(model, store, folder)
        found[noise] = calibrate_gallery(gallery, model, store, folder)
    sharp, blurred = found[0.1][1], found[0.8][1]
    assert sharp['queries'] == blurred['queries'] > 100
    assert sharp['auc'] > 0.999 and sharp['found'] == 1 and sharp['kept'] > 0.99
    assert 0.6 < blurred['auc'] < 0.99 and blurred['kept'] < 0.9
    for figures in (sharp, blurred):
        assert figures['calibration_error'] < 0.05 and abs(figures['false_accepts'] - 0.05) < 0.06
    calibration = found[0.1][0]
    same = calibration.probability([-WIDTH * 2 * 0.01])[0]
    assert same > 0.95 and calibration.probability([-WIDTH])[0] < 0.05


def test_a_similarity_that_prefers_others_cannot_be_calibrated(split):
    store, folder = split
    model = SeesEverything(store, 0.1)
    gallery = gallery_of(model, store, folder, sign=-1)
    with pytest.raises(ValueError, match=r'has not learned to match|needs hits of the same garment'):
        calibrate_gallery(gallery, model, store, folder)


@pytest.fixture(scope='module')
def search(tmp_path_factory, tiny_root):
    folder = tmp_path_factory.mktemp('tiny')
    torch.save({'state_dict': build_tiny().state_dict()}, folder / 'tiny.pth')
    pipeline = [
        {'type': 'mmdf2.Resize', 'scale': (96, 64), 'keep_ratio': True},
        {'type': 'mmdf2.PackClothesInputs'},
    ]
    config = Config({'model': tiny_config(), 'test_dataloader': {'dataset': {'pipeline': pipeline}}})
    model = ClothesInferencer(config, folder / 'tiny.pth', device='cpu')
    gallery = FaissGallery(model_similarity(model))
    for result in model.predict([str(next((tiny_root / 'validation/image').iterdir()))]):
        found = extracted_items(result.data_sample.pred_instances, 'a.jpg', 0.0)
        gallery.add(found.embeddings, found.items)
    return FashionSearch(model, gallery)


def test_a_search_says_how_sure_it_is(search, tiny_root):
    image = str(sorted((tiny_root / 'validation/image').iterdir())[1])
    plain = search.search(image, 3, 0.0)
    assert plain and all(garment.probabilities is None and garment.is_there is None for garment in plain)
    with pytest.raises(ValueError, match=r'has no calibration.*tools/gallery\.py calibrate'):
        search.search(image, 3, 0.0, false_accepts=0.05)
    best = sorted(garment.hits[0].score for garment in plain)
    middle = best[len(best) // 2]
    calibration = Calibration(
        slope=2.0, intercept=0.5, false_scores=(best[0] - 1.0, middle, best[-1] + 1.0), queries=10
    )
    search.gallery.set_calibration(calibration)
    try:
        found = search.search(image, 3, 0.0, false_accepts=0.5)
        for garment in found:
            np.testing.assert_allclose(garment.probabilities, calibration.probability([h.score for h in garment.hits]))
            assert garment.is_there == (garment.hits[0].score >= middle)
        assert {garment.is_there for garment in found} == {True, False}
        assert all(garment.is_there for garment in search.search(image, 3, 0.0, false_accepts=1))
        expanded = search.search(image, 3, 0.0, expansion=1)
        assert all(garment.probabilities is None for garment in expanded)
        with pytest.raises(ValueError, match='give false_accepts or expansion'):
            search.search(image, 3, 0.0, expansion=1, false_accepts=0.05)
        nothing = search.search(
            image, 3, 0.0, categories=[13 if not search.gallery.counts()[13] else 1], false_accepts=1
        )
        assert all(not garment.hits and garment.is_there is False for garment in nothing)
    finally:
        search.gallery.set_calibration(None)

"""Galleries from photos: interrupted, resumed, with photos that cannot be read."""

import json

import pytest
import torch
from mmengine.config import Config
from models.tiny import build_tiny, tiny_config
from PIL import Image

from mmdf2.apis import ClothesInferencer, FashionSearch, extraction
from mmdf2.apis.embedded_garments import model_similarity
from mmdf2.apis.gallery_building import add_images
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.locations import create_gallery, open_gallery
from mmdf2.retrieval.similarity import Similarity

PIPELINE = [
    {'type': 'mmdf2.Resize', 'scale': (96, 64), 'keep_ratio': True},
    {'type': 'mmdf2.PackClothesInputs'},
]


@pytest.fixture(scope='module')
def inferencer(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    torch.save({'state_dict': build_tiny().state_dict()}, path)
    config = Config({'model': tiny_config(), 'test_dataloader': {'dataset': {'pipeline': PIPELINE}}})
    return ClothesInferencer(config, path, device='cpu')


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / f'{number}.png' for number in range(5)]
    for number, path in enumerate(paths):
        noise = torch.randint(0, 256, (4, 6, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).resize((96, 64)).save(path)
    paths.insert(2, tmp_path / 'broken.png')
    paths[2].write_bytes(b'no image')
    return [str(path) for path in paths]


def build(location, inferencer, photos, **changes):
    gallery = create_gallery(location, model_similarity(inferencer), 'tiny')
    arguments = {'score_threshold': 0.0, 'progress': False, **changes}
    return add_images(gallery, inferencer, photos, f'{location}.partial', **arguments)


def rows(location) -> list:
    gallery = open_gallery(location)
    found = gallery.items(range(1000))
    return [(number, found[number]) for number in sorted(found)]


class Killed(BaseException):
    """Stands for the end of a process."""


def test_an_interrupted_build_goes_on_and_gives_the_same_gallery(inferencer, photos, tmp_path, monkeypatch):
    build(tmp_path / 'whole', inferencer, photos)
    monkeypatch.setattr(extraction, '_IMAGES_OF_PART', 1)
    predict, seen = inferencer.predict, []

    def predict_three(images, batch_size=1):
        if len(seen) == 3:
            raise Killed
        seen.extend(images)
        return predict(images, batch_size)

    monkeypatch.setattr(inferencer, 'predict', predict_three)
    with pytest.raises(Killed):
        build(tmp_path / 'gallery', inferencer, photos)
    assert not (tmp_path / 'gallery').exists()
    monkeypatch.setattr(inferencer, 'predict', lambda images, batch_size=1: (seen.extend(images), predict(images))[1])
    added = build(tmp_path / 'gallery', inferencer, photos)
    assert seen == photos and added.resumed == 3
    assert added.images == 6 and list(added.broken) == [photos[2]] and added.items == len(rows(tmp_path / 'gallery'))
    assert rows(tmp_path / 'gallery') == rows(tmp_path / 'whole') != []
    assert not (tmp_path / 'gallery.partial').exists()


def test_a_photo_finds_itself_first_and_its_fields(inferencer, photos, tmp_path):
    build(tmp_path / 'gallery', inferencer, photos, fields={photos[4]: {'sku': 'A4'}})
    found = FashionSearch(inferencer, tmp_path / 'gallery').search(photos[4], k=1, score_threshold=0.0)
    scale = model_similarity(inferencer).offset
    # Nothing is more similar than equal embeddings where all weights are negative, as those of a new model are.
    assert found and all(garment.hits[0].score == pytest.approx(scale, abs=1e-5) for garment in found)
    exact = [garment for garment in found if garment.hits[0].item.box == garment.garment.box]
    assert exact and all(garment.hits[0].item.fields == {'sku': 'A4'} for garment in exact)


def test_another_unfinished_extraction_is_refused(inferencer, photos, tmp_path):
    folder = tmp_path / 'gallery.partial'
    folder.mkdir()
    job = {'model': 'tiny', 'similarity': 'other', 'score_threshold': 0.0, 'images': photos}
    (folder / 'job.json').write_text(json.dumps(job))
    with pytest.raises(GalleryError, match="unfinished extraction with similarity 'other'"):
        build(tmp_path / 'gallery', inferencer, photos)
    (folder / 'job.json').write_text('[1, 2')
    with pytest.raises(GalleryError, match='is no job of an extraction'):
        build(tmp_path / 'gallery', inferencer, photos)


def test_a_gallery_of_another_model_and_an_address_are_refused(inferencer, tmp_path):
    own = model_similarity(inferencer)
    other = create_gallery(tmp_path / 'gallery', Similarity(own.weight * 2, own.bias), 'another')
    with pytest.raises(GalleryError, match=f"model 'another'.*{own.fingerprint()}"):
        FashionSearch(inferencer, other)
    with pytest.raises(GalleryError, match='is an address'):
        open_gallery('http://localhost:1')

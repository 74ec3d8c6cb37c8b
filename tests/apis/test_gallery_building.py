"""Galleries from photos: interrupted, resumed, with photos that cannot be read."""

import json
import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from models.tiny import build_tiny, tiny_config
from PIL import Image

from mmdf2 import files
from mmdf2.apis import ClothesInferencer, FashionSearch, gallery_building
from mmdf2.apis.gallery_building import add_images
from mmdf2.apis.gallery_evaluation import evaluate_gallery, split_images
from mmdf2.apis.search import extracted_items, model_identity, model_similarity, open_gallery_of
from mmdf2.categories import Source
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.records import EvaluationError
from mmdf2.retrieval.expansion import expand_by_gallery
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.items import GalleryItem
from mmdf2.retrieval.local.gallery import FaissGallery
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
    gallery = _gallery_to_fill(location, inferencer)
    arguments = {'score_threshold': 0.0, 'progress': False, **changes}
    return add_images(gallery, inferencer, photos, f'{location}.partial', **arguments)


def _gallery_to_fill(location, inferencer):
    similarity = model_similarity(inferencer)
    try:
        return create_gallery(location, similarity, 'tiny')
    except GalleryError:
        return open_gallery(location, similarity)


def rows(location) -> list:
    gallery = open_gallery(location)
    found = gallery.items(range(1000))
    return [(number, found[number]) for number in sorted(found)]


def test_whatever_one_image_does_it_is_named_and_the_others_are_added(inferencer, photos, tmp_path, monkeypatch):
    odd = os.fsdecode(os.fsencode(tmp_path) + b'/bl\xe9.png')
    shutil.copyfile(photos[0], odd)
    Image.new('RGB', (3000, 2), 'red').save(tmp_path / 'wide.png')
    expected = build(tmp_path / 'expected', inferencer, photos)
    items = rows(tmp_path / 'expected')
    extract = gallery_building.extracted_items

    def spoils_the_second(instances, image, threshold):
        if image == photos[1]:
            instances.embeddings[0, 0] = np.nan
        return extract(instances, image, threshold)

    monkeypatch.setattr(gallery_building, 'extracted_items', spoils_the_second)
    added = build(tmp_path / 'gallery', inferencer, [odd, str(tmp_path / 'wide.png'), *photos])
    assert added.broken.keys() == {*expected.broken, f'{tmp_path}/bl\\xe9.png', photos[1]}
    assert 'not UTF-8; rename the file' in added.broken[f'{tmp_path}/bl\\xe9.png']
    assert 'embeddings that are not finite' in added.broken[photos[1]]
    stored = [item for _, item in rows(tmp_path / 'gallery')]
    wide = [item for item in stored if item.image.endswith('wide.png')]
    assert [item for item in stored if item not in wide] == [item for _, item in items if item.image != photos[1]]
    # All of them again: what is there is not looked at, and what failed fails by name again.
    again = build(tmp_path / 'gallery', inferencer, [odd, *photos])
    assert (again.items, again.broken) == (0, {name: added.broken[name] for name in again.broken})


def test_a_user_image_that_fails_is_named_and_left_out_of_the_figures(inferencer, tiny_root, tmp_path, capsys):
    folders = []
    for name in ('broken', 'without'):
        shutil.copytree(tiny_root / 'validation', tmp_path / name / 'validation')
        folders.append(tmp_path / name / 'validation' / 'image')
    (folders[1] / '000003.jpg').unlink()
    (tmp_path / 'without' / 'validation' / 'annos' / '000003.json').unlink()
    stores = [open_or_prepare(folder.parents[1], 'validation') for folder in folders]
    build(tmp_path / 'gallery', inferencer, list(split_images(stores[0], folders[0], Source.SHOP)))
    gallery = open_gallery(tmp_path / 'gallery')
    (folders[0] / '000003.jpg').write_bytes(b'no image any more')
    found, expected = (
        evaluate_gallery(gallery, inferencer, store, folder) for store, folder in zip(stores, folders, strict=True)
    )
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True) and expected['queries'] > 3
    said = capsys.readouterr().err
    assert '1 of 8 user images are left out of the figures' in said and '000003.jpg is not a readable image' in said
    for path in split_images(stores[0], folders[0], Source.USER):
        os.unlink(path)
    with pytest.raises(EvaluationError, match='no user image can be used'):
        evaluate_gallery(gallery, inferencer, stores[0], folders[0])


class Killed(BaseException):
    """Stands for the kill of a process."""


def build_until_the_filling(location, inferencer, photos, monkeypatch) -> None:
    """Builds a gallery, and is killed when everything is extracted and the first items are about to enter it."""
    with monkeypatch.context() as patch:
        patch.setattr(FaissGallery, 'put', lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            build(location, inferencer, photos)


def test_an_interrupted_build_goes_on_and_gives_the_same_gallery(inferencer, photos, tmp_path, monkeypatch):
    build(tmp_path / 'whole', inferencer, photos)
    monkeypatch.setattr(gallery_building, '_IMAGES_PER_PART', 1)
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
    job = {'model': 'tiny', 'similarity': 'other', 'score_threshold': 0.0, 'images': photos, 'present': []}
    (folder / 'job.json').write_text(json.dumps(job))
    with pytest.raises(GalleryError, match="unfinished extraction with similarity 'other'"):
        build(tmp_path / 'gallery', inferencer, photos)
    (folder / 'job.json').write_text('[1, 2')
    with pytest.raises(GalleryError, match='is not a job of an extraction'):
        build(tmp_path / 'gallery', inferencer, photos)


@pytest.mark.parametrize(('name', 'content'), [('.json', b''), ('.json', b'[1]'), ('.npy', b''), ('.npy', None)])
def test_a_damaged_part_of_an_extraction_is_named_with_the_remedy(
    inferencer, photos, tmp_path, monkeypatch, name, content
):
    build_until_the_filling(tmp_path / 'gallery', inferencer, photos, monkeypatch)
    (part,) = (tmp_path / 'gallery.partial').glob(f'part-*{name}')
    if content is None:
        np.save(part, np.load(part)[1:])
    else:
        part.write_bytes(content)
    with pytest.raises(GalleryError, match=rf'{part.name} is damaged .*; remove .*gallery\.partial to begin'):
        build(tmp_path / 'gallery', inferencer, photos)
    shutil.rmtree(tmp_path / 'gallery.partial')
    assert build(tmp_path / 'gallery', inferencer, photos).items == len(rows(tmp_path / 'gallery')) > 0


@pytest.mark.parametrize('content', ['', '[]', '{}', '{"first": null}'])
def test_damaged_ids_of_an_extraction_are_named_with_the_remedy(inferencer, photos, tmp_path, monkeypatch, content):
    build_until_the_filling(tmp_path / 'gallery', inferencer, photos, monkeypatch)
    (tmp_path / 'gallery.partial/ids.json').write_text(content)
    with pytest.raises(GalleryError, match=r'ids\.json is damaged .*; remove .*gallery\.partial to begin'):
        build(tmp_path / 'gallery', inferencer, photos)


@pytest.mark.parametrize('name', ['gallery', 'gallery.db'])
def test_a_filling_that_was_interrupted_goes_on_and_gives_the_same_gallery(
    inferencer, photos, tmp_path, monkeypatch, name
):
    if name.endswith('.db'):
        pytest.importorskip('milvus_lite', reason='galleries in Milvus are an extra: pip install pymilvus milvus-lite')
    build(tmp_path / 'whole', inferencer, photos)
    monkeypatch.setattr(gallery_building, '_ITEMS_AT_ONCE', 3)
    location = tmp_path / name
    kind = type(_gallery_to_fill(location, inferencer))
    put, save = kind.put, kind.save
    for moment in (1, 2, 3):
        calls = []

        def killed_put(self, *arguments, calls=calls, moment=moment):
            calls.append(arguments)
            if len(calls) == moment:
                raise Killed
            put(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(kind, 'put', killed_put)
            with pytest.raises(Killed):
                build(location, inferencer, photos)

    def killed_save(self, *arguments):
        save(self, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(kind, 'save', killed_save)
        with pytest.raises(Killed):
            build(location, inferencer, photos)
    assert (tmp_path / f'{name}.partial').exists()
    added = build(location, inferencer, photos, fields={photos[4]: {'sku': 'A4'}})
    assert added.present == 0 and added.resumed == 6 and not (tmp_path / f'{name}.partial').exists()
    found = rows(location)
    assert [(number, replace(item, fields={})) for number, item in found] == rows(tmp_path / 'whole') != []
    assert {item.fields.get('sku') for _, item in found if item.image == photos[4]} == {'A4'}


def test_a_kill_while_the_extraction_is_deleted_brings_nothing_in_twice(inferencer, photos, tmp_path, monkeypatch):
    location = tmp_path / 'gallery'
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, 'rmtree', lambda path, ignore_errors=False: None)
        build(location, inferencer, photos)
    expected = rows(location)
    assert (tmp_path / '.gallery.partial.deleted').exists() and not (tmp_path / 'gallery.partial').exists()
    # The same holds if an older deletion left a part of the folder under its own name.
    (tmp_path / '.gallery.partial.deleted').rename(tmp_path / 'gallery.partial')
    for name in ('job.json', 'ids.json'):
        (tmp_path / 'gallery.partial' / name).unlink()
    added = build(location, inferencer, photos)
    assert added.items == 0 and added.present == 5 and rows(location) == expected != []
    left = {path.name for path in tmp_path.iterdir() if 'gallery' in path.name}
    assert left == {'gallery', '.gallery.partial.lock'}


def test_items_of_others_under_the_reserved_ids_are_refused(inferencer, photos, tmp_path, monkeypatch):
    location = tmp_path / 'gallery'
    build_until_the_filling(location, inferencer, photos, monkeypatch)
    other = _gallery_to_fill(location, inferencer)
    width = other.similarity.width
    other.add(np.zeros((1, width), np.float32), [GalleryItem('theirs.jpg', (0, 0, 1, 1), 1)])
    other.save()
    with pytest.raises(
        GalleryError, match=r'item 0 of the gallery is of theirs\.jpg, not of .*gallery\.partial to begin'
    ):
        build(location, inferencer, photos)


def test_a_gallery_of_another_model_is_refused(inferencer, tmp_path):
    own = model_similarity(inferencer)
    other = create_gallery(tmp_path / 'gallery', Similarity(own.weight * 2, own.bias), 'another')
    with pytest.raises(GalleryError, match=f"model 'another'.*{own.fingerprint()}"):
        FashionSearch(inferencer, other)


def test_a_model_of_the_same_similarity_and_other_embeddings_is_refused(inferencer, tmp_path, monkeypatch):
    create_gallery(tmp_path / 'gallery', model_similarity(inferencer), model_identity(inferencer)).save()
    assert len(open_gallery_of(inferencer, tmp_path / 'gallery')) == 0
    parameter = next(inferencer.model.backbone.parameters())
    with torch.no_grad():
        parameter += 1
    try:
        with pytest.raises(
            GalleryError, match=r"built with model 'tiny\.pth [0-9a-f]{16}', the one at hand is 'tiny\.pth"
        ):
            FashionSearch(inferencer, tmp_path / 'gallery')
    finally:
        with torch.no_grad():
            parameter -= 1
    head = inferencer.model.roi_head
    monkeypatch.setattr(head, 'test_cfg', {**head.test_cfg, 'flip_average': True})
    with pytest.raises(GalleryError, match='embeddings of different models do not compare'):
        FashionSearch(inferencer, tmp_path / 'gallery')


def test_expansion_searches_by_the_mean_with_the_best_hits(inferencer, photos, tmp_path):
    build(tmp_path / 'gallery', inferencer, photos)
    search = FashionSearch(inferencer, tmp_path / 'gallery')
    plain, expanded = (search.search(photos[0], 4, 0.0, expansion=count) for count in (0, 3))
    (sample,) = (result.data_sample for result in inferencer.predict(photos[0]))
    garments = extracted_items(sample.pred_instances, photos[0], 0.0)
    moved = expand_by_gallery(search.gallery, garments.embeddings, 3)
    assert [found.hits for found in expanded] == search.gallery.search(moved, 4)
    assert [found.hits for found in plain] == search.gallery.search(garments.embeddings, 4) != []


def test_what_others_change_during_an_extraction_stays_as_they_left_it(inferencer, photos, tmp_path, monkeypatch):
    location = tmp_path / 'gallery'
    build(location, inferencer, photos[:1])
    build(tmp_path / 'theirs', inferencer, photos[4:5])
    predict, waiting = inferencer.predict, []

    def predict_while_others_write(images, batch_size=1):
        # The gallery is not locked while the images are looked at, and a second addition waits.
        other, theirs = (open_gallery(path) for path in (location, tmp_path / 'theirs'))
        with other.changing():
            other.remove(other.ids_where('image', photos[:1]))
            ids = theirs.ids_where('image', [photos[4]])
            vectors = theirs.embeddings(ids)
            other.add(np.stack([vectors[number] for number in ids]), [theirs.items(ids)[number] for number in ids])
        second = threading.Thread(target=lambda: (second_adding(), waiting.append('ended')))
        second.start()
        second.join(0.2)
        waiting.append(second)
        return predict(images, batch_size)

    def second_adding():
        with gallery_building.adding(f'{location}.partial'):
            waiting.append('began')

    monkeypatch.setattr(inferencer, 'predict', predict_while_others_write)
    added = build(location, inferencer, photos)
    waiting[0].join()
    assert waiting[1:] == ['began', 'ended']
    found = rows(location)
    assert added.present == 2 and {item.image for _, item in found} == {photos[1], photos[3], photos[4], photos[5]}
    whole = len(rows(tmp_path / 'theirs'))
    assert sum(item.image == photos[4] for _, item in found) == whole > 0
    assert added.items == len(found) - whole


@pytest.mark.parametrize('name', ['gallery', 'gallery.db'])
def test_a_photo_is_the_same_by_every_path(inferencer, photos, tmp_path, monkeypatch, name):
    if name.endswith('.db'):
        pytest.importorskip('milvus_lite', reason='galleries in Milvus are an extra: pip install pymilvus milvus-lite')
    location = tmp_path / name
    (tmp_path / 'folder').mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'linked').symlink_to(tmp_path)
    (tmp_path / 'link.png').symlink_to('0.png')
    build(location, inferencer, ['0.png'], fields={'linked/0.png': {'sku': 'A0'}})
    whole = rows(location)
    assert {item.fields['sku'] for _, item in whole} == {'A0'} and {item.image for _, item in whole} == {photos[0]}
    monkeypatch.chdir(tmp_path / 'folder')
    paths = [photos[0], '../0.png', '../folder/./../0.png', '../linked/0.png', '../link.png', f'{tmp_path}//0.png']
    added = build(location, inferencer, paths)
    assert (added.images, added.present, added.items) == (1, 1, 0) and rows(location) == whole
    # The same relative path in another folder is another photo.
    shutil.copy(photos[1], '0.png')
    added = build(location, inferencer, ['0.png', 'absent/../0.png'])
    assert added.present == 0 and {item.image for _, item in rows(location)[len(whole) :]} == {
        f'{tmp_path}/folder/0.png'
    }


def test_a_photo_that_an_earlier_version_added_by_a_relative_path_is_known(inferencer, photos, tmp_path, monkeypatch):
    gallery = _gallery_to_fill(tmp_path / 'gallery', inferencer)
    gallery.add(np.zeros((1, gallery.similarity.width), np.float32), [GalleryItem('0.png', (0, 0, 1, 1), 1)])
    gallery.save()
    monkeypatch.chdir(tmp_path)
    for path in ('0.png', './0.png', photos[0]):
        assert build(tmp_path / 'gallery', inferencer, [path]).present == 1


def test_a_folder_with_other_files_is_refused_before_the_photos_are_looked_at(inferencer, tmp_path):
    (tmp_path / 'holiday').mkdir()
    (tmp_path / 'holiday' / 'beach.txt').write_text('sand')
    with pytest.raises(GalleryError, match=r'holds beach\.txt, which is of no gallery; give the gallery'):
        create_gallery(tmp_path / 'holiday', model_similarity(inferencer), 'tiny')
    assert [path.name for path in (tmp_path / 'holiday').iterdir()] == ['beach.txt']

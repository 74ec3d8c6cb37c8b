"""Indexes that are saved with a gallery: the same hits after loading, and files that are cut, changed or hostile."""

import json
import logging
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from mmdf2.files import write_named_by_hash
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.local.folder import MANIFEST, read_folder
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.local.graph import GraphSettings, check_links
from mmdf2.retrieval.local.index_file import read_indexes, write_indexes
from mmdf2.retrieval.local.lists import ListSettings

from ..made_gallery import assert_damage_is_named, make_embeddings, make_items, make_similarity

SETTINGS = {
    'lists': ListSettings(lists=30, probes=6),
    'codes': ListSettings(lists=30, probes=6, code_bytes=5),
    'graph': GraphSettings(links=4, build_effort=20, effort=10, candidates=1),
}
WIDTH = 16


def make_gallery(settings, positive=0.2, count=2400, seed=0):
    rng = np.random.default_rng(seed)
    gallery = FaissGallery(make_similarity(rng, WIDTH, positive))
    gallery.add(make_embeddings(rng, count, WIDTH), make_items(rng, count, (2, 9)))
    gallery.build_index(settings, least_items=500)
    assert sorted(gallery.indexed()) == [2, 9]
    return gallery, make_embeddings(rng, 40, WIDTH)


def hits(gallery, queries, categories=None):
    return [[(hit.id, hit.score) for hit in line] for line in gallery.search(queries, 20, categories)]


@pytest.mark.parametrize('positive', [0.2, 0.0])
@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
def test_a_loaded_index_finds_what_it_found_before(tmp_path, settings, positive):
    gallery, queries = make_gallery(settings, positive)
    gallery.save(tmp_path / 'g')
    again = FaissGallery.load(tmp_path / 'g')
    assert again.indexed() == gallery.indexed()
    for categories in (None, (2,), (9, 2), (1,)):
        assert hits(again, queries, categories) == hits(gallery, queries, categories)
    exact = FaissGallery.load(tmp_path / 'g', index=False)
    assert exact.indexed() == {}
    assert hits(exact, queries) != hits(again, queries), 'so few probes have to miss something'


@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
def test_changes_go_on_after_loading(tmp_path, settings):
    gallery, queries = make_gallery(settings)
    rng = np.random.default_rng(1)
    gallery.remove(range(0, 2400, 3))
    gallery.add(make_embeddings(rng, 300, WIDTH), make_items(rng, 300, (2, 5)))
    gallery.save(tmp_path / 'g')
    again = FaissGallery.load(tmp_path / 'g')
    assert hits(again, queries) == hits(gallery, queries)
    for changed in (gallery, again):
        more = np.random.default_rng(2)
        changed.remove(range(1, 2400, 3))
        changed.add(make_embeddings(more, 100, WIDTH), make_items(more, 100, (9,)))
    assert hits(again, queries) == hits(gallery, queries)
    assert again.outdated_indexes() == gallery.outdated_indexes() == [2, 9]
    again.save()
    third = FaissGallery.load(tmp_path / 'g')
    assert hits(third, queries) == hits(gallery, queries)
    assert third.outdated_indexes() == [2, 9]
    third.build_index(settings, least_items=10**9)
    third.save()
    assert json.loads((tmp_path / 'g' / MANIFEST).read_text())['version'] == 1
    assert FaissGallery.load(tmp_path / 'g').indexed() == {}


def test_a_gallery_without_an_index_is_one_that_older_releases_read(tmp_path):
    gallery, _ = make_gallery(SETTINGS['lists'])
    gallery.save(tmp_path / 'g')
    assert json.loads((tmp_path / 'g' / MANIFEST).read_text())['version'] == 2
    gallery.build_index(None, least_items=10**9)
    gallery.save(tmp_path / 'g')
    manifest = json.loads((tmp_path / 'g' / MANIFEST).read_text())
    assert manifest['version'] == 1 and set(manifest['files']) == {'vectors', 'ids', 'items', 'similarity'}
    assert not list((tmp_path / 'g').glob('index-*'))


def test_others_take_up_a_saved_index(tmp_path, caplog):
    gallery, queries = make_gallery(SETTINGS['lists'])
    gallery.save(tmp_path / 'g')
    here, there = FaissGallery.load(tmp_path / 'g'), FaissGallery.load(tmp_path / 'g')
    with there.changing():
        there.remove(range(100))
    caplog.clear()
    with caplog.at_level(logging.WARNING), here.changing():
        here.remove(range(100, 200))
    assert not caplog.records and sorted(here.indexed()) == [2, 9]
    assert hits(FaissGallery.load(tmp_path / 'g'), queries) == hits(here, queries)
    with there.changing():
        there.build_index(None, least_items=10**9)
    with caplog.at_level(logging.WARNING), here.changing():
        pass
    assert 'had no index of the categories [2, 9]' in caplog.text


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
    gallery, _ = make_gallery(SETTINGS['lists'])
    gallery.save(tmp_path / 'g')
    return tmp_path / 'g'


def index_file(folder):
    (path,) = folder.glob('index-*.safetensors')
    return path


def replace_index(folder, content):
    """Puts another index into a gallery as a stranger could: with a manifest that says the right hash."""
    path, digest = write_named_by_hash(folder / 'index.safetensors', lambda beside: beside.write_bytes(content))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest['files']['index'] = {'name': path.name, 'size': len(content), 'sha256': digest}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_cut_or_changed_index_is_named(folder):
    assert_damage_is_named(index_file(folder))
    read_folder(folder, index=False)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'\x80\x04K\x01.',
        struct.pack('<Q', 1 << 60) + b'{}',
        struct.pack('<Q', 2) + b'{}',
        struct.pack('<Q', 40) + b'[' * 40,
    ],
    ids=['empty', 'pickle', 'a header of an exabyte', 'no index', 'nested'],
)
def test_a_file_that_is_no_index_is_refused(folder, content):
    replace_index(folder, content)
    with pytest.raises(GalleryError, match=r'index-.*tools/gallery\.py index'):
        read_folder(folder)


def test_a_stale_index_is_refused_and_can_be_built_anew(folder):
    """The index of the gallery before items were removed, put back as an old copy of the file would be."""
    old = index_file(folder).read_bytes()
    gallery = FaissGallery.load(folder)
    gallery.remove(range(50))
    gallery.save()
    replace_index(folder, old)
    with pytest.raises(GalleryError, match=r'of another gallery or of an earlier one: its vectors differ.*index=False'):
        FaissGallery.load(folder)
    again = FaissGallery.load(folder, index=False)
    again.build_index(SETTINGS['lists'], least_items=500)
    again.save()
    assert sorted(FaissGallery.load(folder).indexed()) == [2, 9]


def damaged(arrays, name, change):
    return {**arrays, name: change(arrays[name].copy())}


def change_at(place, value):
    def change(array):
        array.flat[place] = value
        return array

    return change


LIST_DAMAGE = {
    'a list of a negative size': ('sizes', lambda sizes: sizes - np.array([10**6] + [0] * (len(sizes) - 1))),
    'more items than places': ('sizes', change_at(0, 10**9)),
    'a place twice': ('places', change_at(0, 1)),
    'a place outside': ('places', change_at(3, 10**15)),
    'a negative place': ('places', change_at(3, -5)),
    'codes of another width': ('codes', lambda codes: codes[:, :-1]),
    'fewer codes': ('codes', lambda codes: codes[:-1]),
    'means of another type': ('means', lambda means: means.astype(np.float64)),
    'no bits of places': ('kept', lambda kept: kept[:-1]),
    'a number in the place of an array': ('sizes', lambda sizes: np.array(sizes[0])),
}
GRAPH_DAMAGE = {
    'a link outside': ('links', change_at(5, 10**6)),
    'a link to -2': ('links', change_at(5, -2)),
    'links that do not follow each other': ('offsets', change_at(5, 3)),
    'too many layers': ('levels', change_at(5, 60)),
    'no layer': ('levels', change_at(5, 0)),
    'an entry outside': ('entry', change_at(0, 10**6)),
    'an entry of no layer': ('entry', change_at(1, -1)),
    'vectors of another width': ('vectors', lambda vectors: vectors[:, :-1]),
    'no radius': ('radius', change_at(0, np.nan)),
    'an empty radius': ('radius', lambda radius: radius[:0]),
    'an empty scale': ('scale', lambda scale: scale[:0]),
}


@pytest.mark.parametrize(
    ('kind', 'damage'),
    [('codes', name) for name in LIST_DAMAGE] + [('graph', name) for name in GRAPH_DAMAGE],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, kind, damage):
    """Links and places that lead nowhere would make faiss read beyond its memory."""
    gallery, _ = make_gallery(SETTINGS[kind])
    gallery.save(tmp_path / 'g')
    path = index_file(tmp_path / 'g')
    name, change = (LIST_DAMAGE | GRAPH_DAMAGE)[damage]
    with safe_open(path, framework='np') as file:
        metadata = file.metadata()
    arrays = damaged(load_file(path), f'9.{name}', change)
    replace_index(tmp_path / 'g', save({key: np.asarray(value, order='C') for key, value in arrays.items()}, metadata))
    with pytest.raises(GalleryError, match='the index of category 9'):
        read_folder(tmp_path / 'g')


@pytest.mark.parametrize(
    'settings',
    [
        '{"kind": "lists", "settings": {"probes": -1}}',
        '{"kind": "lists", "settings": {"lists": 1e300}}',
        '{"kind": "lists", "settings": {"code_bytes": 4}}',
        '{"kind": "lists", "settings": {"surprise": 1}}',
        '{"kind": "os.system", "settings": {}}',
        '{"kind": "graph", "settings": {}}',
        '[]',
        '[' * 100_000,
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, settings):
    path = index_file(folder)
    with safe_open(path, framework='np') as file:
        metadata = file.metadata()
    replace_index(folder, save(load_file(path), {**metadata, '2': settings}))
    with pytest.raises(GalleryError, match='the index of category 2'):
        read_folder(folder)


def test_links_of_a_higher_layer_stay_in_it():
    """Two places in one layer and one in two: a link of the upper layer to a place below would leave faiss's memory."""
    levels, links = np.array([1, 2, 1], np.int32), np.full(14, -1, np.int32)
    offsets = np.array([0, 4, 10, 14])
    check_links(2, np.array([1, 1]), levels, offsets, links)
    links[8] = 2
    with pytest.raises(ValueError, match='a link of layer 1 leads to a place that is not in it'):
        check_links(2, np.array([1, 1]), levels, offsets, links)


def test_only_the_arrays_are_in_the_file(folder):
    """The library reads what is written here part by part."""
    gallery = FaissGallery.load(folder)
    arrays = load_file(index_file(folder))
    states = {category: part.state for category, part in enumerate(gallery._partitions, start=1) if part.state.index}
    names = {'centre', 'scale', 'means', 'sizes', 'places', 'codes', 'kept'}
    assert set(arrays) == {f'{category}.{name}' for category in states for name in names}
    for category, state in states.items():
        for name, array in state.index.arrays().items():
            np.testing.assert_array_equal(arrays[f'{category}.{name}'], np.asarray(array))


def test_reading_needs_the_similarity_and_the_embeddings_of_the_index(folder, tmp_path):
    gallery = FaissGallery.load(folder)
    indexes = read_folder(folder).indexes
    path = tmp_path / 'index.safetensors'
    write_indexes(path, indexes, gallery.similarity, 'f' * 64)
    counts = list(gallery.counts().values())
    assert sorted(read_indexes(path, gallery.similarity, 'f' * 64, counts)) == [2, 9]
    with pytest.raises(ValueError, match='its vectors differ'):
        read_indexes(path, gallery.similarity, 'e' * 64, counts)
    with pytest.raises(ValueError, match='its similarity differ'):
        read_indexes(path, make_similarity(np.random.default_rng(9), WIDTH), 'f' * 64, counts)
    with pytest.raises(ValueError, match=r'it finds \d+ items, and the gallery has 0'):
        read_indexes(path, gallery.similarity, 'f' * 64, [0] * 13)


def test_opening_an_exact_gallery_imports_no_faiss(tmp_path):
    gallery, _ = make_gallery(SETTINGS['lists'])
    gallery.build_index(None, least_items=10**9)
    gallery.save(tmp_path / 'g')
    code = (
        'import sys; from mmdf2.retrieval import open_gallery; '
        f'open_gallery({str(tmp_path / "g")!r}); assert "faiss" not in sys.modules'
    )
    subprocess.run([sys.executable, '-W', 'error', '-c', code], check=True)

"""FaissGallery against brute force: exact and approximate, while it grows and shrinks, with several threads."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from mmdf2.retrieval.local import gallery as faiss_gallery
from mmdf2.retrieval.local.folder import LOCK
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.local.graph import GraphSettings
from mmdf2.retrieval.local.lists import ListSettings
from mmdf2.retrieval.local.probes import best_columns, divided

from ..made_gallery import brute_force, make_embeddings, make_items, make_similarity


@pytest.fixture(name='made')
def fixture_made():
    """A gallery of 600 items, their embeddings and items, by id."""
    rng = np.random.default_rng(0)
    gallery = FaissGallery(make_similarity(rng), model='made')
    vectors, items = make_embeddings(rng, 600), make_items(rng, 600)
    ids = [*gallery.add(vectors[:200], items[:200]), *gallery.add(vectors[200:], items[200:])]
    assert ids == list(range(600)) and len(gallery) == 600
    return gallery, vectors, items, make_embeddings(rng, 25)


def assert_exact(gallery, vectors, ids, queries, k=20, categories=None):
    for query, hits in zip(queries, gallery.search(queries, k, categories), strict=True):
        expected, scores = brute_force(gallery.similarity, query, vectors, ids, k)
        assert [hit.id for hit in hits] == expected
        assert [hit.score for hit in hits] == scores.tolist()


def test_search_is_exact_over_all_and_within_categories(made):
    gallery, vectors, items, queries = made
    assert_exact(gallery, vectors, np.arange(600), queries)
    categories = np.array([item.category_id for item in items])
    for wanted in ([2], [1, 8], [3]):
        rows = np.flatnonzero(np.isin(categories, wanted))
        assert_exact(gallery, vectors[rows], rows, queries, 20, wanted)
        assert {hit.item.category_id for hits in gallery.search(queries, 20, wanted) for hit in hits} <= set(wanted)
    assert all(gallery.search(queries, 5, [13]) == [[]] * len(queries) for _ in range(2))


def test_hits_bring_the_items(made):
    gallery, vectors, items, _ = made
    hit = gallery.search(vectors[7:8], 1)[0][0]
    assert hit.id == 7 and hit.item == items[7] and hit.score == pytest.approx(gallery.similarity.offset)
    assert gallery.ids_where('sku', ['A7']) == [7] and gallery.ids_where('image', ['shop/9.jpg']) == [9]
    assert gallery.ids_where('sku', ['none']) == [] and gallery.ids_where("sku' OR 1=1 --", ['A7']) == []


def test_removed_items_are_not_found_and_their_ids_not_given_again(made):
    gallery, vectors, _, queries = made
    gone = [0, 5, 599, 1000]
    assert gallery.remove(gone) == 3 and len(gallery) == 597
    left = np.setdiff1d(np.arange(600), gone)
    assert_exact(gallery, vectors[left], left, queries)
    assert gallery.add(vectors[:1], make_items(np.random.default_rng(1), 1)) == [600]
    assert gallery.remove(gone) == 0
    assert gallery.search(vectors[:1], 1)[0][0].id == 600


def test_ties_go_to_the_smaller_id(made):
    gallery, vectors, _, _ = made
    more = gallery.add(np.repeat(vectors[:1], 5, axis=0), make_items(np.random.default_rng(2), 5))
    assert [hit.id for hit in gallery.search(vectors[:1], 6)[0]] == [0, *more]
    # Also where the score is not 0, however the rows are divided among vector units.
    near = vectors[:1] + np.float32(0.01)
    for count in range(1, 7):
        assert [hit.id for hit in gallery.search(near, count)[0]] == [0, *more][:count]
        gallery.build_index(ListSettings(lists=3, probes=50), least_items=10)
        assert [hit.id for hit in gallery.search(near, count)[0]] == [0, *more][:count]


def test_embeddings_and_presence_by_id(made):
    gallery, vectors, _, _ = made
    gallery.remove([4])
    found = gallery.embeddings([599, 3, 4, 3, 600, -1])
    assert sorted(found) == [3, 599] and all(np.array_equal(found[number], vectors[number]) for number in found)
    assert gallery.present([599, 3, 4, 10**12, -5]) == {3, 599} and gallery.present([]) == set()


def test_more_than_there_are_and_none_at_all(made):
    gallery, vectors, _, queries = made
    assert len(gallery.search(queries[:1], 5000)[0]) == 600
    assert gallery.search(np.zeros((0, 32), np.float32)) == []
    empty = FaissGallery(gallery.similarity)
    assert len(empty) == 0 and empty.search(vectors[:2]) == [[], []] and empty.remove([1]) == 0


@pytest.mark.parametrize('positive', [0.2, 0.0])
@pytest.mark.parametrize(
    'settings',
    [
        ListSettings(lists=60, probes=20, candidates=4),
        ListSettings(lists=60, probes=20, code_bytes=16, candidates=10),
        GraphSettings(links=16, effort=100),
    ],
    ids=['lists', 'codes', 'graph'],
)
def test_an_index_finds_nearly_all_and_follows_changes(settings, positive):
    rng = np.random.default_rng(3)
    gallery = FaissGallery(make_similarity(rng, positive=positive))
    vectors, items = make_embeddings(rng, 6000), make_items(rng, 6000, (4,))
    gallery.add(vectors, items)
    gallery.build_index(settings, least_items=1000)
    queries = make_embeddings(rng, 60)

    def recall(ids):
        found = gallery.search(queries, 20)
        shares = []
        for query, hits in zip(queries, found, strict=True):
            expected, _ = brute_force(gallery.similarity, query, vectors[ids], ids, 20)
            assert all(hit.id in set(ids.tolist()) for hit in hits)
            scores = gallery.similarity.scores(query[None], vectors[[hit.id for hit in hits]])[0]
            np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-5)
            assert np.all(np.diff(scores) <= 1e-6)
            shares.append(np.isin(expected, [hit.id for hit in hits]).mean())
        return np.mean(shares)

    assert recall(np.arange(6000)) > 0.95
    gone = rng.choice(6000, 1500, replace=False)
    assert gallery.remove(gone) == 1500
    assert recall(np.setdiff1d(np.arange(6000), gone)) > 0.9
    left = np.setdiff1d(np.arange(6000), gone)
    new = np.array(gallery.add(queries, make_items(rng, 60, (4,))))
    everything, ids = np.concatenate([vectors[left], queries]), np.concatenate([left, new])
    best = [brute_force(gallery.similarity, query, everything, ids, 1)[0][0] for query in queries]
    # Items added after the index was built are searched exactly.
    found = [hits[0].id for hits in gallery.search(queries, 1)]
    assert [number for number in best if number in new] == [
        number for number, expected in zip(found, best, strict=True) if expected in new
    ]
    assert np.isin(best, new).sum() > 10
    gallery.build_index(None, least_items=10**6)
    assert [hits[0].id for hits in gallery.search(queries, 1)] == best


def test_several_indexed_categories_share_the_probes():
    rng = np.random.default_rng(4)
    gallery = FaissGallery(make_similarity(rng))
    vectors, items = make_embeddings(rng, 6000), make_items(rng, 6000, (2, 5, 9))
    gallery.add(vectors, items)
    gallery.build_index(ListSettings(lists=40, probes=40), least_items=1000)
    queries = make_embeddings(rng, 50)
    hits = gallery.search(queries, 20)
    expected = [brute_force(gallery.similarity, query, vectors, np.arange(6000), 20)[0] for query in queries]
    found = [[hit.id for hit in line] for line in hits]
    assert np.mean([np.isin(right, line).mean() for right, line in zip(expected, found, strict=True)]) > 0.95
    # With a probe for every list the search is exact.
    gallery.build_index(ListSettings(lists=40, probes=120), least_items=1000)
    assert [[hit.id for hit in line] for line in gallery.search(queries, 20)] == expected


def test_what_suits_the_number_of_items_is_built(monkeypatch):
    rng = np.random.default_rng(5)
    gallery = FaissGallery(make_similarity(rng))
    for category, count in ((1, 100), (2, 400), (3, 900)):
        gallery.add(make_embeddings(rng, count), make_items(rng, count, (category,)))
    monkeypatch.setattr(faiss_gallery, '_WHOLE_VECTORS', 500)
    monkeypatch.setattr(faiss_gallery, '_CODE_BYTES', 16)
    gallery.build_index(least_items=200, target_recall=None)
    indexes = [gallery._partitions[row].state.index for row in range(4)]
    assert indexes[0] is None and indexes[3] is None
    assert [index.settings.code_bytes for index in indexes[1:3]] == [None, 16]


def test_more_lists_are_probed_where_there_are_more():
    assert [ListSettings().probes_of(lists) for lists in (10, 64, 100, 1024, 4096)] == [10, 64, 64, 128, 256]
    assert [ListSettings(probes=7).probes_of(lists) for lists in (3, 4000)] == [3, 7]


def test_probes_go_to_the_best_lists_of_all():
    scores = [np.array([[5.0, 1.0, 4.0], [0.0, -1.0, -2.0]]), np.array([[3.0, 9.0], [2.0, 1.0]])]
    first, second = divided(best_columns(np.concatenate(scores, axis=1), 3), [3, 2])
    assert first.tolist() == [[0, 2], [0, -1]]
    assert second.tolist() == [[1, -1], [0, 1]]
    whole = divided(best_columns(np.concatenate(scores, axis=1), 50), [3, 2])
    assert whole[0].tolist() == [[0, 2, 1], [0, 1, 2]] and whole[1].tolist() == [[1, 0], [0, 1]]


def test_threads_search_while_one_adds_and_removes(made):
    gallery, vectors, items, queries = made
    errors, stop = [], threading.Event()

    def search():
        while not stop.is_set():
            try:
                for hits in gallery.search(queries, 10):
                    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
                    assert len({hit.id for hit in hits}) == len(hits)
                    for hit in hits:
                        # The same items are added again and again; each embedding must come back with its own item.
                        assert hit.item.fields['sku'] == f'A{hit.id % 600}'
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(1, 15):
        added = gallery.add(vectors, items)
        assert added[0] == 600 * turn
        gallery.remove(range(600 * (turn - 1), 600 * turn))
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    last = np.arange(600 * 14, 600 * 15)
    assert_exact(gallery, vectors, last, queries)


def test_saved_galleries_come_back(made, tmp_path):
    gallery, vectors, items, queries = made
    gallery.remove([3, 4])
    gallery.save(tmp_path / 'g')
    again = FaissGallery.load(tmp_path / 'g', gallery.similarity)
    assert len(again) == 598 and again.model == 'made'
    assert again.search(queries, 7) == gallery.search(queries, 7)
    # The folder's arrays are read only. Additions stay in memory, and the next save writes both.
    assert again.add(vectors[3:4], items[3:4]) == [600]
    assert again.search(vectors[3:4], 1)[0][0].id == 600
    again.save(tmp_path / 'g')
    assert FaissGallery.load(tmp_path / 'g').search(vectors[3:4], 1)[0][0].item == items[3]
    suffixes = sorted(path.suffix for path in (tmp_path / 'g').iterdir() if path.name != LOCK)
    assert suffixes == ['.json', '.npy', '.npy', '.npy', '.sqlite']


@pytest.mark.parametrize('indexed', [False, True])
def test_a_gallery_of_a_folder_grows_in_memory_and_leaves_its_file_mapped(made, tmp_path, indexed):
    gallery, vectors, items, queries = made
    gallery.save(tmp_path / 'g')
    again = FaissGallery.load(tmp_path / 'g')
    everything, ids = vectors, np.arange(600)
    if indexed:
        again.build_index(ListSettings(lists=3, probes=50, candidates=30), least_items=10)
    for turn in range(3):
        more = queries + np.float32(turn) / 8
        ids = np.append(ids, again.add(more, make_items(np.random.default_rng(turn), 25)))
        everything = np.concatenate([everything, more])
        assert_exact(again, everything, ids, queries)
        for partition in again._partitions:
            file = partition.state.vectors.chunks[0]
            assert not len(file) or (not file.flags.owndata and not file.flags.writeable)
    gone = [1, 599, 603, 670]
    assert again.remove(gone) == 4
    left = ~np.isin(ids, gone)
    assert_exact(again, everything[left], ids[left], queries)
    again.put([603, 1], everything[[603, 1]], items[:2])
    left |= np.isin(ids, [603, 1])
    assert_exact(again, everything[left], ids[left], queries)
    again.save()
    assert_exact(FaissGallery.load(tmp_path / 'g'), everything[left], ids[left], queries)


class TestRefusals:
    def test_embeddings(self, made):
        gallery, vectors, items, _ = made
        with pytest.raises(ValueError, match=r'floats of shape \(n, 32\), got float32 of shape \(1, 31\)'):
            gallery.search(vectors[:1, :31])
        with pytest.raises(ValueError, match='got int64'):
            gallery.search(np.zeros((1, 32), int))
        broken = vectors[:3].copy()
        broken[1, 0] = np.nan
        with pytest.raises(ValueError, match='embedding 1 is not finite'):
            gallery.add(broken, items[:3])
        with pytest.raises(ValueError, match='3 embeddings need as many items, got 2'):
            gallery.add(vectors[:3], items[:2])
        assert len(gallery) == 600

    @pytest.mark.parametrize('k', [0, -1, 1.5, True, None])
    def test_k(self, made, k):
        with pytest.raises(ValueError, match='k must be an integer from 1 on'):
            made[0].search(made[3], k)

    @pytest.mark.parametrize('categories', [[], [0], [14], ['1']])
    def test_categories(self, made, categories):
        with pytest.raises(ValueError, match=r"categories must be some of 1 \('short sleeve top'\) to 13"):
            made[0].search(made[3], 5, categories)

    def test_fields_that_json_cannot_hold_leave_the_gallery_as_it_was(self, made):
        gallery, vectors, items, queries = made
        before = gallery.search(queries, 3)
        bad = replace(items[0], fields={'price': object()})
        with pytest.raises(ValueError, match='fields of an item must be what JSON can hold'):
            gallery.add(vectors[:2], [items[0], bad])
        assert len(gallery) == 600 and gallery.search(queries, 3) == before

"""Searches after removals and additions against brute force: what was removed takes no other item's place."""

import logging
import threading

import numpy as np
import pytest

from mmdf2.retrieval.expansion import expand_by_gallery, expand_queries
from mmdf2.retrieval.local.gallery import FaissGallery
from mmdf2.retrieval.local.graph import GraphSettings
from mmdf2.retrieval.local.lists import ListSettings
from mmdf2.retrieval.local.probes import best_lists, divided

from ..made_gallery import brute_force, make_articles, make_items, make_similarity

FEW_PROBES = {
    'lists': ListSettings(lists=60, probes=8),
    'codes': ListSettings(lists=60, probes=8, code_bytes=8),
    'graph': GraphSettings(links=16, effort=100),
}
ALL_PROBES = {
    'lists': ListSettings(lists=9, probes=27, candidates=8),
    'codes': ListSettings(lists=9, probes=27, code_bytes=16, candidates=200),
    'graph': GraphSettings(links=16, effort=10**6),
}


def nearest_articles(similarity, centres, row, count):
    """The articles that the similarity ranks first for one of them."""
    return np.argsort(-similarity.scores(centres[row : row + 1], centres)[0])[:count]


def recall(gallery, vectors, ids, queries, k=20, categories=None):
    """Mean share of the k best by brute force that are found, all queries with k hits or as many as there are items."""
    shares = []
    for query, hits in zip(queries, gallery.search(queries, k, categories), strict=True):
        found = [hit.id for hit in hits]
        assert len(set(found)) == len(found) == min(k, len(ids)) and np.isin(found, ids).all()
        right, _ = brute_force(gallery.similarity, query, vectors[ids], ids, k)
        shares.append(np.isin(right, found).mean() if right else 1)
    return np.mean(shares)


@pytest.mark.parametrize('positive', [0.2, 0.0])
@pytest.mark.parametrize('settings', FEW_PROBES.values(), ids=FEW_PROBES)
def test_near_duplicates_that_were_removed_hide_nothing(settings, positive):
    rng = np.random.default_rng(0)
    gallery = FaissGallery(make_similarity(rng, 16, positive))
    centres, vectors, articles = make_articles(rng, 60, 50, 16)
    gallery.add(vectors, make_items(rng, 3000, (4,)))
    gallery.build_index(settings, least_items=1000)
    gone = nearest_articles(gallery.similarity, centres, 7, 24)
    queries = (centres[gone] + rng.normal(size=(24, 16)) * 0.01).astype(np.float32)
    # One article after the other, so that restrictions follow restrictions.
    for article in gone:
        assert gallery.remove(np.flatnonzero(articles == article)) == 50
    left = np.flatnonzero(~np.isin(articles, gone))
    after = recall(gallery, vectors, left, queries)
    gallery.build_index(settings, least_items=1000)
    assert after > 0.9 and after >= recall(gallery, vectors, left, queries) - 0.05


@pytest.mark.parametrize('settings', ALL_PROBES.values(), ids=ALL_PROBES)
def test_whatever_is_added_replaced_and_removed_the_widest_search_stays_exact(settings):
    rng = np.random.default_rng(1)
    gallery, vectors = FaissGallery(make_similarity(rng, 16)), np.zeros((0, 16), np.float32)
    categories, left = np.zeros(0, int), np.zeros(0, int)
    for turn in range(12):
        centres, more, _ = make_articles(rng, 12, 20, 16)
        items = make_items(rng, len(more))
        left = np.concatenate([left, gallery.add(more, items)])
        vectors = np.concatenate([vectors, more])
        categories = np.concatenate([categories, [item.category_id for item in items]])
        if turn % 4 == 0:
            gallery.build_index(settings, least_items=50)
        if turn % 4 == 3:
            same = rng.choice(left, 3, replace=False)
            gallery.put(same, vectors[same], [items[0]] * 3)
            categories[same] = items[0].category_id
        # Near duplicates of one place, and others anywhere.
        near = brute_force(gallery.similarity, centres[0], vectors[left], left, 30)[0]
        gone = np.union1d(near, rng.choice(left, len(left) // 3, replace=False))
        assert gallery.remove(gone) == len(gone)
        left = np.setdiff1d(left, gone)
        assert len(gallery) == len(left)
        queries = centres[:6].astype(np.float32)
        assert recall(gallery, vectors, left, queries) == 1
        rows = left[categories[left] == 2]
        assert recall(gallery, vectors, rows, queries, 20, [2]) == 1
    gallery.build_index(settings, least_items=50)
    for keep in (1, 0):
        gallery.remove(left[keep:])
        assert recall(gallery, vectors, left[:keep], queries) == 1


def test_codes_of_few_lists_or_few_items():
    rng = np.random.default_rng(8)
    gallery = FaissGallery(make_similarity(rng, 16))
    _, vectors, _ = make_articles(rng, 30, 20, 16)
    gallery.add(vectors[:345], make_items(rng, 345, (1,)))
    gallery.add(vectors[345:], make_items(rng, 255, (2,)))
    # Codes need 256 items to learn from. One list alone has enough, and fewer items are searched exactly.
    gallery.build_index(ListSettings(lists=1, code_bytes=8, candidates=100), least_items=1)
    assert [gallery._partitions[row].state.index is None for row in (0, 1)] == [False, True]
    assert recall(gallery, vectors, np.arange(600), vectors[::60]) == 1


def test_more_hits_than_the_probed_lists_hold():
    rng = np.random.default_rng(2)
    gallery = FaissGallery(make_similarity(rng, 16))
    _, vectors, _ = make_articles(rng, 10, 60, 16)
    gallery.add(vectors, make_items(rng, 600, (1, 2)))
    gallery.build_index(ListSettings(lists=20, probes=1), least_items=100)
    ids = np.arange(600)
    for k in (1, 100, 599, 600, 5000):
        assert all(len(hits) == min(k, 600) for hits in gallery.search(vectors[:5], k))
    assert recall(gallery, vectors, ids, vectors[:5], 600) == 1
    assert gallery.search(vectors[:0], 600) == []


@pytest.mark.parametrize('hits', [3, 40])
def test_expansion_is_by_the_items_that_are_left(hits):
    rng = np.random.default_rng(3)
    gallery = FaissGallery(make_similarity(rng, 16))
    centres, vectors, articles = make_articles(rng, 60, 40, 16)
    gallery.add(vectors, make_items(rng, 2400, (4, 5)))
    gallery.build_index(ListSettings(lists=20, probes=40, candidates=8), least_items=1000)
    gone = nearest_articles(gallery.similarity, centres, 7, 20)
    gallery.remove(np.flatnonzero(np.isin(articles, gone)))
    queries = centres[gone].astype(np.float32)
    found = expand_by_gallery(gallery, queries, hits)
    expected = expand_queries(gallery.similarity, queries, vectors[~np.isin(articles, gone)], hits)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (np.abs(found - queries).max(axis=1) > 1e-3).all()


def test_one_category_whose_nearest_items_are_gone_leaves_the_probes_to_the_others():
    rng = np.random.default_rng(4)
    gallery = FaissGallery(make_similarity(rng, 16, 0.0))
    centres, vectors, articles = make_articles(rng, 60, 100, 16)
    near = nearest_articles(gallery.similarity, centres, 7, 20)
    # The category of the nearest articles, and two more for the others.
    categories = np.where(np.isin(articles, near), 3, 6 + articles % 2)
    for category in (3, 6, 7):
        rows = np.flatnonzero(categories == category)
        gallery.put(rows, vectors[rows], make_items(rng, len(rows), (category,)))
    gallery.build_index(ListSettings(lists=30, probes=6), least_items=1000)
    queries = centres[near].astype(np.float32)
    assert recall(gallery, vectors, np.flatnonzero(categories != 3), queries, 20, [6, 7]) > 0.9
    gallery.remove(np.flatnonzero(categories == 3)[:-1])
    left = np.append(np.flatnonzero(categories != 3), np.flatnonzero(categories == 3)[-1])
    assert recall(gallery, vectors, np.sort(left), queries) > 0.9


def by_hand(scores, probes, shares, sizes, items):
    """The lists of one query, one by one."""
    chosen, met, seen = [], 0.0, 0
    for number in sorted((row for row in range(len(scores)) if shares[row] > 0), key=lambda row: -scores[row]):
        if met >= min(probes, sum(shares)) - 1e-6 and seen >= min(items, sum(sizes)):
            break
        chosen.append(number)
        met, seen = met + shares[number], seen + sizes[number]
    return chosen


def test_probes_are_of_whole_lists():
    rng = np.random.default_rng(5)
    for _ in range(300):
        lists = int(rng.integers(1, 40))
        shares = rng.choice([0, 0.004, 0.3, 0.5, 1], lists, p=rng.dirichlet(np.ones(5)))
        sizes = np.ceil(shares * rng.integers(1, 300, lists)).astype(int)
        scores, probes, items = rng.normal(size=(3, lists)), int(rng.integers(1, 50)), int(rng.integers(1, 3000))
        found = best_lists(scores, probes, shares, sizes, items)
        for line, row in zip(found, scores, strict=True):
            assert line[line >= 0].tolist() == by_hand(row, probes, shares, sizes, items)
        cut = int(rng.integers(0, lists + 1))
        for part, low, high in zip(divided(found, [cut, lists - cut]), (0, cut), (cut, lists), strict=True):
            for line, whole in zip(part, found, strict=True):
                assert (line[line >= 0] + low).tolist() == [row for row in whole if low <= row < high]


def test_an_item_that_another_thread_removes_meanwhile_is_made_up_for():
    rng = np.random.default_rng(6)

    class Raced(FaissGallery):
        """A gallery whose best hit of the first search is removed before its item is read."""

        raced = False

        def search_ids(self, embeddings, k, categories):
            found = super().search_ids(embeddings, k, categories)
            if not self.raced:
                self.raced = True
                self.remove(found[1][0, :5])
            return found

    gallery = Raced(make_similarity(rng, 16))
    _, vectors, _ = make_articles(rng, 10, 10, 16)
    gallery.add(vectors, make_items(rng, 100))
    hits = gallery.search(vectors[:1], 20)[0]
    assert len(gallery) == 95 and len(hits) == 20 and len(gallery.present(hit.id for hit in hits)) == 20


@pytest.mark.parametrize('name', ['lists', 'graph'])
def test_threads_find_all_hits_while_items_are_removed_from_an_index(name):
    rng = np.random.default_rng(9)
    gallery = FaissGallery(make_similarity(rng, 16))
    centres, vectors, articles = make_articles(rng, 40, 50, 16)
    gallery.add(vectors, make_items(rng, 2000))
    gallery.build_index(FEW_PROBES[name], least_items=100)
    queries, stop, counts, errors = centres[:10].astype(np.float32), threading.Event(), [], []

    def search():
        try:
            while not stop.is_set():
                counts.extend(len({hit.id for hit in hits}) for hits in gallery.search(queries, 10))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for article in range(20):
        gallery.remove(np.flatnonzero(articles == article))
    while len(counts) < 100 and not errors:
        stop.wait(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors and set(counts) == {10}


def test_an_index_says_that_it_should_be_built_again(caplog):
    rng = np.random.default_rng(7)
    gallery = FaissGallery(make_similarity(rng, 16))
    _, vectors, _ = make_articles(rng, 20, 10, 16)
    for category in (1, 2):
        gallery.add(vectors, make_items(rng, 200, (category,)))
    with caplog.at_level(logging.WARNING):
        gallery.remove(range(150))
        assert gallery.outdated_indexes() == [] and not caplog.records
        gallery.build_index(ListSettings(lists=2), least_items=10, target_recall=None)
        gallery.remove(range(200, 260))
        gallery.add(vectors[:39], make_items(rng, 39, (2,)))
        assert gallery.outdated_indexes() == [] and not caplog.records
        gallery.add(vectors[:2], make_items(rng, 2, (2,)))
        assert gallery.outdated_indexes() == [2]
        (record,) = caplog.records
        assert 'index of category 2 was built of 200 items, of which 140 are left, and 41 items were added' in (
            record.getMessage()
        )
        # It is said once.
        gallery.add(vectors[:9], make_items(rng, 9, (2,)))
        gallery.remove(range(150, 180))
        assert gallery.outdated_indexes() == [1, 2] and len(caplog.records) == 2
        gallery.build_index(ListSettings(lists=2), least_items=10, target_recall=None)
        assert gallery.outdated_indexes() == []
        gallery.put([3], vectors[:1], make_items(rng, 1, (1,)))
        assert 'category 1 has no index any more' in caplog.records[-1].getMessage() and len(caplog.records) == 3
        gallery.put([4], vectors[:1], make_items(rng, 1, (1,)))
        assert len(caplog.records) == 3

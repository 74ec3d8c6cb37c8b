"""The outcome of queries against the evaluation of the official files, and rows of pictures from result files."""

import json

import numpy as np
import pytest

from analysis.made_results import make_lists
from mmdf2.analysis.retrieval_errors import match_characteristic, retrieval_errors, right_hits, rows_of_results
from mmdf2.categories import Source
from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.files.retrieval import evaluate_retrieval_results, read_retrieved_lists, retrieval_result
from mmdf2.evaluation.truth import retrieval_items
from mmdf2.visualization import draw_retrieval_rows


@pytest.fixture(scope='module')
def case(tiny_root, tmp_path_factory):
    """The store, the retrieved lists as they are read, and the outcome by the official files."""
    store, folder = open_or_prepare(tiny_root, 'validation'), tmp_path_factory.mktemp('lists')
    lists = make_lists(store, np.random.default_rng(3), right=0.2)
    (folder / 'r.json').write_text(json.dumps(lists))
    export(store, folder, 'validation')
    query, gallery = (json.loads((folder / f'val_{side}.json').read_text()) for side in ('query', 'gallery'))
    return store, read_retrieved_lists(folder / 'r.json'), evaluate_retrieval_results(lists, query, gallery)


def test_the_outcome_is_the_official_one(case):
    store, lists, expected = case
    errors = retrieval_errors(store, lists)
    for name in ('first_right', 'missed', 'matches'):
        assert (getattr(errors.outcome, name) == getattr(expected, name)).all()
    assert (errors.lists < 0).tolist() == expected.missed.tolist()
    assert (store.identities[errors.rows] == errors.identities).all() and (errors.identities >= 0).all()
    wrong = (~expected.missed) & (expected.first_right >= 20) & (expected.matches > 0)
    assert (errors.wrong == wrong).all()


def test_characteristic_is_top_k_at_every_k(case):
    *_, outcome = case
    assert match_characteristic(outcome).tolist() == pytest.approx([outcome.top_k(k) for k in range(1, 21)])
    chosen = np.arange(len(outcome.matches)) % 2 == 0
    expected = [(outcome.first_right[chosen] < k).mean() for k in range(1, 21)]
    assert match_characteristic(outcome, chosen).tolist() == pytest.approx(expected)
    assert np.isnan(match_characteristic(outcome, np.zeros(len(chosen), bool))).all()


def test_right_hits_begin_where_the_outcome_says(case):
    store, lists, _ = case
    errors = retrieval_errors(store, lists)
    gallery, seen = retrieval_items(store, Source.SHOP), 0
    for query, entry in enumerate(errors.lists.tolist()):
        if entry >= 0:
            hits = lists.hits(entry)
            right = np.flatnonzero(right_hits(gallery, *hits, int(errors.identities[query])))
            assert (right[0] if len(right) else 20) == errors.outcome.first_right[query]
            seen += len(right)
    assert seen > 0


@pytest.fixture(scope='module')
def world(tiny_root):
    store = open_or_prepare(tiny_root, 'validation')
    return (
        store,
        retrieval_items(store, Source.USER),
        retrieval_items(store, Source.SHOP),
        tiny_root / 'validation' / 'image',
    )


def results_of(items, gallery, order):
    """Results in which every query item is detected as annotated and finds the gallery items in the given order."""
    return [
        retrieval_result(
            items.image_ids[row],
            items.boxes[row],
            items.labels[row],
            0.9,
            gallery.image_ids[order],
            gallery.boxes[order],
        )
        for row in range(len(items.identities))
    ]


def test_hits_are_right_where_their_identity_is_that_of_the_query(world):
    store, items, gallery, folder = world
    order = np.random.default_rng(0).permutation(len(gallery.identities))
    queries = np.flatnonzero(items.identities >= 0)
    rows = rows_of_results(results_of(items, gallery, order), store, folder, count=len(queries), hits=6)
    assert len(rows) == len(queries)
    seen = set()
    for row, query in zip(rows, queries, strict=True):
        assert row.image == folder / f'{items.image_ids[query]:06d}.jpg'
        for place, correct in enumerate(row.correct):
            identities = gallery.identities[gallery.image_ids == gallery.image_ids[order[place]]]
            # Items of other identities on the image may overlap the box, so only images with one item are checked.
            if len(identities) == 1:
                assert correct == (identities[0] == items.identities[query])
                seen.add(bool(correct))
    assert seen == {True, False}


def test_rows_are_drawn_and_a_missed_query_has_no_hits(world):
    store, items, gallery, folder = world
    results = results_of(items, gallery, np.arange(4))
    missed = items.image_ids[np.flatnonzero(items.identities >= 0)[0]]
    rows = rows_of_results([entry for entry in results if entry['query_image_id'] != missed], store, folder, count=3)
    assert len(rows) == 3
    assert len(rows[0].hit_images) == 0
    assert [len(row.hit_images) for row in rows[1:]] == [4, 4]
    assert draw_retrieval_rows(rows).std() > 10

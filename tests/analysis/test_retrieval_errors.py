"""What becomes of queries, against the evaluation of the official files."""

import json

import numpy as np
import pytest

from analysis.made_results import make_lists
from mmdf2.analysis.retrieval_errors import match_characteristic, retrieval_errors, right_hits
from mmdf2.categories import Source
from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.from_store import retrieval_items
from mmdf2.evaluation.retrieval_files import evaluate_retrieval_results, read_retrieved_lists


@pytest.fixture(scope='module')
def case(tiny_root, tmp_path_factory):
    """The store, the lists as read, and the outcome by the official files."""
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

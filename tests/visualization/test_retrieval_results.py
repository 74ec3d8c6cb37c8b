"""From result files to rows of pictures."""

import numpy as np
import pytest

from mmdf2.analysis.retrieval_errors import rows_of_results
from mmdf2.categories import Source
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.formats import retrieval_result
from mmdf2.evaluation.from_store import retrieval_items
from mmdf2.visualization import draw_retrieval_rows


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
    """Every query item detected as annotated; each finds the gallery's items in the order given."""
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


def test_hits_are_right_where_the_identity_is_the_query_s(world):
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
            # An image's garments of other identities may overlap the box; its own identity decides when it is alone.
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

"""Statistics of a store against counts that are made one item at a time."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from mmdf2.analysis.dataset_page import dataset_page
from mmdf2.analysis.statistics import classes, count_classes, dataset_statistics, identity_counts
from mmdf2.categories import CATEGORIES
from mmdf2.datasets.prepare import open_or_prepare


@pytest.fixture(scope='module')
def store(tiny_root):
    return open_or_prepare(tiny_root, 'train')


def items_of(store):
    for index in range(len(store)):
        image = store.image(index)
        for item in image.items:
            yield image, item


def test_sizes_are_those_of_a_count_by_hand(store):
    statistics = dataset_statistics(store)
    sides = defaultdict(Counter)
    for image, item in items_of(store):
        if item.style > 0:
            sides[image.pair_id, item.style][image.source] += 1
    items = list(items_of(store))
    assert statistics['table'] == {
        'images': 24,
        'categories': len({item.category_id for _, item in items}),
        'boxes': len(items),
        'landmarks': sum(bool((item.landmarks[:, 2] > 0).any()) for _, item in items),
        'masks': sum(bool(item.segmentation) for _, item in items),
        'identities': len(sides),
        'pairs': sum(count['user'] * count['shop'] for count in sides.values()),
    }
    assert statistics['table']['pairs'] > 0
    assert statistics['images'] == {'user': 12, 'shop': 12, 'without items': 0}
    assert sum(statistics['identities']['pairs per identity'].values()) == len(sides)


def test_attributes_and_categories(store):
    statistics = dataset_statistics(store)
    by_category = Counter((CATEGORIES[item.label].name, image.source) for image, item in items_of(store))
    for name, counts in statistics['categories'].items():
        assert counts == {source: by_category[name, source] for source in ('user', 'shop')}
    scales = Counter(item.scale for _, item in items_of(store))
    expected = {'small': scales[1], 'moderate': scales[2], 'large': scales[3], 'unknown': scales[0]}
    assert statistics['attributes']['scale'] == expected
    views = Counter(item.viewpoint for _, item in items_of(store))
    assert statistics['attributes']['viewpoint']['side_or_back'] == views[3]


def test_landmarks_by_visibility(store):
    counts = dataset_statistics(store)['landmarks']
    for category in CATEGORIES:
        expected = np.zeros((category.num_landmarks, 3), dtype=int)
        for _, item in items_of(store):
            if item.label == category.label:
                for place, visibility in enumerate(item.landmarks[:, 2].astype(int)):
                    expected[place, visibility] += 1
        assert counts[category.name] == expected.tolist()


def test_boxes_fall_into_their_classes(store):
    found = dataset_statistics(store)['box_side_pixels']
    expected = Counter()
    for _, item in items_of(store):
        x1, y1, x2, y2 = item.bbox
        side = np.sqrt((x2 - x1) * (y2 - y1))
        expected['16-31' if side < 32 else '32-63' if side < 64 else '64-95'] += 1
    assert {name: count for name, count in found.items() if count} == dict(expected)


def test_classes_have_half_open_bounds():
    assert classes([0, 0.99, 1, 4, 5, 1e9], (0, 1, 5)) == {'0': 2, '1-4': 2, '5+': 2}
    assert count_classes([0, 1, 4, 5, 6, 10, 101, 100]) == {
        '0': 1,
        '1': 1,
        '2': 0,
        '3': 0,
        '4-5': 2,
        '6-10': 2,
        '11-20': 0,
        '21-50': 0,
        '51-100': 1,
        '101+': 1,
    }
    with pytest.raises(ValueError, match='0 or more, got -1'):
        classes([-1], (0, 1))


def test_items_without_identity_make_no_pair():
    assert identity_counts([-1, -1, 7, 7, 7, 9], [0, 1, 0, 1, 1, 0]).tolist() == [[1, 2], [1, 0]]
    assert identity_counts([], []).shape == (0, 2)


def test_page_shows_the_counts(store):
    page = dataset_page(dataset_statistics(store), 'a <b> & "c"')
    assert 'a &lt;b&gt; &amp; &quot;c&quot;: 12 consumer images, 12 shop images' in page
    assert '<b>' not in page and page.count('<svg') == 14

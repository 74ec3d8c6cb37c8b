import copy
import json

import numpy as np
import pytest

from mmdf2.categories import CATEGORIES, identity_code
from mmdf2.datasets.annotation import TREATMENTS, AnnotationError, parse_annotation, read_annotation, to_json_dict

SIZE = (100, 80)


def good(**changes) -> dict:
    item = {
        'segmentation': [[10, 10, 50, 10, 50, 60.25, 10, 60]],
        'scale': 2,
        'viewpoint': 2,
        'zoom_in': 1,
        'landmarks': [20, 20, 2, 30, 30, 1, 0, 0, 0, *[25, 25, 2] * 5],
        'style': 3,
        'bounding_box': [10, 10, 50, 60],
        'category_id': 9,
        'occlusion': 1,
        'category_name': 'skirt',
    }
    return {'source': 'shop', 'pair_id': 7, 'item1': {**item, **changes}}


def noted(data, size=SIZE):
    problems = []
    annotation = parse_annotation(data, '000001.json', size, problems.append)
    for problem in problems:
        assert problem.file == '000001.json' and problem.detail and problem.kind in str(problem)
    return annotation, [problem.kind for problem in problems]


def test_good_annotation_is_kept_exactly():
    annotation, problems = noted(good())
    assert not problems
    assert (annotation.source, annotation.pair_id) == ('shop', 7)
    (item,) = annotation.items
    assert (item.item_id, item.category_id, item.label, item.style, item.bbox) == (1, 9, 8, 3, (10, 10, 50, 60))
    assert (item.scale, item.occlusion, item.zoom_in, item.viewpoint) == (2, 1, 1, 2)
    assert item.landmarks.shape == (8, 3) and item.landmarks[1].tolist() == [30, 30, 1]
    assert item.segmentation[0].tolist() == [[10, 10], [50, 10], [50, 60.25], [10, 60]]
    assert to_json_dict(annotation) == good()


def test_annotation_of_photos_survives_a_round_trip(photo_root):
    for name, size in (('000264', (750, 750)), ('000265', (560, 750))):
        path = photo_root / 'validation' / 'annos' / f'{name}.json'
        assert to_json_dict(read_annotation(path, size)) == json.loads(path.read_text())


def bad_items():
    nan, inf = float('nan'), float('inf')
    flat = [20, 20, 2] * 8
    yield 'bad item', None
    yield 'bad item', [1, 2]
    yield 'unknown category', {'category_id': 14}
    yield 'unknown category', {'category_id': '1'}
    yield 'unknown category', {'category_id': True}
    yield 'unknown category', {'category_id': nan}
    yield 'contradicting category', {'category_name': 'trousers'}
    yield 'contradicting category', {'category_id': 8}
    for name in ('jeans', '', 5, ['skirt']):
        yield 'unknown category name', {'category_name': name}
    for box in (
        [nan, 1, 5, 5],
        [5, 5, 1, 9],
        [5, 5, 9, 5],
        [1, 2, 3],
        'box',
        None,
        [1, 2, None, 4],
        [1, 2, inf, 4],
        [[1]],
    ):
        yield 'bad box', {'bounding_box': box}
    yield 'bad box', {'bounding_box': [200, 10, 300, 20]}
    for landmarks in (flat[:-1], flat + flat, [], None, 'x', [[20, 20, 2]] * 8, [None] * 23 + [[]], [10**400] * 24):
        yield 'bad landmarks', {'landmarks': landmarks}
    for landmark in ([20, 20, 3], [nan, 20, 2], [20, inf, 1], [20, 20, -1], [20, 20, 0.5], [20, 20, nan], [1e9, 20, 2]):
        yield 'bad landmark', {'landmarks': flat[:-3] + landmark}
    yield 'landmark outside image', {'landmarks': [*flat[:-3], 150, 20, 2]}
    triangle = [1, 1, 20, 1, 1, 20]
    for polygon in (
        [1, 1, 5, 5],
        triangle[:-1],
        [],
        [nan, *triangle[1:]],
        [1, 1, 5, 5, 9, 9],
        [3, 3] * 4,
        None,
        [200, 1] * 3,
        [-9e4, 1, 9e4, 2] * 8,  # few numbers that would take gigabytes to fill
    ):
        yield 'bad polygon', {'segmentation': [polygon, triangle]}
    yield 'bad polygon', {'segmentation': [[200, 1, 300, 1, 300, 50], triangle]}
    for segmentation in ([], None, {}, 'x'):
        yield 'no mask', {'segmentation': segmentation}
    for style in (-1, 2**16, 'a', None, 1.5):
        yield 'bad style', {'style': style}
    for name in ('scale', 'occlusion', 'zoom_in', 'viewpoint'):
        for value in (0, 4, None, '2', 1.5):
            yield 'bad attribute', {name: value}
    yield 'box outside image', {'bounding_box': [-5, 10, 50, 60]}


@pytest.mark.parametrize(('kind', 'changes'), list(bad_items()))
def test_bad_item_is_noted_and_treated(kind, changes):
    data = good(**changes) if isinstance(changes, dict) else {**good(), 'item1': changes}
    data['item2'] = good()['item1']
    annotation, problems = noted(data)
    assert problems == [kind]
    kept = [item.item_id for item in annotation.items]
    assert kept == ([2] if 'item left out' in TREATMENTS[kind] else [1, 2])
    item = annotation.items[0]
    assert 0 <= item.bbox[0] < item.bbox[2] <= 100
    assert np.isfinite(item.landmarks).all() and set(np.unique(item.landmarks[:, 2])) <= {0, 1, 2}
    with pytest.raises(AnnotationError, match=r'000001\.json: item1: ' + kind):
        parse_annotation(data, '000001.json', SIZE)


def test_treatments_do_what_they_say():
    assert noted(good(bounding_box=[-5, 10, 150, 60]))[0].items[0].bbox == (0, 10, 100, 60)
    assert not noted(good(landmarks=[1]))[0].items[0].landmarks.any()
    landmarks = noted(good(landmarks=[20, 20, 2] * 7 + [20, 20, 5]))[0].items[0].landmarks
    assert landmarks[7].tolist() == [0, 0, 0] and (landmarks[:7, 2] == 2).all()
    assert noted(good(style=-1))[0].items[0].style == 0
    assert noted(good(scale=9))[0].items[0].scale == 0
    annotation, problems = noted(good(segmentation=[[1, 1, 5, 5]]))
    assert annotation.items[0].segmentation == [] and problems == ['bad polygon', 'no mask']


def test_a_bow_tie_is_a_polygon():
    # Its two triangles cancel in the signed area, yet it covers pixels.
    annotation, problems = noted(good(segmentation=[[10, 10, 50, 50, 50, 10, 10, 50]]))
    assert not problems and len(annotation.items[0].segmentation) == 1


def test_without_a_size_nothing_is_outside():
    assert noted(good(bounding_box=[-5, 10, 500, 60]), size=None)[1] == []


@pytest.mark.parametrize(
    ('kind', 'data'),
    [
        ('bad source', {**good(), 'source': 'Shop'}),
        ('bad source', {'pair_id': 1}),
        ('bad source', {**good(), 'source': ['shop']}),
        ('bad pair_id', {**good(), 'pair_id': None}),
        ('bad pair_id', {**good(), 'pair_id': -1}),
        ('bad pair_id', {**good(), 'pair_id': 2**31}),
        ('unreadable annotation', [1]),
        ('unreadable annotation', None),
    ],
)
def test_unusable_image_is_an_error_even_when_problems_are_noted(kind, data):
    with pytest.raises(AnnotationError, match=kind) as caught:
        noted(data)
    assert caught.value.problem.kind == kind


def test_item_names():
    data = {**good(), 'item01': good()['item1'], 'itemX': good()['item1'], 'Item3': {}, 'item10': good()['item1']}
    annotation, problems = noted(data)
    assert [item.item_id for item in annotation.items] == [1, 10]
    assert sorted(problems) == ['bad item name', 'bad item name', 'duplicate item id']
    annotation, problems = noted({'source': 'user', 'pair_id': 1})
    assert annotation.items == [] and problems == ['no items']


def test_keys_repeated_in_the_file_are_noticed(tmp_path):
    path = tmp_path / '000001.json'
    item = json.dumps(good()['item1'])
    twice = item[:-1] + ', "style": 4}'
    path.write_text(f'{{"source": "user", "pair_id": 1, "item1": {item}, "item1": {item}, "item2": {twice}}}')
    problems = []
    annotation = read_annotation(path, SIZE, problems.append)
    assert [problem.kind for problem in problems] == ['duplicate item id', 'repeated key']
    assert [(item.item_id, item.style) for item in annotation.items] == [(1, 3), (2, 4)]


@pytest.mark.parametrize('content', [b'', b'{"source": "user", "pa', b'\xff\xfe', b'nul', b'[' * 100000])
def test_broken_file(tmp_path, content):
    path = tmp_path / '000003.json'
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=r'000003\.json: unreadable annotation'):
        read_annotation(path, SIZE, [].append)
    with pytest.raises(AnnotationError, match='missing annotation'):
        read_annotation(tmp_path / 'none.json')


def test_input_is_not_changed():
    data = good(bounding_box=[-5, 10, 500, 60])
    before = copy.deepcopy(data)
    noted(data)
    assert data == before


def test_identity_code():
    assert identity_code(7, 3) == 7 * 65536 + 3
    assert identity_code(7, 0) == -1
    codes = identity_code(np.array([0, 2**31 - 1], dtype=np.int32), np.array([65535, 65535], dtype=np.int32))
    assert codes.dtype == np.int64 and codes.tolist() == [65535, (2**31 - 1) * 65536 + 65535]


def test_each_category_needs_its_own_count():
    for category in CATEGORIES:
        landmarks = [5, 5, 2] * category.num_landmarks
        data = good(category_id=category.id, category_name=category.name, landmarks=landmarks)
        assert noted(data)[1] == []
        for name in (category.name.title().replace(' ', '_'), None):
            assert noted(good(category_id=category.id, category_name=name, landmarks=landmarks))[1] == []
        data['item1']['landmarks'] = [5, 5, 2] * (category.num_landmarks + 1)
        assert noted(data)[1] == ['bad landmarks']

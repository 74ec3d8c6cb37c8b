"""tools/gallery.py as a shop uses it, with a tiny, untrained model, which finds boxes nevertheless."""

import importlib.util
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from models.tiny import build_tiny
from retrieval.made_gallery import make_embeddings, make_items, make_similarity
from tiny_run import ROOT, metrics, run_tool, write_config

from mmdf2 import command_line
from mmdf2.apis import ClothesInferencer, FashionSearch
from mmdf2.command_line import UserError
from mmdf2.retrieval import FaissGallery, GalleryError, GalleryItem, Similarity, create_gallery


@pytest.fixture(scope='module')
def shop(tmp_path_factory, tiny_root) -> Path:
    """Folder with config.py, weights.pth, and a gallery of all boxes on the shop images of tiny_root's validation."""
    folder = tmp_path_factory.mktemp('shop')
    write_config(folder, tiny_root, **{'test_dataloader.batch_size': 1})
    torch.save({'state_dict': build_tiny().state_dict()}, folder / 'weights.pth')
    build = ('--shop-of', tiny_root, '--score-threshold', 0, *model_of(folder), '--out', folder / 'gallery')
    output = run_tool('gallery.py', 'build', *build, cwd=folder)
    assert 'garments of 8 images added' in output and not (folder / 'gallery.partial').exists()
    return folder


def model_of(folder: Path, weights: str = 'weights.pth') -> tuple:
    return '--model', folder / 'config.py', '--weights', folder / weights, '--device', 'cpu'


def three_photos(root: Path, tmp_path: Path) -> tuple[list[Path], Path]:
    """Three photos of a split, and a folder that holds copies of them."""
    photos, folder = sorted((root / 'validation' / 'image').iterdir())[:3], tmp_path / 'photos'
    folder.mkdir()
    for path in photos:
        (folder / path.name).write_bytes(path.read_bytes())
    return photos, folder


def content(gallery) -> list:
    opened = FaissGallery.load(gallery)
    rows = []
    for category in range(1, 14):
        vectors, ids = opened.partition_arrays(category)
        items = opened.items(ids.tolist())
        rows += [(number, items[number], vector.tolist()) for number, vector in zip(ids.tolist(), vectors, strict=True)]
    return sorted(rows, key=lambda row: row[0])


def test_evaluate_equals_the_metric_and_search_its_result_file(shop, tiny_root, tmp_path):
    arguments = ('--work-dir', tmp_path, '--dump', tmp_path / 'dump')
    run_tool('test.py', shop / 'config.py', shop / 'weights.pth', *arguments, cwd=tmp_path)
    output = run_tool('gallery.py', 'evaluate', shop / 'gallery', '--queries', tiny_root, *model_of(shop))
    found = json.loads(output[output.index('{') : output.rindex('}') + 1])
    expected = metrics(tmp_path)
    assert {f'retrieval_{name}' for name in found} <= set(expected) and found['queries'] > 0
    for name, value in found.items():
        assert value == pytest.approx(expected[f'retrieval_{name}'], abs=1e-6), name

    entries = json.loads((tmp_path / 'dump' / 'results.retrieval.json').read_text())
    query = entries[0]['query_image_id']
    image = tiny_root / 'validation' / 'image' / f'{query:06}.jpg'
    run_tool(
        'gallery.py', 'search', shop / 'gallery', image, *model_of(shop), '--score-threshold', 0, '--out', tmp_path
    )
    answers = json.loads((tmp_path / 'search.json').read_text())
    expected = [entry for entry in entries if entry['query_image_id'] == query]
    # The file holds only those garments that represent an item.
    assert len(answers) >= len(expected) > 0 and (tmp_path / 'search.jpg').stat().st_size > 1000
    for entry in expected:
        answer = min(answers, key=lambda answer: np.abs(np.subtract(answer['box'], entry['query_bbox'])).max())
        np.testing.assert_allclose(answer['box'], entry['query_bbox'], atol=0.1)
        hits = np.array([[int(Path(hit['image']).stem), *hit['box']] for hit in answer['hits']])
        wanted = np.column_stack([entry['gallery_image_id'], entry['gallery_bbox']])
        found = (np.abs(hits[:, None] - wanted).max(axis=2) < 0.1).any(axis=0)
        # An untrained model embeds many boxes alike: neighbours may swap places, and the last ones drop out.
        assert len(hits) == len(wanted) and found.sum() >= len(wanted) - 2


def test_two_processes_build_what_one_does(shop, tiny_root, tmp_path):
    build = ('--shop-of', tiny_root, '--score-threshold', 0, *model_of(shop), '--out', tmp_path / 'gallery')
    run_tool('gallery.py', 'build', *build, processes=2)
    one, two = content(shop / 'gallery'), content(tmp_path / 'gallery')
    assert [row[:2] for row in one] == [row[:2] for row in two] and len(one) > 0
    np.testing.assert_allclose([row[2] for row in one], [row[2] for row in two], atol=1e-6)


def test_add_remove_and_info(shop, tiny_root, tmp_path):
    photos, folder = three_photos(tiny_root, tmp_path)
    (folder / 'broken.jpg').write_bytes(b'no image')
    gallery, common = tmp_path / 'gallery', ('--score-threshold', 0, *model_of(shop))
    output = run_tool('gallery.py', 'build', '--images', folder / photos[0].name, *common, '--out', gallery)
    before = content(gallery)
    first = len(before)
    assert f'{first} garments of 1 images added' in output
    fields = tmp_path / 'fields.jsonl'
    fields.write_text(json.dumps({'image': str(folder / photos[1].name), 'sku': 'A17', 'price': 9.5}) + '\n')

    output = run_tool('gallery.py', 'add', gallery, '--images', folder, '--fields', fields, *common)
    assert '1 images were there already' in output and '1 images could not be read' in output
    assert 'broken.jpg' in (tmp_path / 'gallery.broken.txt').read_text()
    rows = content(gallery)
    assert rows[:first] == before and {row[1].image for row in rows} == {str(folder / path.name) for path in photos}
    assert {json.dumps(row[1].fields) for row in rows if row[1].fields} == {'{"sku": "A17", "price": 9.5}'}
    assert f'{len(rows)} items' in run_tool('gallery.py', 'info', gallery)

    run_tool('gallery.py', 'remove', gallery, '--field', 'price', '9.5')
    left = content(gallery)
    assert {row[1].image for row in left} == {str(folder / photos[0].name), str(folder / photos[2].name)}
    run_tool('gallery.py', 'remove', gallery, '--image', folder / photos[0].name, '--id', left[-1][0])
    assert content(gallery) == [row for row in left[:-1] if row[1].image == str(folder / photos[2].name)]


@pytest.fixture(scope='module')
def tool():
    """The module of the tool, so that its short commands run in this process."""
    spec = importlib.util.spec_from_file_location('gallery_tool', ROOT / 'tools' / 'gallery.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_remove_takes_a_value_by_its_type_and_every_digit(tool, tmp_path):
    values = ['00017', 17, '17', 7982301937829123456, 7982301937829123072, 1000, '1_000', True, 'true', 0.5]
    gallery = create_gallery(tmp_path / 'g', Similarity(-np.ones((2, 4)), np.zeros(2)), 'model')
    items = [GalleryItem(f'{row}', (0, 0, 1, 1), 1, fields={'sku': value}) for row, value in enumerate(values)]
    gallery.add(np.zeros((len(items), 4), np.float32), items)
    gallery.save()

    def left(*arguments) -> list:
        tool.main(['remove', str(tmp_path / 'g'), '--field', 'sku', *arguments])
        return [row[1].fields['sku'] for row in content(tmp_path / 'g')]

    assert left('7982301937829123456') == values[:3] + values[4:]
    assert left('00017') == values[1:3] + values[4:]
    with pytest.raises(tool.UserError, match='sku is in 1 items the text 17 and 1 items the number 17: say which by'):
        left('17')
    assert left('17', '--type', 'text') == values[1:2] + values[4:]
    assert left('1_000') == values[1:2] + values[4:6] + values[7:]
    assert left('true', '--type', 'truth') == values[1:2] + values[4:6] + values[8:]
    assert left('0.50') == values[1:2] + values[4:6] + values[8:9]


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{"image": "a.jpg", "price": 0.10000000000000000001}', 'has more digits than can be kept: write it as a text'),
        ('{"image": "a.jpg", "price": 1e400}', 'has more digits than can be kept'),
        ('{"image": "a.jpg", "price": NaN}', 'NaN is no number'),
        ('{"image": "a.jpg", "sku": 1, "sku": 2}', 'a name is there twice'),
        ('{"image": "a.jpg", "tags": ' + '[' * 100_000 + '}', 'line 1: must be a JSON object .*recursion'),
        ('{"image": "a.jpg"}\n{"image": "./b/../a.jpg"}', r'line 2: .*a\.jpg has a line already'),
    ],
)
def test_a_line_of_fields_that_cannot_be_kept_is_named(tool, tmp_path, line, message):
    (tmp_path / 'fields.jsonl').write_text('{"image": "c.jpg", "sku": 7982301937829123456, "price": 9.5}\n')
    assert list(tool._fields(tmp_path / 'fields.jsonl').values()) == [{'sku': 7982301937829123456, 'price': 9.5}]
    (tmp_path / 'fields.jsonl').write_text(line)
    with pytest.raises(tool.UserError, match=message):
        tool._fields(tmp_path / 'fields.jsonl')


@pytest.mark.slow
def test_commands_at_once_lose_nothing(shop, tiny_root, tmp_path):
    photos = sorted((tiny_root / 'validation' / 'image').iterdir())[:4]
    gallery = tmp_path / 'gallery'
    build = ('--images', *photos, '--score-threshold', 0, *model_of(shop), '--out', gallery)
    with ThreadPoolExecutor() as pool:
        builds = [pool.submit(run_tool, 'gallery.py', 'build', *build, expect=None) for _ in range(2)]
        said = sorted(build.result() for build in builds)
    assert sum('garments of 4 images added' in text for text in said) == 1
    assert sum('is a gallery already; add to it' in text for text in said) == 1
    assert not any('Traceback' in text for text in said)
    assert {row[1].image for row in content(gallery)} == {str(path) for path in photos}
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(run_tool, 'gallery.py', 'remove', gallery, '--image', path) for path in photos[:3]]
        assert all('items removed' in job.result() for job in jobs)
    assert {row[1].image for row in content(gallery)} == {str(photos[3])}


@pytest.fixture(params=['milvus-lite', 'server'])
def in_milvus(request, tmp_path) -> str:
    """The location of a new gallery in Milvus."""
    if request.param == 'server':
        return f'{request.getfixturevalue("milvus_server").address}#tool'
    pytest.importorskip('milvus_lite', reason='galleries in Milvus are an extra: pip install pymilvus milvus-lite')
    return f'{tmp_path}/shop.db#winter'


@pytest.mark.slow
def test_milvus_answers_as_the_folder_does(shop, tiny_root, tmp_path, monkeypatch, in_milvus):
    # What is done of a gallery on a server lies in the folder where the tool is started.
    monkeypatch.chdir(tmp_path)
    photos = sorted((tiny_root / 'validation' / 'image').iterdir())
    build = ('--shop-of', tiny_root, '--score-threshold', 0, *model_of(shop))
    answers = []
    for gallery in (tmp_path / 'folder', in_milvus):
        said = [run_tool('gallery.py', 'build', *build, '--out', gallery)]
        said += [run_tool('gallery.py', 'evaluate', gallery, '--queries', tiny_root, *model_of(shop))]
        add = ('--images', *photos, '--score-threshold', 0, *model_of(shop))
        said += [run_tool('gallery.py', 'add', gallery, *add)]
        said += [run_tool('gallery.py', 'remove', gallery, '--image', photos[0], '--id', 5)]
        said += [run_tool('gallery.py', 'info', gallery)]
        search = (photos[1], *model_of(shop), '--score-threshold', 0, '--out', tmp_path / 'found')
        run_tool('gallery.py', 'search', gallery, *search)
        found = json.loads((tmp_path / 'found' / 'search.json').read_text())
        lines = [line for text in said for line in text.splitlines() if not line.startswith('Could not')]
        # Without progress bars and warnings, the location of the gallery is the only difference.
        lines = [
            line.replace(str(gallery), 'GALLERY') for line in lines if line.strip() and line[0] in ' {}"0123456789'[:4]
        ]
        answers.append((lines, found))
    (lines, found), (milvus_lines, milvus_found) = answers
    assert len(lines) > 20 and milvus_lines == lines
    assert len(found) > 0 and milvus_found == found
    assert not list(tmp_path.glob('*.partial'))


def test_mistakes_are_named(shop, tiny_root, tmp_path):
    weights = build_tiny().state_dict()
    weights['roi_head.match_head.similarity.weight'] *= 2
    torch.save({'state_dict': weights}, shop / 'other.pth')
    image = next((tiny_root / 'validation' / 'image').iterdir())
    output = run_tool('gallery.py', 'search', shop / 'gallery', image, *model_of(shop, 'other.pth'), expect=1)
    assert "was built with model 'weights.pth " in output and 'Traceback' not in output
    build = ('--images', image, *model_of(shop), '--out', shop / 'gallery')
    assert 'is a gallery already' in run_tool('gallery.py', 'build', *build, expect=1)
    assert 'is no gallery' in run_tool('gallery.py', 'info', tmp_path, expect=1)
    assert 'say what to remove' in run_tool('gallery.py', 'remove', shop / 'gallery', expect=1)
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'no image')
    assert 'broken.jpg' in run_tool('gallery.py', 'search', shop / 'gallery', broken, *model_of(shop), expect=1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('-k', '0'), 'k must be an integer from 1 on, got 0'),
        (('--category', '14'), "categories must be some of 1 ('short sleeve top')"),
        (('--category', '1', '--same-category'), 'give --category or --same-category, not both'),
        (('--score-threshold', '30'), 'score_threshold must be 0 to 1, as scores are, got 30.0'),
        (('--score-threshold', 'nan'), 'score_threshold must be 0 to 1'),
    ],
)
def test_what_can_be_checked_is_checked_before_the_model_is_read(tool, tiny_root, tmp_path, arguments, message):
    image = str(next((tiny_root / 'validation' / 'image').iterdir()))
    model = ('--model', str(tmp_path / 'none.py'), '--weights', str(tmp_path / 'none.pth'))
    with pytest.raises((ValueError, UserError), match=re.escape(message)):
        tool.main(['search', str(tmp_path / 'gallery'), image, *model, *arguments])
    with pytest.raises(UserError, match=r'IMAGE .*none\.jpg cannot be read'):
        tool.main(['search', str(tmp_path / 'gallery'), str(tmp_path / 'none.jpg'), *model])
    with pytest.raises(GalleryError, match='is no gallery'):
        tool.main(['search', str(tmp_path / 'gallery'), image, *model])
    with pytest.raises(GalleryError, match='is no gallery'):
        tool.main(['evaluate', str(tmp_path / 'gallery'), '--queries', str(tiny_root), *model])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--expansion', '-1'), 'hits must be an integer from 0 on, got -1'),
        (('--false-accepts', '0.05'), 'the gallery has no calibration'),
        (('--false-accepts', '0.05', '--expansion', '1'), 'scores of an expanded search are not calibrated'),
    ],
)
def test_what_the_gallery_cannot_do_is_said_before_the_model_is_read(tool, tiny_root, tmp_path, arguments, message):
    image = str(next((tiny_root / 'validation' / 'image').iterdir()))
    create_gallery(tmp_path / 'gallery', make_similarity(np.random.default_rng(0)), 'model').save()
    model = ('--model', str(tmp_path / 'none.py'), '--weights', str(tmp_path / 'none.pth'))
    with pytest.raises(ValueError, match=re.escape(message)):
        tool.main(['search', str(tmp_path / 'gallery'), image, *model, *arguments])


def test_a_gallery_that_cannot_be_changed_is_refused_before_the_work(tool, tiny_root, tmp_path, monkeypatch):
    create_gallery(tmp_path / 'gallery', make_similarity(np.random.default_rng(0)), 'model').save()

    def refuse(dir):
        raise PermissionError(13, 'Permission denied', str(dir))

    monkeypatch.setattr(command_line.tempfile, 'TemporaryFile', refuse)
    gallery = str(tmp_path / 'gallery')
    model = ('--model', str(tmp_path / 'none.py'), '--weights', str(tmp_path / 'none.pth'))
    for arguments in (
        ('build', '--out', gallery, '--images', str(tiny_root), *model),
        ('add', gallery, '--images', str(tiny_root), *model),
        ('calibrate', gallery, '--queries', str(tiny_root), *model),
        ('index', gallery),
    ):
        with pytest.raises(UserError, match=r'GALLERY .*gallery: nothing can be written there \(Permission denied\)'):
            tool.main(list(arguments))


@pytest.mark.parametrize('command', ['build', 'add'])
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--score-threshold', '30'), 'score_threshold must be 0 to 1'),
        (('--batch-size', '0'), 'batch_size must be 1 or more, got 0'),
    ],
)
def test_how_photos_are_looked_at_is_checked_before_any(tool, tmp_path, command, arguments, message):
    model = ('--model', str(tmp_path / 'none.py'), '--weights', str(tmp_path / 'none.pth'))
    gallery = {'build': ('--out', str(tmp_path / 'gallery')), 'add': (str(tmp_path / 'gallery'),)}[command]
    with pytest.raises(ValueError, match=message):
        tool.main([command, *gallery, '--images', str(tmp_path), *model, *arguments])
    assert not list(tmp_path.iterdir())


def test_a_hit_whose_photo_is_gone_or_damaged_is_drawn_blank(shop, tiny_root, tmp_path):
    photos, folder = three_photos(tiny_root, tmp_path)
    common = ('--score-threshold', 0, *model_of(shop))
    run_tool('gallery.py', 'build', '--images', folder, *common, '--out', tmp_path / 'gallery')
    (folder / photos[0].name).unlink()
    (folder / photos[1].name).write_bytes(b'no image')
    search = (tmp_path / 'gallery', photos[2], *common, '--out', tmp_path / 'found')
    output = run_tool('gallery.py', 'search', *search)
    assert 'is drawn blank' in output and photos[0].name in output
    assert (tmp_path / 'found/search.jpg').stat().st_size > 1000
    assert (tmp_path / 'found/search.json').exists()


def test_index_is_saved_and_shown(tool, tmp_path, capsys):
    rng = np.random.default_rng(0)
    gallery = FaissGallery(make_similarity(rng, 24))
    gallery.add(make_embeddings(rng, 6000, 24), make_items(rng, 6000, (2, 9)))
    gallery.save(tmp_path / 'g')
    for _ in range(2):
        tool.main(['index', str(tmp_path / 'g'), '--least-items', '1000'])
        assert 'index of long sleeve top: ' in capsys.readouterr().out
    tool.main(['remove', str(tmp_path / 'g'), '--id', '5'])
    capsys.readouterr()
    tool.main(['info', str(tmp_path / 'g')])
    printed = capsys.readouterr().out
    assert '5999 items' in printed and 'index of skirt: ' in printed and 'recall@20 ' in printed
    assert 'searches of the other categories are exact' in printed
    tool.main(['index', str(tmp_path / 'g')])
    assert capsys.readouterr().out == 'searches are exact\n'


def test_search_from_python_within_categories(shop, tiny_root):
    image = next((tiny_root / 'validation' / 'image').iterdir())
    search = FashionSearch(ClothesInferencer(shop / 'config.py', shop / 'weights.pth', 'cpu'), shop / 'gallery')
    held = [category for category, count in search.gallery.counts().items() if count]
    found = search.search(image, k=3, score_threshold=0.0, categories=held[:1])
    assert found and all(hit.item.category_id == held[0] for garment in found for hit in garment.hits)
    for garment in search.search(image, k=3, score_threshold=0.0, same_category=True):
        assert {hit.item.category_id for hit in garment.hits} <= {garment.garment.category_id}
    with pytest.raises(ValueError, match='not both'):
        search.search(image, categories=[1], same_category=True)

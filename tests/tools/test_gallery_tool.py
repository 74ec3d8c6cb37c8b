"""tools/gallery.py as a shop uses it, with a tiny, untrained model, which finds boxes nevertheless."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from models.tiny import build_tiny
from tiny_run import metrics, run_tool, write_config

from mmdf2.apis import ClothesInferencer, FashionSearch
from mmdf2.retrieval.local.gallery import FaissGallery


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
    photos = sorted((tiny_root / 'validation' / 'image').iterdir())[:3]
    folder = tmp_path / 'photos'
    folder.mkdir()
    for path in photos:
        (folder / path.name).write_bytes(path.read_bytes())
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


@pytest.mark.slow
def test_milvus_answers_as_the_folder_does(shop, tiny_root, tmp_path):
    pytest.importorskip('milvus_lite', reason='galleries in Milvus are an extra: pip install pymilvus milvus-lite')
    photos = sorted((tiny_root / 'validation' / 'image').iterdir())
    build = ('--shop-of', tiny_root, '--score-threshold', 0, *model_of(shop))
    answers = []
    for gallery in (tmp_path / 'folder', f'{tmp_path}/shop.db#winter'):
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

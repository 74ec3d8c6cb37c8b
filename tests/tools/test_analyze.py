"""tools/analyze.py as a user starts it, from files to pages."""

import json
import shutil

import pytest
from analysis.made_results import write_made_results
from tiny_run import run_tool

from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.coco import evaluate_task
from mmdf2.evaluation.files.detections import read_detections
from mmdf2.evaluation.truth import ground_truth


@pytest.fixture(scope='module')
def results(tiny_root, tmp_path_factory):
    """Options of the four result files of a made-up system."""
    paths = write_made_results(open_or_prepare(tiny_root, 'validation'), tmp_path_factory.mktemp('results'))
    return [part for option in paths.items() for part in option]


def test_dataset(tiny_root, tmp_path):
    run_tool('analyze.py', 'dataset', '--store', tiny_root, '--split', 'train', '--out', tmp_path)
    assert json.loads((tmp_path / 'dataset.json').read_text())['table']['images'] == 24
    assert '12 consumer images, 12 shop images' in (tmp_path / 'dataset.html').read_text()
    output = run_tool('analyze.py', 'dataset', '--store', tmp_path, '--out', tmp_path, expect=1)
    assert 'error: ' in output and 'is neither a store' in output and 'Traceback' not in output


def test_errors_of_all_four_files(tiny_root, results, tmp_path):
    run_tool('analyze.py', 'errors', '--gt', tiny_root, *results, '--out', tmp_path, '--worst', 3)
    numbers = json.loads((tmp_path / 'errors.json').read_text())
    store = open_or_prepare(tiny_root, 'validation')
    sizes = {int(i): (64, 96) for i in store.image_ids}
    detections = read_detections(results[1], 'bbox', sizes)
    expected = evaluate_task(ground_truth(store), detections, 'bbox').figures()
    assert numbers['tasks']['bbox']['overall'] == expected
    count = len(store.item_ids)
    cells = {(c['failure'], c['column'], c['category']): c for c in numbers['failures']}
    kinds = ('missed', 'wrong category', 'poor box', 'wrong category and poor box')
    failed = sum(cells[kind, 'overall', 'all']['failed'] for kind in kinds)
    assert failed + sum(numbers['bbox_detections']['right'].values()) == count
    kept = sum(detections.scores >= numbers['thresholds']['bbox'])
    assert sum(sum(counts.values()) for counts in numbers['bbox_detections'].values()) == kept
    assert sum(sum(line) for line in numbers['confusion']['counts'][:13]) == count
    assert len(numbers['landmarks']) == 294 and len(numbers['retrieval']['made.retrieval.json']['cmc']) == 20
    page = (tmp_path / 'errors.html').read_text()
    for name in ('summary', 'weak', 'curves', 'confusion', 'landmarks', 'retrieval', 'worst'):
        assert f'href="#{name}"' in page and f'<section id="{name}">' in page
    assert page.count('<img src="data:image/jpeg;base64,') > 10 and '<script' not in page
    assert 'Poor landmarks' in page and 'worst landmark' in page


def test_each_file_alone_and_a_given_score(tiny_root, results, tmp_path):
    for option, path in zip(results[::2], results[1::2], strict=True):
        out = tmp_path / option.strip('-')
        run_tool('analyze.py', 'errors', '--gt', tiny_root, option, path, '--score', 0.5, '--out', out, '--worst', 1)
        numbers = json.loads((out / 'errors.json').read_text())
        assert set(numbers['thresholds'].values()) <= {0.5} and numbers['failures']
        assert 'where F1' not in (out / 'errors.html').read_text()


def test_a_missing_picture_is_said_where_it_should_be(tiny_root, results, tmp_path):
    images = tmp_path / 'images'
    shutil.copytree(tiny_root / 'validation' / 'image', images)
    for path in sorted(images.iterdir())[:8]:
        path.write_bytes(b'not a picture')
    run_tool('analyze.py', 'errors', '--gt', tiny_root, *results, '--images', images, '--out', tmp_path)
    page = (tmp_path / 'errors.html').read_text()
    assert 'no picture: ' in page and 'is not a readable image' in page and '<img ' in page


def test_faults_end_with_one_line(tiny_root, results, tmp_path):
    broken = tmp_path / 'broken.json'
    broken.write_text('[{"image_id": 1, "category_id": 99, "score": 1, "bbox": [0, 0, 1, 1]}]')
    output = run_tool('analyze.py', 'errors', '--gt', tiny_root, '--bbox', broken, '--out', tmp_path / 'x', expect=1)
    assert 'line 1, entry 0: category_id should be an integer from 1 to 13, got 99' in output
    assert 'Traceback' not in output and not (tmp_path / 'x').exists()
    output = run_tool('analyze.py', 'errors', '--gt', tiny_root, '--out', tmp_path / 'x', expect=2)
    assert 'give at least one of' in output


def test_nothing_detected(tiny_root, tmp_path):
    empty = tmp_path / 'empty.json'
    empty.write_text('[]')
    files = [part for kind in ('bbox', 'segm', 'keypoints', 'retrieval') for part in (f'--{kind}', empty)]
    run_tool('analyze.py', 'errors', '--gt', tiny_root, *files, '--out', tmp_path)
    numbers = json.loads((tmp_path / 'errors.json').read_text())
    cells = {(c['failure'], c['column'], c['category']): c for c in numbers['failures']}
    assert cells['missed', 'overall', 'all']['share'] == 1 and cells['query missed', 'overall', 'all']['share'] == 1

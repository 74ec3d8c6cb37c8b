"""The demo, on a wardrobe of a few garments and a model of a few channels."""

import json

import pytest
from tiny_run import run_tool, write_config

from mmdf2 import files
from mmdf2.images import read_image

METRICS = {
    'bbox_AP',
    'segm_AP',
    'keypoints_AP_visible',
    'keypoints_AP_all',
    'retrieval_top1',
    'retrieval_top10',
    'retrieval_top20',
    'retrieval_gt_top1',
    'retrieval_chance_top1',
}


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """A finished run: its folder, and the arguments that made it."""
    folder = tmp_path_factory.mktemp('demo')
    config = write_config(folder / 'config', 'replaced by the demo')
    work_dir = folder / 'work'
    arguments = ['--config', config, '--work-dir', work_dir, '--identities', 6, '--validation-identities', 4]
    printed = run_tool('demo.py', *arguments, cwd=folder)
    return work_dir, arguments, printed


def test_ends_with_the_table_of_all_tasks_and_a_summary(demo):
    work_dir, _, printed = demo
    summary = json.loads((work_dir / 'summary.json').read_text())
    assert set(summary) == METRICS | {'train_seconds', 'wardrobe_version'}
    assert all(0 <= summary[key] <= 1 for key in METRICS)
    assert summary['train_seconds'] > 0
    manifest = json.loads((work_dir / 'wardrobe/validation/wardrobe.json').read_text())
    assert summary['wardrobe_version'] == manifest['version']
    for row in ('boxes', 'masks', 'landmarks, visible only', 'retrieval, detected boxes', 'retrieval, chance'):
        assert row in printed
        assert row in (work_dir / 'results.md').read_text()
    tables = json.loads((work_dir / 'tables.json').read_text())
    for key, task, figure in (('bbox_AP', 'bbox', 'AP'), ('retrieval_gt_top1', 'retrieval_gt', 'top1')):
        assert summary[key] == pytest.approx(tables[task]['overall'][figure], abs=1e-9)
    assert 'Table 5' in (work_dir / 'tables.md').read_text()


def test_draws_truth_beside_prediction_and_retrieval(demo):
    work_dir, _, _ = demo
    pictures = sorted((work_dir / 'pictures').glob('*.jpg'))
    assert len(pictures) > 5 and work_dir / 'pictures/retrieval.jpg' in pictures
    image = read_image(next((work_dir / 'wardrobe/validation/image').glob('*.jpg')))
    picture = read_image(pictures[0])
    assert picture.shape[0] <= max(image.shape) and picture.std() > 10


def test_a_second_run_trains_no_more_and_looks_at_the_user_s_images(demo):
    work_dir, arguments, _ = demo
    seconds = json.loads((work_dir / 'summary.json').read_text())['train_seconds']
    images = work_dir / 'wardrobe/validation/image'
    run_tool('demo.py', *arguments, '--images', images, cwd=work_dir.parent)
    assert json.loads((work_dir / 'summary.json').read_text())['train_seconds'] == seconds
    found = (work_dir / 'your_images/predictions.jsonl').read_text().splitlines()
    assert len(found) == len(list(images.glob('*.jpg')))


def test_a_second_demo_of_a_folder_ends_before_it_empties_it(demo):
    work_dir, arguments, _ = demo
    before = sorted(path for path in work_dir.rglob('*'))
    with files.locked(work_dir.with_name(f'.{work_dir.name}.lock')):
        printed = run_tool('demo.py', *arguments, '--seed', 5, cwd=work_dir.parent, expect=1)
    assert 'another demo is running there' in printed and 'Starting over' not in printed
    assert sorted(path for path in work_dir.rglob('*')) == before


def test_leaves_a_folder_alone_that_is_not_its_own(demo, tmp_path):
    _, arguments, _ = demo
    kept = tmp_path / 'thesis.txt'
    kept.write_text('mine')
    printed = run_tool('demo.py', *arguments, '--work-dir', tmp_path, '--fresh', cwd=tmp_path, expect=1)
    assert 'name another folder' in printed
    assert kept.read_text() == 'mine'

"""Everything that writes is killed at random moments, and nothing is lost: MMDF2_KILLS says how often, 4 by default."""

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import killed
import numpy as np
import pytest
import torch
from mmengine.config import Config
from models.tiny import build_tiny, tiny_config
from PIL import Image
from retrieval import changer
from retrieval.made_gallery import make_embeddings, make_items, make_numbered, make_similarity, numbers_in

from mmdf2 import files
from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare, prepare
from mmdf2.evaluation.report.tables import report_paths, write_report
from mmdf2.retrieval import create_gallery, open_gallery

KILLS = int(os.environ.get('MMDF2_KILLS', '4'))
# Processes are forked from a server that has imported these, which takes seconds.
PRELOADED = [
    'mmdf2.apis.gallery_building',
    'mmdf2.datasets.prepare',
    'mmdf2.evaluation.report.tables',
    'faiss',
    'mmdet.models',
]


def _announced(connection, function: Callable, arguments: tuple) -> None:
    connection.send('ready')
    function(*arguments)


def kill(rng: np.random.Generator, longest: float, function: Callable, *arguments) -> None:
    """Runs a function in a process of its own and kills this after a random time, ``longest`` seconds at most."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe()
    process = context.Process(target=_announced, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    assert ours.recv() == 'ready'
    time.sleep(rng.uniform(0, longest))
    process.kill()
    process.join()


@pytest.fixture(name='folder')
def fixture_folder(tmp_path) -> Path:
    """A gallery of the items 0 to 199."""
    make_numbered(tmp_path / 'g', 200)
    return tmp_path / 'g'


def test_adding(folder):
    rng, known = np.random.default_rng(0), set(range(200))
    for _ in range(KILLS):
        kill(rng, 0.4, changer.add, folder, len(known), killed.ROUNDS)
        found = numbers_in(folder)
        # What was saved before is there, and what is new came in order.
        assert known <= found == set(range(len(found)))
        known = found
    assert len(known) > 200


def test_removing(folder):
    rng, known = np.random.default_rng(1), set(range(200))
    for _ in range(KILLS):
        kill(rng, 0.2, changer.remove, folder, min(known), len(known))
        found = numbers_in(folder)
        assert known >= found == set(range(200 - len(found), 200))
        known = found
        if len(known) < 60:
            shutil.rmtree(folder)
            make_numbered(folder, 200)
            known = set(range(200))


def test_saving_with_an_index(tmp_path):
    rng, folder = np.random.default_rng(2), tmp_path / 'g'
    gallery = create_gallery(folder, make_similarity(rng), 'model')
    vectors, items = make_embeddings(rng, 600), make_items(rng, 600)
    gallery.add(vectors, items)
    gallery.save()
    expected = gallery.search(vectors[:20], 5)
    indexed = 0
    for _ in range(KILLS):
        kill(rng, 2, killed.index, folder)
        gallery = open_gallery(folder)
        assert gallery.items(range(600)) == dict(enumerate(items)) and len(gallery) == 600
        indexed += bool(gallery.indexed())
        # All lists are searched, so every index finds what the exact search does.
        assert gallery.search(vectors[:20], 5) == expected
    assert indexed


def test_preparing(tiny_root, tmp_path):
    rng, root = np.random.default_rng(3), tmp_path / 'data'
    shutil.copytree(tiny_root, root, ignore=shutil.ignore_patterns('*.store*'))
    expected = _columns(prepare(root, 'train', tmp_path / 'expected').folder)
    for _ in range(KILLS):
        kill(rng, 0.3, killed.prepare_again, root)
        assert _columns(open_or_prepare(root, 'train').folder) == expected


def _columns(folder: Path) -> dict[str, str]:
    return {path.name: files.sha256(path) for path in Path(folder).glob('*.npy')}


def test_exporting(tiny_root, tmp_path):
    rng = np.random.default_rng(4)
    store = open_or_prepare(tiny_root, 'train', tmp_path / 'store')
    expected = {path.name: path.read_bytes() for path in export(store, tmp_path / 'expected', 'train')}
    for _ in range(KILLS):
        kill(rng, 0.3, killed.export_again, tiny_root, tmp_path / 'out')
        found = {path.name: path.read_bytes() for path in (tmp_path / 'out').glob('*') if path.name in expected}
        assert all(content == expected[name] for name, content in found.items())
    assert found


def test_writing_reports(tmp_path):
    rng = np.random.default_rng(5)
    reports = [{'about': {'notes': [f'{number}' * 20_000]}} for number in range(2)]
    expected = [
        [path.read_bytes() for path in write_report(report, tmp_path / f'{number}.json')]
        for number, report in enumerate(reports)
    ]
    for _ in range(KILLS):
        kill(rng, 0.1, killed.report_again, reports, tmp_path / 'report.json')
        for place, path in enumerate(report_paths(tmp_path / 'report.json')):
            assert not path.exists() or path.read_bytes() in [contents[place] for contents in expected]
    assert path.exists()


@pytest.mark.slow
def test_building(tmp_path):
    rng = np.random.default_rng(6)
    torch.save({'state_dict': build_tiny().state_dict()}, tmp_path / 'tiny.pth')
    pipeline = [{'type': 'mmdf2.Resize', 'scale': (96, 64), 'keep_ratio': True}, {'type': 'mmdf2.PackClothesInputs'}]
    config = Config({'model': tiny_config(), 'test_dataloader': {'dataset': {'pipeline': pipeline}}})
    photos = [str(tmp_path / f'{number}.png') for number in range(6)]
    for path in photos:
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(path)
    killed.build(config, tmp_path / 'tiny.pth', photos, tmp_path / 'whole')
    expected = _rows(tmp_path / 'whole')
    done = 0
    for number in range(KILLS):
        folder = tmp_path / f'g{done}'
        kill(rng, 3, killed.build, config, tmp_path / 'tiny.pth', photos, folder)
        if number % 3 == 2:
            killed.build(config, tmp_path / 'tiny.pth', photos, folder)
            assert _rows(folder) == expected and not Path(f'{folder}.partial').exists()
            done += 1


def _rows(folder) -> list:
    found = open_gallery(folder).items(range(1000))
    return [(number, found[number]) for number in sorted(found)]

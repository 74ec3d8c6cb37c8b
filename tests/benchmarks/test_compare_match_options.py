"""benchmarks/compare_match_options.py on a tiny detector that is not trained."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from models.tiny import build_tiny
from safetensors.torch import load_file
from tiny_run import ROOT, metrics, run_tool, write_config

from mmdf2.apis import ClothesInferencer
from mmdf2.datasets.prepare import open_or_prepare


@pytest.fixture(scope='module')
def study(tmp_path_factory, tiny_root):
    """The folder of a run over two seeds, and what the run printed."""
    folder = tmp_path_factory.mktemp('study')
    write_config(folder, tiny_root)
    torch.save({'state_dict': build_tiny().state_dict()}, folder / 'weights.pth')
    return folder, compare(folder, '--out', folder / 'figures.json')


def compare(folder, *more, expect=0, only=('true metric', 'contrastive, weight 1', 'flip averaging')):
    arguments = ('--features', folder / 'features.safetensors', '--seeds', 2, '--iterations', 3, '--pairs', 2, *more)
    model = folder / 'config.py', folder / 'weights.pth'
    chosen = ('--only', *only) if only else ()
    return run_tool('compare_match_options.py', *model, *arguments, *chosen, expect=expect, folder='benchmarks')


def test_the_table_is_that_of_the_figures(study):
    folder, printed = study
    figures = json.loads((folder / 'figures.json').read_text())
    assert list(figures) == ['plain', 'true metric', 'contrastive, weight 1', 'flip averaging']
    lines = {line.split('|')[1].strip(): line for line in printed.splitlines() if line.startswith('|')}
    for name, rows in figures.items():
        assert len(rows) == 2 and all(0 <= row['top1'] <= row['top10'] <= 1 for row in rows)
        values = [100 * row['map'] for row in rows]
        assert f'| {np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} |' in lines[name]
        gains = [value - 100 * plain['map'] for value, plain in zip(values, figures['plain'], strict=True)]
        assert name == 'plain' or f'| {np.mean(gains):+.1f} ± {np.std(gains, ddof=1):.1f} |' in lines[name]
    assert all(row['positive_weights'] == 0 for row in figures['true metric'])
    assert figures['contrastive, weight 1'] != figures['plain'] != figures['flip averaging']


@pytest.mark.slow
def test_the_variants_are_fed_by_other_streams(study):
    printed = compare(study[0], '--variants', only=())
    lines = {line.split('|')[1].strip(): line for line in printed.splitlines() if line.startswith('|')}
    assert list(lines)[2:] == ['plain', 'class', 'mask', 'pose', 'mask+class', 'pose+class']
    assert len({line.split('|')[4] for line in lines.values()}) > 4


@pytest.mark.slow
def test_a_second_run_repeats_the_first_from_its_features(study):
    folder, printed = study
    before = (folder / 'features.safetensors').stat().st_mtime_ns
    again = compare(folder)
    assert [line for line in again.splitlines() if '|' in line] == [
        line for line in printed.splitlines() if '|' in line
    ]
    assert (folder / 'features.safetensors').stat().st_mtime_ns == before
    torch.save({'state_dict': build_tiny(seed=1).state_dict()}, folder / 'weights.pth')
    try:
        assert 'holds features of checkpoint' in compare(folder, expect=1)
    finally:
        torch.save({'state_dict': build_tiny().state_dict()}, folder / 'weights.pth')


def test_an_unknown_option_and_a_count_of_none_are_refused(study):
    assert "invalid choice: 'cosine'" in compare(study[0], only=['cosine'], expect=2)
    assert 'must be 1 or more, got 0' in compare(study[0], '--pairs', 0, expect=2)


def test_features_give_the_detectors_own_figures(study, tiny_root, tmp_path, monkeypatch):
    """The figures of the checkpoint's head on cached features are those of RetrievalMetric on the whole model."""
    folder, _ = study
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import compare_match_options as tool

    features = load_file(folder / 'features.safetensors')
    streams = {stream: features[f'validation.{stream}'] for stream in ('class', 'pose', 'mask')}
    split = tool.Split(open_or_prepare(tiny_root, 'validation'), streams)
    head = ClothesInferencer(Config.fromfile(folder / 'config.py'), folder / 'weights.pth', 'cpu').model
    for flip in (False, True):
        found = tool.judge(head.roi_head.match_head, split, tool.Option(flip=flip))
        options = ('--work-dir', tmp_path / str(flip), '--cfg-options', f'model.test_cfg.rcnn.flip_average={flip}')
        run_tool('test.py', folder / 'config.py', folder / 'weights.pth', *options, cwd=tmp_path)
        expected = metrics(tmp_path / str(flip))
        for name in tool.FIGURES:
            assert found[name] == pytest.approx(expected[f'retrieval_gt_{name}'], abs=1e-6), (name, flip)


def test_batches_are_pairs_of_one_identity_and_rows_their_garments(tiny_root, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import compare_match_options as tool

    store = open_or_prepare(tiny_root, 'train')
    rng = np.random.default_rng(0)
    owners = np.asarray(store.item_images)
    for images in tool.batches(store, rng, 20, 3):
        assert len(images) == 6
        for user, shop in images.reshape(-1, 2):
            assert (store.sources[user], store.sources[shop]) == (0, 1)
            sides = [set(store.identities[owners == image].tolist()) - {-1} for image in (user, shop)]
            assert sides[0] & sides[1]
        rows, mirrored = tool.garment_rows(store, images, rng)
        assert owners[rows].tolist() == [image for image in images for _ in range((owners == image).sum())]
        for image in set(images.tolist()):
            assert len(set(mirrored[owners[rows] == image].tolist())) <= (images == image).sum()


def test_one_seed_has_no_deviation(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import compare_match_options as tool

    row = {'top1': 0.5, 'top10': 0.75, 'map': 0.25, 'queries': 4.0, 'positive_weights': 0.5}
    args = SimpleNamespace(seeds=1, iterations=1, pairs=1)
    lines = tool.table({'plain': [row], 'other': [{**row, 'top1': 0.25}]}, args).splitlines()
    assert lines[-2] == '| plain | 50.0 | 75.0 | 25.0 |  |  |  | 50% |'
    assert lines[-1] == '| other | 25.0 | 75.0 | 25.0 | -25.0 | +0.0 | +0.0 | 50% |'

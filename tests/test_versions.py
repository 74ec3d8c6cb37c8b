"""Files that version 0.1.0 wrote: the present code opens them with the same figures, or says how to make them anew."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from tiny_run import ROOT, logged, metrics, run_tool

from mmdf2.apis import ClothesInferencer
from mmdf2.datasets.annotation import read_annotation
from mmdf2.datasets.exchange import export
from mmdf2.datasets.store import Store, StoreError

OLD = ROOT / 'tests/data/v0.1.0'
DATASET = OLD / 'dataset'
STORE = DATASET / 'validation.store'
CONFIG = OLD / 'config.py'
CHECKPOINT = OLD / 'checkpoint.pth'
RESULT_KINDS = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')


def expected(name: str):
    return json.loads((OLD / 'expected' / name).read_text())


@pytest.fixture
def copied_dataset(tmp_path) -> Path:
    """A copy of the dataset and its store, to be opened or changed, where the config looks for it from tmp_path."""
    return Path(shutil.copytree(DATASET, tmp_path / DATASET.relative_to(ROOT)))


def set_version(store: Path, version) -> None:
    manifest = json.loads((store / 'manifest.json').read_text())
    (store / 'manifest.json').write_text(json.dumps({**manifest, 'version': version}))


def test_store_holds_what_the_annotation_says():
    store = Store.open(STORE)
    store.verify()
    paths = sorted((DATASET / 'validation/annos').iterdir())
    assert len(store) == len(paths) == 12
    for index, path in enumerate(paths):
        image, annotation = store.image(index), read_annotation(path)
        assert (image.source, image.pair_id) == (annotation.source, annotation.pair_id)
        assert (image.file_name, image.width, image.height) == (f'{path.stem}.png', 96, 64)
        for stored, annotated in zip(image.items, annotation.items, strict=True):
            np.testing.assert_equal(vars(stored), vars(annotated))


def test_exchange_files_of_the_store_are_the_same_bytes(tmp_path):
    written = export(Store.open(STORE), tmp_path, 'validation')
    assert sorted(path.name for path in written) == sorted(path.name for path in (OLD / 'exchange').iterdir())
    for path in written:
        assert path.read_bytes() == (OLD / 'exchange' / path.name).read_bytes(), path.name


def test_store_made_anew_has_the_same_columns(copied_dataset):
    run_tool('prepare_deepfashion2.py', copied_dataset, '--split', 'validation', '--force')
    names = {path.name for path in STORE.glob('*.npy')}
    assert {path.name for path in copied_dataset.glob('validation.store/*.npy')} == names
    for name in names:
        old, new = np.load(STORE / name), np.load(copied_dataset / 'validation.store' / name)
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(old, new, err_msg=name)


@pytest.mark.parametrize('version', [0, 99, None])
def test_store_of_another_version_is_refused_with_the_command_that_makes_it_anew(copied_dataset, version):
    store = copied_dataset / 'validation.store'
    set_version(store, version)
    with pytest.raises(StoreError, match=rf'has version {version}, this mmdf2 reads 1') as refusal:
        Store.open(store)
    command = str(refusal.value).partition('run: python tools/')[2].split()
    run_tool(*command)
    assert len(Store.open(store)) == 12


def assert_same_number(name: str, found: float | None, wanted: float | None, tolerance: float = 0.0) -> None:
    """Two figures, None and NaN being the same: nothing to count."""
    found, wanted = (math.nan if value is None else value for value in (found, wanted))
    assert found == pytest.approx(wanted, rel=0, abs=tolerance, nan_ok=True), name


def numbers(value, name: str = '') -> dict[str, float | None]:
    """Path -> number, of a JSON value of nested objects."""
    if not isinstance(value, dict):
        return {name: value}
    return {path: number for key, inner in value.items() for path, number in numbers(inner, f'{name}/{key}').items()}


def test_result_files_evaluate_to_the_same_report(copied_dataset, tmp_path):
    options = [
        w for kind in RESULT_KINDS for w in (f'--{kind.replace("_", "-")}', OLD / f'results/results.{kind}.json')
    ]
    run_tool('evaluate.py', '--gt', copied_dataset, *options, '--subsets', '--out', tmp_path / 'report.json')
    found, wanted = (
        numbers({task: cells for task, cells in report.items() if task != 'about'})
        for report in (json.loads((tmp_path / 'report.json').read_text()), expected('report.json'))
    )
    assert len(found) > 1000
    assert set(wanted) <= set(found)
    for name, value in wanted.items():
        assert_same_number(name, found[name], value, 1e-12)


def test_checkpoint_finds_the_same_garments():
    """Coordinates were written to a hundredth of a pixel, scores and embeddings to four digits."""
    inferencer = ClothesInferencer(CONFIG, CHECKPOINT, device='cpu')
    images = sorted((DATASET / 'validation/image').iterdir())[:3]
    report = inferencer(images, score_threshold=0.05, with_embeddings=True, progress=False)
    for found, wanted in zip(report.predictions, expected('predictions.json'), strict=True):
        assert (found['name'], found['width'], found['height']) == (wanted['name'], wanted['width'], wanted['height'])
        assert len(wanted['garments']) > 0
        for garment, old in zip(found['garments'], wanted['garments'], strict=True):
            assert set(old) <= set(garment)
            assert (garment['category_id'], garment['category_name']) == (old['category_id'], old['category_name'])
            assert garment['score'] == pytest.approx(old['score'], abs=2e-4)
            np.testing.assert_allclose(garment['bbox'], old['bbox'], rtol=0, atol=0.011)
            np.testing.assert_allclose(garment['embedding'], old['embedding'], rtol=1e-3, atol=2e-4)
            assert mask_utils.iou([garment['segmentation']], [old['segmentation']], [0]).item() > 0.99
            for key, tolerance in {'number': 0, 'x': 0.011, 'y': 0.011, 'score': 2e-4}.items():
                values = [[landmark[key] for landmark in one['landmarks']] for one in (garment, old)]
                np.testing.assert_allclose(*values, rtol=0, atol=tolerance)


@pytest.mark.usefixtures('copied_dataset')
def test_config_and_checkpoint_test_to_the_same_figures(tmp_path):
    options = ('--work-dir', tmp_path, '--subsets', '--dump', tmp_path / 'dump')
    run_tool('test.py', CONFIG, CHECKPOINT, *options, cwd=tmp_path)
    found, wanted = metrics(tmp_path), expected('metrics.json')
    assert set(wanted) <= set(found)
    for name, value in wanted.items():
        # The threshold is a logit. The others are shares and counts, which rounding moves only by changing an order.
        assert_same_number(name, found[name], value, 1e-3 if name == 'verification_threshold' else 1e-6)
    for kind in RESULT_KINDS:
        old, new = (json.loads((f / f'results.{kind}.json').read_text()) for f in (OLD / 'results', tmp_path / 'dump'))
        assert len(old) == len(new) > 0, kind
        assert all(set(one) <= set(other) for one, other in zip(old, new, strict=True)), kind


@pytest.mark.usefixtures('copied_dataset')
def test_training_resumes_from_the_checkpoint(tmp_path):
    options = ('--work-dir', tmp_path, '--resume', CHECKPOINT, '--cfg-options', 'train_cfg.max_epochs=161')
    options += ('default_hooks.logger.interval=1',)
    output = run_tool('train.py', CONFIG, *options, cwd=tmp_path)
    assert 'resumed epoch: 160, iter: 480' in output
    entries = [entry for entry in logged(tmp_path) if 'loss' in entry]
    assert [entry['iter'] for entry in entries] == [481, 482, 483]
    # An untrained model starts near 10.
    assert all(entry['loss'] < 6 for entry in entries)

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmdf2 import registry
from mmdf2.models import MatchRCNN

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
OWN_REGISTRIES = [value for value in vars(registry).values() if getattr(value, 'scope', None) == 'mmdf2']


def load(path):
    return Config.fromfile(str(path))


def own_types(value):
    """All names of type ``mmdf2.X`` in a config."""
    if isinstance(value, dict):
        name = value.get('type')
        yield from [name] if isinstance(name, str) and name.startswith('mmdf2.') else []
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for item in value:
        yield from own_types(item)


def test_basenames_are_unique_so_that_mim_finds_each():
    names = [path.name for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert len(CONFIGS) >= 7 and len(names) == len(set(names))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_model_builds(path):
    model = load(path).model
    # On the meta device nothing is allocated or initialised, and no weights are fetched.
    with torch.device('meta'):
        detector = MODELS.build(model | {'_scope_': 'mmdet'})
    assert isinstance(detector, MatchRCNN)
    head = detector.roi_head
    assert head.bbox_head.num_classes == 13
    widths = {
        'class': head.bbox_roi_extractor.out_channels,
        'pose': head.keypoint_head.predictor.in_channels,
        'mask': head.mask_head.conv_out_channels,
    }
    assert head.match_head.convs[0].in_channels == sum(widths[source] for source in head.match_head.sources)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_class_of_ours_is_registered(path):
    names = set(own_types(load(path).to_dict()))
    assert {'mmdf2.MatchRCNN', 'mmdf2.DeepFashion2Dataset', 'mmdf2.DeepFashion2Metric'} <= names
    unknown = [name for name in names if not any(own.get(name.removeprefix('mmdf2.')) for own in OWN_REGISTRIES)]
    assert not unknown


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_train_and_test_read_the_same_dataset(path):
    config = load(path)
    splits = [config[f'{name}_dataloader'].dataset.split for name in ('train', 'val', 'test')]
    assert splits == ['train', 'validation', 'validation']
    root = config.train_dataloader.dataset.data_root
    assert config.val_dataloader.dataset.data_root == root
    assert {evaluator.data_root for evaluator in config.val_evaluator} == {root}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_schedules_end_with_training(path):
    config = load(path)
    epochs = config.train_cfg.max_epochs
    assert config.param_scheduler[-1].end == epochs
    assert all(0 < milestone < epochs for milestone in config.param_scheduler[-1].get('milestones', []))


def test_the_papers_variants():
    sources = {
        path.stem.split('_')[0].removeprefix('match-rcnn-'): load(path).model.roi_head.match_head.sources
        for path in CONFIGS
        if path.parent.name == 'match_rcnn'
    }
    assert sources == {
        'class': ('class',),
        'pose': ('pose',),
        'mask': ('mask',),
        'pose-class': ('pose', 'class'),
        'mask-class': ('mask', 'class'),
    }


@pytest.mark.parametrize('folder', sorted({path.parent for path in CONFIGS}), ids=lambda folder: folder.name)
def test_metafile_lists_every_config(folder):
    entries = Config.fromfile(str(folder / 'metafile.yml')).Models
    assert sorted(entry.Config for entry in entries) == sorted(
        str(path.relative_to(ROOT)) for path in folder.glob('*.py')
    )
    assert all(entry.Name == Path(entry.Config).stem for entry in entries)
    for entry in entries:
        epochs = load(ROOT / entry.Config).train_cfg.max_epochs
        assert entry.Metadata.get('Epochs', epochs) == epochs


def test_model_index_reaches_every_metafile():
    patterns = Config.fromfile(str(ROOT / 'model-index.yml')).Import
    reached = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert reached == set((ROOT / 'configs').rglob('metafile.yml'))
    assert all((path.parent / 'README.md').is_file() for path in reached)

"""Checkpoints: what MMEngine writes is read, and code in a checkpoint is not executed."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader, load_checkpoint

from mmdf2.engine import CheckpointError, guard_checkpoint_loading, load_checkpoint_file, load_weights


class Malicious:
    """Pickles into a call that makes a folder."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.fixture
def guarded(monkeypatch):
    """Switches the guard on for one test."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())
    monkeypatch.setattr(WEIGHT_INITIALIZERS, '_module_dict', WEIGHT_INITIALIZERS._module_dict.copy())
    guard_checkpoint_loading()


def make_checkpoint():
    history = HistoryBuffer()
    for value in (3.0, 1.0, 2.0):
        history.update(value)
    return {
        'meta': {'epoch': 1, 'dataset_meta': {'classes': ('a',), 'palette': [(1, 2, 3)]}, 'best': np.float64(0.5)},
        'state_dict': torch.nn.Linear(2, 3).state_dict(),
        'message_hub': {'log_scalars': {'train/loss': history}, 'runtime_info': {'iter': np.int64(3)}},
        'optimizer': torch.optim.AdamW(torch.nn.Linear(2, 3).parameters()).state_dict(),
        'arrays': [np.array([1, 0], dtype=dtype) for dtype in ('int64', 'float32', 'bool')],
    }


def test_what_mmengine_writes_is_read_whole(tmp_path):
    expected = make_checkpoint()
    torch.save(expected, tmp_path / 'a.pth')
    read = load_checkpoint_file(tmp_path / 'a.pth')
    assert read['meta'] == expected['meta']
    assert read['message_hub']['runtime_info'] == {'iter': 3}
    history = read['message_hub']['log_scalars']['train/loss']
    np.testing.assert_array_equal(history.data[0], [3, 1, 2])
    assert (history.min(), history.statistics('max'), history.statistics('current')) == (1, 3, 2)
    for array, wanted in zip(read['arrays'], expected['arrays'], strict=True):
        np.testing.assert_array_equal(array, wanted)
    for name, value in expected['state_dict'].items():
        torch.testing.assert_close(read['state_dict'][name], value)


@pytest.mark.parametrize('through_mmengine', [False, True])
@pytest.mark.parametrize(
    'attack',
    [
        lambda folder: Malicious(os.mkdir, str(folder)),
        lambda folder: Malicious(getattr, np.ndarray, 'tofile'),
        lambda folder: Malicious(getattr, HistoryBuffer, '__init__'),
        lambda folder: Malicious(eval, f'__import__("os").mkdir({str(folder)!r})'),
    ],
    ids=['system call', 'getattr', 'getattr of an allowed class', 'eval'],
)
def test_code_is_refused_and_not_run(tmp_path, guarded, attack, through_mmengine):
    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'meta': attack(tmp_path / 'made')}, path)
    with pytest.raises(
        CheckpointError, match=r'evil\.pth is not read, since it holds more than data \([uU]n.*\),'
    ) as refusal:
        if through_mmengine:
            load_checkpoint(torch.nn.Linear(2, 3), str(path))
        else:
            load_checkpoint_file(path)
    assert not (tmp_path / 'made').exists()
    # Nobody is told to read it in an unsafe way.
    assert 'ask its author' in str(refusal.value) and 'load it' not in str(refusal.value)


def test_plain_pickle_is_refused_and_not_run(tmp_path):
    (tmp_path / 'evil.pth').write_bytes(pickle.dumps(Malicious(os.mkdir, str(tmp_path / 'made'))))
    with pytest.raises(CheckpointError, match=r'evil\.pth'):
        load_checkpoint_file(tmp_path / 'evil.pth')
    assert not (tmp_path / 'made').exists()


def test_guarded_mmengine_loads_weights(tmp_path, guarded):
    torch.save(make_checkpoint(), tmp_path / 'a.pth')
    model = torch.nn.Linear(2, 3)
    load_checkpoint(model, str(tmp_path / 'a.pth'), strict=True)
    expected = load_checkpoint_file(tmp_path / 'a.pth')['state_dict']
    torch.testing.assert_close(model.weight.detach(), expected['weight'])


@pytest.mark.parametrize('kind', ['compressed', 'overlapping'])
def test_a_small_file_that_would_fill_the_memory_is_refused(tmp_path, kind):
    whole = tmp_path / 'whole.pth'
    torch.save({'state_dict': {'a': torch.zeros(2_500_000)}}, whole)
    assert load_checkpoint_file(whole)['state_dict']['a'].shape == (2_500_000,)
    small = tmp_path / 'small.pth'
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(small, 'w', zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part))
        if kind == 'overlapping':
            # The directory says that many parts are stored, and all of them are the same bytes of the file.
            target.writestr('data', bytes(100_000), zipfile.ZIP_STORED)
            for part in target.filelist:
                part.header_offset = target.filelist[-1].header_offset
                part.compress_type = zipfile.ZIP_STORED
                part.file_size = part.compress_size = 100_000
    assert small.stat().st_size < 300_000
    with pytest.raises(CheckpointError, match=r'small\.pth is not read, since it is a compressed archive of \d+ bytes'):
        load_checkpoint_file(small)


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        (b'', r'it is empty \(0 bytes\)'),
        (b'<!DOCTYPE html><html>Not found</html>', r"it begins with b'<!DOCTYPE html><html"),
        (b'version https://git-lfs.github.com/spec/v1', r"it begins with b'version https://git-"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, found):
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf'a\.pth is not a checkpoint, or it is damaged: {found}.*download it again'
    ):
        load_checkpoint_file(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    'value', [torch.zeros(3), [torch.zeros(3)], {'state_dict': torch.zeros(3)}, {1: torch.zeros(3)}]
)
def test_a_file_without_weights_by_name_is_named(tmp_path, value):
    torch.save(value, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r"a\.pth holds no weights by name .*; give a file with a 'state_dict'"):
        load_checkpoint_file(tmp_path / 'a.pth')


def layers(*sizes):
    return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in sizes))


@pytest.mark.parametrize(
    'other', [layers((2, 3)), layers((2, 3), (3, 4), (4, 5)), layers((2, 3), (3, 5)), torch.nn.Linear(2, 3)]
)
def test_weights_of_another_model_are_refused(other):
    model = layers((2, 3), (3, 4))
    with pytest.raises(
        CheckpointError, match=r"a\.pth does not fit the config's model .*; give the checkpoint and the"
    ):
        load_weights(model, {'state_dict': other.state_dict()}, 'a.pth')


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (('b', 'a', 'c'), "on 3 classes, of which number 1 is 'b', but the model has 3, with 'a' there"),
        (['a', 'b'], "on 2 classes, of which number 3 is None, but the model has 3, with 'c' there"),
        (('a', 'b', 'c', 'd'), "on 4 classes, of which number 4 is 'd', but the model has 3, with None there"),
    ],
)
def test_weights_for_other_classes_are_refused(classes, message):
    model = layers((2, 3))
    checkpoint = {'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': classes}}}
    with pytest.raises(CheckpointError, match=f'a.pth was trained {message}; give a checkpoint of the same classes'):
        load_weights(model, checkpoint, 'a.pth', ('a', 'b', 'c'))
    load_weights(model, checkpoint, 'a.pth', tuple(classes))
    load_weights(model, checkpoint, 'a.pth')
    for silent in ({}, {'meta': None}, {'meta': {'dataset_meta': 3}}, {'meta': {'dataset_meta': {'classes': None}}}):
        load_weights(model, {'state_dict': model.state_dict(), **silent}, 'a.pth', ('a', 'b', 'c'))


def test_what_fits_of_another_model_is_taken_on_request():
    model, other = layers((2, 3), (3, 4), (4, 4)), layers((2, 3), (3, 5), (4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {f'module.{name}': value for name, value in other.state_dict().items()}
    text = load_weights(model, {'state_dict': weights}, 'a.pth', other_model=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name] if name.startswith('1.') else other.state_dict()[name])
    assert text == "4 of the model's 6 weights are taken from a.pth; 2 keep their initial values: 1.weight, 1.bias"
    with pytest.raises(
        CheckpointError, match=r"b\.pth: none of its 2 weights has the name and the shape of .* model's 6"
    ):
        load_weights(model, torch.nn.Linear(2, 3).state_dict(), 'b.pth', other_model=True)


class Backbone(BaseModule):
    """One layer that is initialized from a file."""

    def __init__(self, checkpoint, **options):
        super().__init__({'type': 'Pretrained', 'checkpoint': str(checkpoint), **options})
        self.layer = torch.nn.Linear(2, 3)


@pytest.mark.parametrize('prefix', [None, 'backbone', 'backbone.'])
def test_a_pretrained_backbone_keeps_working_and_one_that_fits_nothing_is_refused(tmp_path, guarded, prefix):
    start = 'backbone.' if prefix else ''
    wanted = torch.nn.Linear(2, 3)
    weights = {f'{start}layer.{name}': value for name, value in wanted.state_dict().items()}
    torch.save({'state_dict': {**weights, 'fc.weight': torch.zeros(4, 4)}}, tmp_path / 'good.pth')
    torch.save({'state_dict': {f'{start}stem.{name}': value for name, value in weights.items()}}, tmp_path / 'bad.pth')
    options = {'prefix': prefix} if prefix else {}
    backbone = Backbone(tmp_path / 'good.pth', **options)
    backbone.init_weights()
    torch.testing.assert_close(backbone.layer.weight, wanted.weight)
    with pytest.raises(
        CheckpointError, match=r"init_cfg of Backbone: .*bad\.pth has no weight .*that fits; .* 'prefix'"
    ):
        Backbone(tmp_path / 'bad.pth', **options).init_weights()


@pytest.mark.parametrize('content', [b'hello', 'half'])
def test_damage_is_named(tmp_path, content):
    torch.save(make_checkpoint(), tmp_path / 'a.pth')
    if content == 'half':
        content = (tmp_path / 'a.pth').read_bytes()[:2000]
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'a\.pth is'):
        load_checkpoint_file(tmp_path / 'a.pth')
    with pytest.raises(FileNotFoundError, match=r'b\.pth: there is no such checkpoint'):
        load_checkpoint_file(tmp_path / 'b.pth')

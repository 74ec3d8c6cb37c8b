"""Checkpoints: what MMEngine writes is read, and code in a checkpoint is not executed."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint

from mmdf2.engine import CheckpointError, guard_checkpoint_loading, load_checkpoint_file


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
    with pytest.raises(CheckpointError, match=r'evil\.pth is not read, since it holds more than data'):
        if through_mmengine:
            load_checkpoint(torch.nn.Linear(2, 3), str(path))
        else:
            load_checkpoint_file(path)
    assert not (tmp_path / 'made').exists()


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


@pytest.mark.parametrize('content', [b'', b'hello', 'half'])
def test_damage_is_named(tmp_path, content):
    torch.save(make_checkpoint(), tmp_path / 'a.pth')
    if content == 'half':
        content = (tmp_path / 'a.pth').read_bytes()[:2000]
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'a\.pth is'):
        load_checkpoint_file(tmp_path / 'a.pth')
    with pytest.raises(FileNotFoundError, match=r'b\.pth: there is no such checkpoint'):
        load_checkpoint_file(tmp_path / 'b.pth')

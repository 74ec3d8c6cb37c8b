import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'prepare_deepfashion2.py'


def run(*arguments):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_both_splits_and_the_exchange_files(tiny_root, tmp_path):
    for split in ('train', 'validation'):
        (tmp_path / split).symlink_to(tiny_root / split)
    done = run(tmp_path, '--export', tmp_path / 'truth')
    assert done.returncode == 0, done.stderr
    assert 'train.store: 24 images, 32 items' in done.stdout
    assert 'validation.store: 16 images, 22 items' in done.stdout
    assert len(list((tmp_path / 'truth').iterdir())) == 10
    assert '(up to date)' in run(tmp_path, '--split', 'train').stdout


def test_errors_are_one_line_without_a_traceback(tiny_root, tmp_path):
    for arguments, message in (
        ((tmp_path,), 'has neither a train nor a validation folder'),
        ((tiny_root, '--store', tmp_path / 'x'), 'give one --split with it'),
        ((tmp_path, '--split', 'train'), 'DeepFashion2 is laid out as'),
    ):
        done = run(*arguments)
        assert done.returncode != 0 and message in done.stderr and 'Traceback' not in done.stderr

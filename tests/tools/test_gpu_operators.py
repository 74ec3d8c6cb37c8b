"""What the commands and the Python API say when a GPU is there that the installed libraries cannot use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmcv.ops import get_compiling_cuda_version
from tiny_run import ROOT, write_config

FAKE_GPU = ROOT / 'tests/fake_gpu'
SENTENCE = 'the model is to run on a GPU, but the operators of mmcv'

pytestmark = pytest.mark.skipif(
    get_compiling_cuda_version() != 'not available', reason='the operators of mmcv are compiled for GPUs here'
)


def run_beside_fake_gpu(*command):
    """Runs Python where torch believes that it sees a GPU; returns its exit status and all that it printed."""
    environment = {name: value for name, value in os.environ.items() if name != 'CUDA_VISIBLE_DEVICES'}
    path = os.pathsep.join(filter(None, [str(FAKE_GPU), environment.get('PYTHONPATH')]))
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(
        command, env={**environment, 'PYTHONPATH': path}, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def check_is_one_error(status, output):
    assert status == 1 and output.startswith(f'error: {SENTENCE}') and 'Traceback' not in output, output
    assert 'needs nvcc of CUDA' in output and 'FORCE_CUDA=1 pip install' in output


@pytest.fixture
def config(tmp_path, tiny_root) -> Path:
    return write_config(tmp_path, tiny_root)


@pytest.mark.parametrize('tool', [('train.py',), ('test.py', 'none.pth')])
def test_training_and_testing_stop_before_the_first_step(tool, config, tmp_path):
    name, *checkpoint = tool
    check_is_one_error(
        *run_beside_fake_gpu(ROOT / 'tools' / name, config, *checkpoint, '--work-dir', tmp_path / 'work')
    )


def test_the_inferencer_stops_before_it_loads_a_model(config):
    code = (
        'from mmdf2.apis import ClothesInferencer\n'
        'from mmdf2.stack import StackError\n'
        'for device in ("cuda", "cuda:0", None):\n'
        '    try:\n'
        f'        ClothesInferencer({str(config)!r}, "none.pth", device)\n'
        '    except StackError as error:\n'
        '        print(error)\n'
    )
    status, output = run_beside_fake_gpu('-c', code)
    assert status == 0 and output.count(SENTENCE) == 3


def test_training_logs_a_gpu_that_torch_cannot_use(config, tmp_path):
    devices = tmp_path / 'devices'
    devices.mkdir()
    (devices / 'nvidia0').touch()
    code = (
        'import pathlib, runpy, sys, torch, mmdf2.stack\n'
        f'mmdf2.stack.DEVICES = pathlib.Path({str(devices)!r})\n'
        'torch.cuda.is_available = lambda: False\n'
        f'sys.argv = ["train.py", {str(config)!r}, "--work-dir", {str(tmp_path / "work")!r},\n'
        '    "--cfg-options", "train_dataloader.dataset.split=none"]\n'
        f'runpy.run_path({str(ROOT / "tools/train.py")!r}, run_name="__main__")'
    )
    environment = {name: value for name, value in os.environ.items() if name != 'CUDA_VISIBLE_DEVICES'}
    subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, timeout=120, check=False)
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert log.count('This machine has a GPU, but everything runs on the CPU') == 1

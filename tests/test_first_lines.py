"""The Python lines of README.md in the environment of a user, wherever Python is started; and mim there.

The other tests run in an environment that has the wheel; these start the Python of the editable installation around it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import ROOT

import mmdf2

OLD = ROOT / 'tests/data/v0.1.0'
BLOCKS = re.findall(r'^```python\n(.*?)^```', (ROOT / 'README.md').read_text(), flags=re.MULTILINE | re.DOTALL)
# What the lines name, by how it ends, and what stands for it here: the model of `make demo` takes minutes to train.
SUBSTITUTES = {
    r'configs/[^\']+\.py': OLD / 'config.py',
    r'[^\']+\.pth': OLD / 'checkpoint.pth',
    r'[^\']+\.jpg|photos/?': OLD / 'dataset/validation/image/000001.png',
}
MIM = 'match-rcnn_r18-narrow_wardrobe.py'


@pytest.fixture(scope='module')
def user_python() -> Path:
    """The Python of the environment of `make install`; it lies around the environment that has the wheel."""
    if Path(mmdf2.__file__).is_relative_to(ROOT / 'mmdf2'):
        return Path(sys.executable)
    python = Path(sys.prefix).parents[1] / 'bin/python'
    if not python.exists():
        pytest.skip('there is no environment of `make install` around this one')
    return python


@pytest.fixture(scope='module', params=['checkout', 'elsewhere'])
def folder(request, tmp_path_factory) -> Path:
    return ROOT if request.param == 'checkout' else tmp_path_factory.mktemp('elsewhere')


def run(command, folder, expect=0, **options) -> str:
    """Runs a command as a user does, without the variables of the tests; returns all that it printed."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    environment |= {'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, timeout=300, **pipes, **options)
    assert done.returncode == expect, done.stdout
    return done.stdout


def readme_lines(out_dir) -> str:
    """All Python lines of the page, with files that are at hand for those they name."""
    lines = '\n'.join(BLOCKS)
    for pattern, path in SUBSTITUTES.items():
        lines, count = re.subn(f"'(?:{pattern})'", repr(str(path)), lines)
        assert count, pattern
    lines, count = re.subn(r"out_dir='[^']+'", f'out_dir={str(out_dir)!r}', lines)
    assert count
    return lines


def test_readme_lines_find_garments(user_python, folder, tmp_path):
    """With ``-c`` the first place where Python looks for modules is the folder itself, as in a notebook."""
    lines = f'import sys\nassert sys.path[0] == ""\n{readme_lines(tmp_path / "found")}'
    output = run([user_python, '-c', lines], folder)
    assert 'Could not import' not in output and 'Warning' not in output
    assert list((tmp_path / 'found/pictures').iterdir())
    assert (tmp_path / 'found/predictions.jsonl').stat().st_size


def test_readme_lines_run_as_a_script(user_python, folder, tmp_path):
    """The script lies in a folder that has no mmdf2 in it."""
    script = tmp_path / 'script.py'
    script.write_text(readme_lines(tmp_path / 'found'))
    run([user_python, script], folder)
    assert list((tmp_path / 'found/pictures').iterdir())


def test_a_module_and_a_notebook_import_the_same_code(user_python, folder):
    """A kernel is started as a module, which puts the folder's whole path first, and reads its cells from a pipe."""
    cell = 'import mmdf2.apis; print("from", mmdf2.__file__)'
    expected = f'from {ROOT / "mmdf2/__init__.py"}\n'
    assert run([user_python, '-m', 'timeit', '-n', '1', '-r', '1', cell], folder).startswith(expected)
    assert run([user_python, '-'], folder, input=cell) == expected


@pytest.fixture(scope='module')
def mim(user_python) -> Path:
    found = user_python.with_name('mim')
    if not found.exists():
        pytest.skip('mim is not installed on the original line of OpenMMLab')
    return found


def test_mim_uses_the_configs_and_tools_of_the_checkout(mim, folder):
    """The training ends as soon as it looks for its dataset; mim tells before that what it starts."""
    output = run([mim, 'train', 'mmdf2', MIM, '--cfg-options', 'train_dataloader.dataset.data_root=none'], folder, 1)
    found = f'will use {next((ROOT / "configs").rglob(MIM))} instead'
    assert found in output
    assert f'Training command is {mim.with_name("python")} {ROOT / "mmdf2/.mim/tools/train.py"} ' in output
    assert Path(MIM).stem in run([mim, 'search', 'mmdf2', '--valid-config'], folder)


def test_mim_is_pointed_at_the_package(user_python):
    code = 'import importlib.metadata as m; print(m.distribution("mmdf2").read_text("direct_url.json"))'
    record = json.loads(run([user_python, '-I', '-c', code], ROOT))
    assert record == {'dir_info': {'editable': True}, 'url': (ROOT / 'mmdf2').as_uri()}

"""`make install` without its long parts: refusals, notes, marks, and the cache of mmcv's wheels."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / 'scripts'
sys.path.insert(0, str(SCRIPTS))

import environment  # noqa: E402
import gpu_build  # noqa: E402
import install  # noqa: E402
import mmcv_wheel  # noqa: E402
from gpu_build import CudaBuild  # noqa: E402


@pytest.fixture
def venv(tmp_path):
    """An environment with an interpreter that may be called, and notes."""
    made = environment.Environment(tmp_path / 'venv')
    made.python.parent.mkdir(parents=True)
    made.python.symlink_to(sys.executable)
    with made.locked():
        made.note(stack='onedl', libraries='as pinned')
        yield made


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').touch()
    with pytest.raises(install.InstallError, match=f'VENV={tmp_path} exists and is not a virtual environment'):
        install.check_folder(tmp_path)
    assert (tmp_path / 'thesis.tex').exists()


def test_an_environment_is_gone_on_with(venv):
    assert venv.is_usable('onedl')
    assert venv.notes()['libraries'] == 'as pinned'


def test_the_other_line_needs_a_new_environment(venv):
    assert not venv.is_usable('openmmlab')


def test_another_python_needs_a_new_environment(venv, monkeypatch):
    monkeypatch.setattr(sys, 'version', '3.99')
    assert venv.notes() == {}
    assert not venv.is_usable('onedl')


def test_an_environment_made_by_hand_is_not_emptied(venv):
    (venv.state / 'notes.json').unlink()
    assert venv.is_usable('onedl') and venv.is_usable('openmmlab')


def test_a_killed_pip_leaves_a_mark(venv):
    with pytest.raises(KeyboardInterrupt), venv.marked_unfinished():
        raise KeyboardInterrupt
    assert not venv.is_usable('onedl')


def test_a_failed_pip_leaves_none(venv):
    with pytest.raises(subprocess.CalledProcessError), venv.marked_unfinished():
        raise subprocess.CalledProcessError(1, 'pip')
    assert venv.is_usable('onedl')


def test_broken_notes_are_no_notes(venv):
    (venv.state / 'notes.json').write_text('{"stack": ')
    assert venv.notes() == {}


def test_sources_without_what_is_compiled():
    files = install.source_files(*install.SOURCES)
    assert SCRIPTS.parent / 'mmdf2/stack.py' in files
    assert not [file for file in files if file.suffix in ('.so', '.pyc')]


def test_the_digest_knows_names_and_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(install, 'ROOT', tmp_path)
    first, second = tmp_path / 'a', tmp_path / 'b'
    first.write_text('1')
    second.write_text('1')
    digests = {install.digest_of([first]), install.digest_of([second]), install.digest_of([first, second])}
    second.write_text('2')
    assert len(digests | {install.digest_of([second])}) == 4


@pytest.fixture
def pins(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    file = tmp_path / 'onedl.txt'
    file.write_text('# the line\nonedl-mmengine==0.10.12\nonedl-mmcv==2.3.6\n')
    return file


def test_mmcv_is_built_once_for_each_torch_and_device(pins, monkeypatch):
    built = []

    def build(python, pin, folder, cuda, variables, held):
        built.append((pin, cuda))
        (folder / f'{len(built)}.whl').touch()
        return folder / f'{len(built)}.whl'

    monkeypatch.setattr(mmcv_wheel, 'build', build)
    cuda = CudaBuild('13.0', '8.0;9.0+PTX')
    wheels = [mmcv_wheel.get(Path(), pins, '2.13.0+cpu', None, {}) for _ in range(2)]
    others = [
        mmcv_wheel.get(Path(), pins, *different, {})
        for different in [('2.14.1+cpu', None), ('2.13.0', cuda), ('2.13.0', CudaBuild('13.0', '9.0+PTX'))]
    ]
    assert wheels[0] == wheels[1] and len({wheels[0], *others}) == 4
    assert built[0] == ('onedl-mmcv==2.3.6', None) and built[2] == ('onedl-mmcv==2.3.6', cuda)


@pytest.mark.parametrize(
    ('cuda', 'variables'),
    [
        (None, {'FORCE_CUDA': '0', 'CUDA_VISIBLE_DEVICES': ''}),
        (CudaBuild('13.0', '9.0+PTX'), {'FORCE_CUDA': '1', 'TORCH_CUDA_ARCH_LIST': '9.0+PTX'}),
    ],
)
def test_mmcv_is_compiled_for_what_was_decided(cuda, variables, tmp_path, monkeypatch, capsys):
    seen = {}

    def compile_it(command, log, environment, held):
        seen.update(environment)
        wheel = tmp_path / 'build/wheel/mmcv.whl'
        wheel.parent.mkdir()
        wheel.touch()

    monkeypatch.setattr(mmcv_wheel, 'unpack', lambda *_: tmp_path)
    monkeypatch.setattr(mmcv_wheel, 'run_with_progress', compile_it)
    mmcv_wheel.build(Path(), 'onedl-mmcv==2.3.6', tmp_path, cuda, {'MAX_JOBS': '2'}, 0)
    assert seen == {'MAX_JOBS': '2', 'MMCV_WITH_OPS': '1', **variables}
    assert gpu_build.describe(cuda) in capsys.readouterr().out


def test_progress_counts_compiled_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mmcv_wheel, 'SECONDS_BETWEEN_LINES', 0)
    lines = 'print("  [7/78] c++ -MMD"); print("a warning"); print("[8/78] c++")'
    with environment.lock(tmp_path / 'lock', 'the test') as held:
        mmcv_wheel.run_with_progress([sys.executable, '-c', lines], tmp_path / 'log', None, held)
    assert '7 of 78 files' in capsys.readouterr().out
    assert 'a warning' in (tmp_path / 'log').read_text()


def test_progress_tells_how_long_is_left():
    assert mmcv_wheel.progress(20, 80, 120).strip() == 'mmcv: 20 of 80 files compiled in 2.0 min, about 6.0 min left'


def test_every_stage_says_how_long_it_usually_takes(capsys):
    install.say('libraries', '1 min')
    assert capsys.readouterr().out == 'make install: libraries (usually 1 min)\n'


def test_what_setuptools_left_is_removed_and_compiled_objects_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(install, 'ROOT', tmp_path)
    for name in ('build/lib', 'build/lib.linux', 'build/bdist.linux', 'build/temp.linux', 'mmdf2.egg-info', 'mmdf2'):
        (tmp_path / name).mkdir(parents=True)
    install.remove_leftovers()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*')) == [
        'build',
        'build/temp.linux',
        'mmdf2',
    ]


def test_mim_is_pointed_at_the_package_of_an_editable_installation(tmp_path):
    record = tmp_path / 'mmdf2-0.1.0.dist-info/direct_url.json'
    record.parent.mkdir()
    record.write_text(json.dumps({'dir_info': {'editable': True}, 'url': install.ROOT.as_uri()}))
    install.point_mim_at_the_package(tmp_path)
    expected = {'dir_info': {'editable': True}, 'url': (install.ROOT / 'mmdf2').as_uri()}
    assert json.loads(record.read_text()) == expected


def test_a_failed_build_shows_the_end_of_its_log(tmp_path):
    code = 'print("error: no space left"); raise SystemExit(1)'
    with (
        environment.lock(tmp_path / 'lock', 'the test') as held,
        pytest.raises(mmcv_wheel.BuildError, match=r'log:\n.*no space left'),
    ):
        mmcv_wheel.run_with_progress([sys.executable, '-c', code], tmp_path / 'log', None, held)


def test_the_lock_stays_with_the_program_when_its_starter_is_gone(tmp_path):
    code = 'import sys; print("at work", flush=True); sys.stdin.read()'
    with environment.lock(tmp_path / 'lock', 'the test') as held:
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
        orphan = subprocess.Popen([sys.executable, '-c', code], pass_fds=[held], **pipes)
    orphan.stdout.readline()
    with open(tmp_path / 'lock') as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        orphan.communicate()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

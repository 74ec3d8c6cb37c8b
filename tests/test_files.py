"""Atomic writes, locks and usable cores: what is left when a process is killed, and what two processes do at once."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmdf2 import files


def python(code: str, *arguments) -> subprocess.Popen:
    """Starts a Python process that knows ``files``."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, '-c', 'import os, signal, sys, time\nfrom mmdf2 import files\n' + code]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def calls(monkeypatch) -> list:
    """What is flushed and renamed, in order."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        calls.append(('flush', os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))))
        fsync(descriptor)

    def noted_replace(source, target):
        calls.append(('rename', os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', noted_fsync)
    monkeypatch.setattr(os, 'replace', noted_replace)
    return calls


def test_content_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / 'made/for/it.txt'
    files.write_text(path, 'old\n')
    files.write_text(path, 'né\n')
    assert path.read_bytes() == b'n\xc3\xa9\n'
    files.write_bytes(path, b'\x00')
    assert path.read_bytes() == b'\x00' and names(path.parent) == ['it.txt']


def test_a_writer_that_needs_a_path_gets_one_with_the_suffix(tmp_path):
    with files.path_beside(tmp_path / 'a.npy') as beside:
        assert beside.suffix == '.npy' and files.is_unfinished(beside.name)
        np.save(beside, np.arange(3))
    assert np.load(tmp_path / 'a.npy').tolist() == [0, 1, 2] and names(tmp_path) == ['a.npy']


@pytest.mark.parametrize('durable', [True, False])
def test_an_error_keeps_the_old_content(tmp_path, durable):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def fail():
        with files.open_for_replacement(path, durable=durable) as file:
            file.write('half')
            file.flush()
            raise KeyError('in the middle')

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == 'old' and names(tmp_path) == ['a.txt']


def test_content_is_on_the_disk_before_it_has_the_name(tmp_path, calls):
    files.write_text(tmp_path / 'a.txt', 'x')
    (flushed, beside), *rest = calls
    assert flushed == 'flush' and files.is_unfinished(beside)
    assert rest == [('rename', 'a.txt'), ('flush', tmp_path.name)]


def test_what_need_not_be_durable_is_not_flushed(tmp_path, calls):
    files.write_bytes(tmp_path / 'a.jpg', b'x', durable=False)
    assert calls == [('rename', 'a.jpg')]


KILLED_WHILE_WRITING = """
with files.open_for_replacement(sys.argv[1]) as file:
    file.write('half of it')
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_BEFORE_THE_RENAME = """
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
files.write_text(sys.argv[1], 'all of it')
"""
KILLED_AFTER_THE_RENAME = """
files.flush_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
files.write_text(sys.argv[1], 'all of it')
"""


@pytest.mark.parametrize(
    ('code', 'content', 'leftovers'),
    [
        (KILLED_WHILE_WRITING, 'old', 1),
        (KILLED_BEFORE_THE_RENAME, 'old', 1),
        (KILLED_AFTER_THE_RENAME, 'all of it', 0),
    ],
)
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path, code, content, leftovers):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    assert python(code, path).wait(60) == -signal.SIGKILL
    assert path.read_text() == content
    left = [name for name in names(tmp_path) if name != 'a.txt']
    assert len(left) == leftovers and all(files.is_unfinished(name) for name in left)
    files.write_text(path, 'again')
    assert path.read_text() == 'again'


def test_a_name_can_contain_the_hash_of_the_content(tmp_path, calls):
    path, digest = files.write_named_by_hash(tmp_path / 'a.bin', lambda beside: beside.write_bytes(b'x'))
    assert digest == hashlib.sha256(b'x').hexdigest() and path == tmp_path / f'a-{digest[:16]}.bin'
    assert path.read_bytes() == b'x' and names(tmp_path) == [path.name]
    assert [call for call, _ in calls] == ['flush', 'rename'] and calls[1] == ('rename', path.name)

    def fail(beside):
        beside.write_bytes(b'half')
        raise KeyError

    with pytest.raises(KeyError):
        files.write_named_by_hash(tmp_path / 'a.bin', fail)
    assert names(tmp_path) == [path.name]


def test_ordinary_names_are_not_unfinished():
    assert not any(files.is_unfinished(name) for name in ('a.txt', '.a.txt', 'a.unfinished.txt', '.train.store.lock'))


WRITER = """
for number in range(150):
    files.write_bytes(sys.argv[1], sys.argv[2].encode() * 20000, durable=False)
"""


def test_two_writers_never_show_a_mixture(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'0' * 20000)
    writers = [python(WRITER, path, digit) for digit in (1, 2)]
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert len(content) == 20000 and len(set(content)) == 1
    assert [writer.returncode for writer in writers] == [0, 0] and names(tmp_path) == ['a.txt']


def test_json_has_no_word_for_nan(tmp_path):
    path = tmp_path / 'a.json'
    files.write_json(path, {'b': [1, None]})
    assert path.read_text() == '{\n "b": [\n  1,\n  null\n ]\n}\n'
    files.write_json(path, {'b': 1, 'a': 2}, indent=None, sort_keys=True)
    assert path.read_text() == '{"a": 2, "b": 1}\n'
    for value in (float('nan'), float('inf')):
        with pytest.raises(ValueError, match='not JSON compliant'):
            files.write_json(path, {'a': value})
    assert json.loads(path.read_text()) == {'a': 2, 'b': 1}


@pytest.mark.parametrize(
    ('entries', 'end', 'text'),
    [
        ([], '\n]', '[\n]'),
        ([{'a': 1}, 2], '\n]', '[\n{"a": 1},\n2\n]'),
        ([1, 2], ']', '[\n1,\n2]'),
    ],
)
def test_json_list_has_one_entry_per_line(tmp_path, entries, end, text):
    with files.open_for_replacement(tmp_path / 'a.json') as file:
        files.write_json_list(file, iter(entries), end=end)
    assert (tmp_path / 'a.json').read_text() == text and json.loads(text) == entries


def test_json_list_writes_entries_as_they_come(tmp_path):
    seen = []

    def entries():
        for number in range(3):
            seen.append(file.tell())
            yield number

    with files.open_for_replacement(tmp_path / 'a.json') as file:
        files.write_json_list(file, entries())
    assert seen == [1, 3, 6]


def test_a_file_that_grew_in_sight_gets_its_name(tmp_path, calls):
    (tmp_path / 'a.jsonl.partial').write_text('what a killed process left, longer than what comes')
    with files.open_growing(tmp_path / 'a.jsonl') as file:
        file.write('1\n')
        file.flush()
        assert (tmp_path / 'a.jsonl.partial').read_text() == '1\n'
        file.write('é\n')
    assert names(tmp_path) == ['a.jsonl'] and (tmp_path / 'a.jsonl').read_bytes() == b'1\n\xc3\xa9\n'
    assert calls == [('flush', 'a.jsonl.partial'), ('rename', 'a.jsonl'), ('flush', tmp_path.name)]


def test_a_file_that_did_not_end_well_keeps_what_was_written_beside_the_old_one(tmp_path):
    (tmp_path / 'a.jsonl').write_text('old')
    with pytest.raises(ZeroDivisionError), files.open_growing(tmp_path / 'a.jsonl') as file:
        file.write('new')
        file.write(str(1 / 0))
    assert (tmp_path / 'a.jsonl').read_text() == 'old' and (tmp_path / 'a.jsonl.partial').read_text() == 'new'


def test_two_processes_never_write_one_growing_file(tmp_path):
    code = """
with files.open_growing(sys.argv[1]) as file:
    file.write('other')
    file.flush()
    print('writing', flush=True)
    time.sleep(60)
"""
    other = python(code, tmp_path / 'a.jsonl')
    try:
        assert other.stdout.readline() == 'writing\n'
        with pytest.raises(FileExistsError, match='another process is writing it'):
            files.open_growing(tmp_path / 'a.jsonl').__enter__()
        assert (tmp_path / 'a.jsonl.partial').read_text() == 'other'
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
    with files.open_growing(tmp_path / 'a.jsonl') as file:
        file.write('mine')
    assert (tmp_path / 'a.jsonl').read_text() == 'mine'


def test_a_file_grows_where_there_are_no_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, 'no locks')

    monkeypatch.setattr(files.fcntl, 'flock', refuse)
    with files.open_growing(tmp_path / 'a.jsonl') as file:
        file.write('mine')
    assert (tmp_path / 'a.jsonl').read_text() == 'mine'


@pytest.mark.parametrize('exists', [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, calls, exists):
    new, folder = tmp_path / 'new', tmp_path / 'folder'
    (new / 'inner').mkdir(parents=True)
    (new / 'inner/b.txt').write_text('new')
    if exists:
        folder.mkdir()
        (folder / 'a.txt').write_text('old')
    files.replace_folder(new, folder)
    assert (folder / 'inner/b.txt').read_text() == 'new' and not (folder / 'a.txt').exists()
    assert names(tmp_path) == ['folder']
    renames = [('rename', '.folder.old'), ('rename', 'folder')] if exists else [('rename', 'folder')]
    assert calls == [('flush', 'new'), ('flush', 'b.txt'), ('flush', 'inner'), *renames, ('flush', tmp_path.name)]


KILLED_BETWEEN_THE_RENAMES = """
from pathlib import Path
root, replace = Path(sys.argv[1]), os.replace
def killed(source, target):
    if Path(target).name == 'folder':
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
files.replace_folder(root / 'new', root / 'folder')
"""


def test_a_folder_that_was_killed_on_its_way_arrives_the_next_time(tmp_path):
    for name in ('new', 'folder'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'a.txt').write_text(name)
    assert python(KILLED_BETWEEN_THE_RENAMES, tmp_path).wait(60) == -signal.SIGKILL
    assert names(tmp_path) == ['.folder.old', 'new']
    assert (tmp_path / '.folder.old/a.txt').read_text() == 'folder'
    files.replace_folder(tmp_path / 'new', tmp_path / 'folder')
    assert (tmp_path / 'folder/a.txt').read_text() == 'new' and names(tmp_path) == ['folder']


def test_a_deleted_folder_is_gone_at_once(tmp_path, monkeypatch):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder/a.txt').write_text('x')
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, 'rmtree', lambda *args, **options: None)  # as if killed while deleting
        files.delete_folder(tmp_path / 'folder')
    assert not (tmp_path / 'folder').exists() and names(tmp_path) == ['.folder.deleted']
    (tmp_path / 'folder').mkdir()
    files.delete_folder(tmp_path / 'folder')
    assert names(tmp_path) == []


def test_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / 'a').write_bytes(content)
    assert files.sha256(tmp_path / 'a') == hashlib.sha256(content).hexdigest()


HOLDER = """
with files.locked(sys.argv[1], on_wait=lambda: print('waiting', flush=True)):
    print('holding', flush=True)
    time.sleep(600)
"""


def test_one_process_at_a_time_holds_a_lock_and_a_kill_frees_it(tmp_path):
    path = tmp_path / 'made/for/a.lock'
    first = python(HOLDER, path)
    assert first.stdout.readline() == 'holding\n'
    second = python(HOLDER, path)
    assert second.stdout.readline() == 'waiting\n'
    assert path.exists()
    first.kill()
    assert second.stdout.readline() == 'holding\n'
    second.kill()
    for process in (first, second):
        process.communicate()
    begin = time.monotonic()
    with files.locked(path, on_wait=lambda: pytest.fail('nobody holds it')):
        pass
    assert time.monotonic() - begin < 1


def test_an_error_in_the_block_frees_the_lock(tmp_path):
    def fail():
        with files.locked(tmp_path / 'a.lock'):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with files.locked(tmp_path / 'a.lock', on_wait=lambda: pytest.fail('nobody holds it')):
        pass


INCREMENTS = """
for _ in range(200):
    with files.locked(sys.argv[1] + '.lock'):
        count = int(open(sys.argv[1]).read())
        files.write_bytes(sys.argv[1], str(count + 1).encode(), durable=False)
"""


def test_locked_increments_are_never_lost(tmp_path):
    (tmp_path / 'count').write_text('0')
    processes = [python(INCREMENTS, tmp_path / 'count') for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / 'count').read_text() == '600'


def test_a_thread_that_holds_a_lock_gets_it_again_and_others_wait(tmp_path):
    path, order = tmp_path / 'a.lock', []

    def other():
        with files.locked(path, on_wait=lambda: order.append('waits')):
            order.append('other')

    with files.locked(path):
        with files.locked(tmp_path / '.' / 'a.lock', on_wait=lambda: pytest.fail('this thread holds it')):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        order.append('first')
    thread.join()
    assert order == ['waits', 'first', 'other']


FORKING = """
with files.locked(sys.argv[1]):
    if os.fork() == 0:
        print('child', flush=True)
    time.sleep(600)
"""


def test_a_process_forked_from_the_holder_does_not_keep_the_lock(tmp_path):
    process = python(FORKING, tmp_path / 'a.lock')
    assert process.stdout.readline() == 'child\n'
    process.kill()
    process.wait()
    with files.locked(tmp_path / 'a.lock', on_wait=lambda: pytest.fail('only the child is left')):
        pass
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_lock_whose_file_was_deleted_meanwhile_is_taken_on_the_new_one(tmp_path):
    path = tmp_path / 'folder' / 'a.lock'
    first = python(HOLDER, path)
    assert first.stdout.readline() == 'holding\n'
    second = python(HOLDER, path)
    assert second.stdout.readline() == 'waiting\n'
    path.unlink()
    path.parent.rmdir()
    first.kill()
    assert second.stdout.readline() == 'holding\n'
    third = python(HOLDER, path)
    assert third.stdout.readline() == 'waiting\n', 'the second holds the file of that name'
    for process in (first, second, third):
        process.kill()
        process.communicate()


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='this system does not confine processes to cores')
def test_usable_cores_are_those_the_process_is_confined_to():
    assert files.usable_cores() == len(os.sched_getaffinity(0))
    code = 'os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nprint(files.usable_cores())'
    assert python(code).communicate(timeout=60)[0] == '1\n'

"""Several processes and threads that change one gallery at once, and readers meanwhile."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mmdf2 import files
from mmdf2.retrieval import FaissGallery, GalleryError, GalleryItem, MilvusGallery, create_gallery
from mmdf2.retrieval.local.folder import LOCK, MANIFEST, write_folder

from .made_gallery import make_numbered, make_similarity, numbers_in
from .saver import content

CHANGER = Path(__file__).with_name('changer.py')


def start(*arguments) -> subprocess.Popen:
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(CHANGER), *map(str, arguments)]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes)


@pytest.fixture(name='folder')
def fixture_folder(tmp_path) -> Path:
    """A gallery of the items 0 to 99, whose embeddings and fields hold their numbers."""
    make_numbered(tmp_path / 'g', 100)
    return tmp_path / 'g'


def test_no_change_of_several_processes_is_lost_and_readers_see_whole_saves(folder):
    jobs = [('remove', folder, 0, 20), ('remove', folder, 50, 20), ('add', folder, 200, 20)]
    processes = [start(*job) for job in jobs]
    reads, possible = 0, set(range(100)) | set(range(200, 220))
    while any(process.poll() is None for process in processes):
        found = numbers_in(folder)
        # What is removed is so from the first number on, and never comes back.
        gone = {number for number in range(20) if number not in found}
        assert found <= possible and gone == set(range(len(gone)))
        possible &= found | set(range(200, 220))
        reads += 1
    assert [process.communicate()[1] or process.returncode for process in processes if process.returncode] == []
    assert reads > 0 and numbers_in(folder) == set(range(20, 50)) | set(range(70, 100)) | set(range(200, 220))
    assert {path.name.partition('-')[0] for path in folder.iterdir()} == {
        'ids', 'items', 'vectors', 'similarity', MANIFEST, LOCK
    }  # fmt: skip


def test_a_writer_waits_and_says_so_and_a_kill_lets_it_go_on(folder):
    holder = start('hold', folder)
    assert holder.stdout.readline() == 'holding\n'
    waiting = start('remove', folder, 7, 1)
    assert f'another process is changing {folder}; waiting for it to end' in waiting.stderr.readline()
    assert numbers_in(folder) == set(range(100)), 'readers do not wait'
    assert waiting.poll() is None
    holder.kill()
    assert waiting.communicate(timeout=120)[0] == '7\n' and waiting.returncode == 0
    holder.communicate()
    assert numbers_in(folder) == set(range(100)) - {7}


def test_a_save_from_python_takes_the_same_lock(folder):
    holder = start('hold', folder)
    assert holder.stdout.readline() == 'holding\n'
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (write_folder(folder, content(3)), ended.set()))
    thread.start()
    assert not ended.wait(0.3) and len(numbers_in(folder)) == 100
    holder.communicate('\n')
    thread.join()
    assert ended.is_set() and len(FaissGallery.load(folder)) == 203


def test_a_save_that_would_undo_the_changes_of_others_is_refused(folder):
    mine, theirs = FaissGallery.load(folder), FaissGallery.load(folder)
    mine.remove([1])
    with theirs.changing():
        theirs.remove([2])
    with pytest.raises(GalleryError, match='was changed by another process after this gallery was read'):
        mine.save()
    with pytest.raises(GalleryError, match=r'open the gallery anew and change it within'), mine.changing():
        pytest.fail('the changes of one of the two would be lost')
    assert numbers_in(folder) == set(range(100)) - {2}
    mine = FaissGallery.load(folder)
    with theirs.changing():
        theirs.remove([3])
    with mine.changing():
        assert mine.present([2, 3, 4]) == {4}
        mine.remove([4])
    mine.save()
    assert numbers_in(folder) == set(range(100)) - {2, 3, 4}


def test_an_error_in_the_block_saves_nothing(folder):
    gallery = FaissGallery.load(folder)
    with pytest.raises(KeyError), gallery.changing():
        gallery.remove([1])
        raise KeyError
    assert numbers_in(folder) == set(range(100))
    assert start('remove', folder, 5, 1).communicate(timeout=120)[0] == '5\n', 'the lock is free'


def test_of_two_galleries_made_at_one_place_the_later_is_refused(tmp_path):
    similarity = make_similarity(np.random.default_rng(0), width=8)
    first, second = (create_gallery(tmp_path / 'g', similarity, name) for name in ('first', 'second'))
    first.save()
    with pytest.raises(GalleryError, match='is a gallery already, which another process has built'):
        second.save()
    with pytest.raises(GalleryError, match='is a gallery already'), second.changing():
        pytest.fail('nothing may be changed')
    assert FaissGallery.load(tmp_path / 'g').model == 'first'


def test_threads_take_turns(folder):
    gallery = FaissGallery.load(folder)

    def change(first: int) -> None:
        for number in range(first, first + 5):
            with gallery.changing():
                gallery.remove([number])
            FaissGallery.load(folder).counts()

    threads = [threading.Thread(target=change, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = set(range(100)) - {*range(5), *range(10, 15), *range(20, 25)}
    assert set(gallery.items(range(100))) == numbers_in(folder) == left


def test_a_writer_without_the_lock_is_noticed(folder, monkeypatch):
    gallery = FaissGallery.load(folder)
    write = files.write_named_by_hash

    def interrupted(path, writer):
        text = (folder / MANIFEST).read_text()
        (folder / MANIFEST).write_text(text.replace('"model": "model"', '"model": "changed"'))
        return write(path, writer)

    monkeypatch.setattr('mmdf2.retrieval.local.folder.write_named_by_hash', interrupted)
    with pytest.raises(GalleryError, match=r'was changed while it was being saved, by a process that does not lock it'):
        gallery.save()
    assert FaissGallery.load(folder).model == 'changed'


@pytest.mark.parametrize(
    ('mount', 'refused'),
    [
        ('nfs4 host:/shop rw,vers=4.2,local_lock=none', False),
        ('nfs host:/shop rw,vers=3,nolock,local_lock=all', True),
        ('nfs host:/shop rw,vers=3,local_lock=flock', True),
        ('cifs //host/shop rw,nobrl', True),
        ('fuse.sshfs host:/shop rw,user_id=0', True),
        ('ext4 /dev/vda rw', False),
    ],
)
def test_a_network_folder_is_safe_or_refused(folder, tmp_path, monkeypatch, mount, refused):
    device = folder.stat().st_dev
    line = f'40 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - {mount}\n'
    (tmp_path / 'mountinfo').write_text(f'22 1 7:99 / /snap ro - nfs4 other rw,local_lock=all\n{line}')
    monkeypatch.setattr(files, '_MOUNTS', str(tmp_path / 'mountinfo'))
    gallery = FaissGallery.load(folder)
    vectors, _ = gallery.partition_arrays(1)
    # A file that is removed by another machine must not be mapped.
    mapped = isinstance(vectors, np.memmap) or isinstance(vectors.base, np.memmap)
    assert mapped == mount.startswith('ext4')
    gallery.remove([1])
    if refused:
        with pytest.raises(GalleryError, match=r'cannot be locked .* other machines do not see; use a local'):
            gallery.save()
    else:
        gallery.save()
    assert len(numbers_in(folder)) == 99 + refused


def test_a_file_system_without_locks_is_refused(folder, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(files.fcntl, 'flock', none)
    with pytest.raises(GalleryError, match=r'g cannot be locked against other writers: .*lock: No locks available'):
        FaissGallery.load(folder).save()


def test_writers_in_milvus_wait_for_each_other(small):
    gallery, path = small
    with gallery.changing():
        ids = gallery.add(np.ones((2, 32), np.float32), [GalleryItem(f'{row}', (0, 0, 1, 1), 1) for row in range(2)])
    lock = path.with_name(f'.{path.name}.lock')
    removed = threading.Thread(target=lambda: gallery.remove(ids[:1]))
    with files.locked(lock):
        removed.start()
        removed.join(0.3)
        assert removed.is_alive() and len(gallery) == 2
        with pytest.raises(GalleryError, match="there is a gallery 'gallery'"):
            MilvusGallery.create(path, gallery.similarity)
    removed.join()
    assert len(gallery) == 1

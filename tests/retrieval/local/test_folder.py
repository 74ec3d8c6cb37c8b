"""A gallery's folder after kills at random moments, and with files that are cut, changed or hostile."""

import hashlib
import json
import os
import pickle
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.local.folder import LOCK, MANIFEST, read_folder, write_folder
from mmdf2.retrieval.local.gallery import FaissGallery

from ..made_gallery import assert_damage_is_named, make_similarity
from ..saver import content

SAVER = Path(__file__).parents[1] / 'saver.py'


def number_of(folder) -> int:
    """The number that all files of a gallery agree on."""
    stored = read_folder(folder)
    number = int(stored.model)
    count = 200 + number % 7
    assert (stored.vectors == number).all() and len(stored.vectors) == count == stored.next_id
    assert (stored.similarity.weight == number).all() and stored.ids.tolist() == list(range(count))
    assert {item.fields['of'] for item in stored.items.get(range(count)).values()} == {number}
    assert len(stored.items) == count
    return number


@pytest.mark.slow
def test_a_hundred_kills_leave_the_old_gallery_or_the_new_one(tmp_path):
    folder, dice = tmp_path / 'g', random.Random(0)
    write_folder(folder, content(0))
    start = time.monotonic()
    write_folder(folder, content(0))
    # A busy disk takes longer; the kills come during the first save and the second.
    longest = max(0.06, 2 * (time.monotonic() - start))
    last, interrupted = 0, 0
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    for _ in range(100):
        command = [sys.executable, str(SAVER), str(folder), str(last + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout.readline() == 'ready\n'
        time.sleep(dice.uniform(0, longest))
        process.kill()
        saved = [int(line) for line in process.stdout.read().split()]
        process.wait()
        found = number_of(folder)
        # It is one more when the kill came after the manifest was renamed and before the number was printed.
        assert found - max([last, *saved]) in (0, 1)
        interrupted += len(set(folder.iterdir()) - {folder / LOCK}) > 5
        last = found
    assert last > 20 and interrupted > 20, 'the kills came at no telling moments'
    write_folder(folder, content(last + 1))
    assert len(set(folder.iterdir()) - {folder / LOCK}) == 5, 'what was left over is removed'


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
    write_folder(tmp_path / 'g', content(5))
    assert number_of(tmp_path / 'g') == 5
    return tmp_path / 'g'


def data_files(folder):
    return sorted(path for path in folder.iterdir() if path.name not in (MANIFEST, LOCK))


@pytest.mark.parametrize('place', range(4))
def test_a_cut_changed_or_missing_file_is_named(folder, place):
    path = data_files(folder)[place]
    assert_damage_is_named(path)
    path.unlink()
    with pytest.raises(GalleryError, match=rf'{path.name} cannot be read: No such file.* build the gallery anew'):
        read_folder(folder)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'format': 'other'}, 'is not the manifest of a gallery'),
        ({'version': 3}, 'is of version 3, this mmdf2 reads 1 and 2'),
        ({'version': True}, 'is of version True'),
        ({'version': 2}, 'files is'),
        ({'counts': [1] * 12}, 'counts is'),
        ({'counts': [-1] * 13}, 'counts is'),
        ({'counts': [1] * 13}, 'do not fit together'),
        ({'next_id': 10}, 'the ids of a category do not rise from 0 to below 10'),
        ({'next_id': 1e9}, 'next_id is'),
        ({'similarity': 'f' * 16}, 'holds another similarity than'),
        ({'files': {}}, 'files is'),
        ({'model': None}, 'model is'),
    ],
)
def test_a_manifest_that_does_not_fit(folder, change, message):
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(GalleryError, match=message):
        read_folder(folder)


@pytest.mark.parametrize('name', ['../../etc/passwd', '/etc/passwd', 'vectors-0.npy', 'items-0123456789abcdef.npy', 7])
def test_a_manifest_reaches_no_other_file(folder, name):
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest['files']['vectors']['name'] = name
    path.write_text(json.dumps(manifest))
    with pytest.raises(GalleryError, match=r'the name of vectors is .* no file of a gallery'):
        read_folder(folder)


@pytest.mark.parametrize('text', ['', '{', '[]', '"x"', '[' * 100_000, ' ' * (1 << 21)])
def test_a_manifest_that_is_none(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(GalleryError, match=r'manifest\.json'):
        read_folder(folder)


class Exploit:
    """An object that leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path('exploited'),))


def test_nothing_in_a_file_is_executed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = next(path for path in data_files(folder) if path.name.startswith('vectors'))
    with open(path, 'wb') as file:
        np.lib.format.write_array(file, np.array([Exploit()], dtype=object), allow_pickle=True)
    replace_hash(folder, 'vectors', path)
    with pytest.raises(GalleryError, match='is no array'):
        read_folder(folder)
    path.write_bytes(pickle.dumps(Exploit()))
    replace_hash(folder, 'vectors', path)
    with pytest.raises(GalleryError, match='is no array'):
        read_folder(folder)
    assert not (tmp_path / 'exploited').exists()


@pytest.mark.parametrize('array', [np.zeros((4, 8)), np.zeros(8, np.float32), np.zeros((4, 7), np.float32)])
def test_arrays_that_do_not_fit(folder, array):
    path = next(path for path in data_files(folder) if path.name.startswith('vectors'))
    np.save(path, array)
    replace_hash(folder, 'vectors', path)
    with pytest.raises(GalleryError, match=r'must be a float32 array of 2 dimensions|do not fit together'):
        read_folder(folder)


@pytest.mark.parametrize(
    ('statement', 'message'),
    [
        ('UPDATE items SET id = 1000 WHERE id = 7', 'has other items than ids'),
        ('UPDATE items SET category = 2 WHERE id = 7', 'has other items than ids'),
        ('DELETE FROM items WHERE id = 7', 'do not fit together'),
        ('CREATE VIEW other AS SELECT * FROM items', 'holds other things than a table items'),
        (
            'CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END',
            'holds other things than a table items',
        ),
        ('ALTER TABLE items ADD COLUMN more TEXT', 'has a table items of'),
    ],
)
def test_a_table_that_does_not_fit(folder, statement, message):
    path = next(path for path in data_files(folder) if path.name.startswith('items'))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()
    replace_hash(folder, 'items', path)
    with pytest.raises(GalleryError, match=message):
        read_folder(folder)


def replace_hash(folder, role, path):
    """Makes the manifest agree with a changed file."""
    manifest = json.loads((folder / MANIFEST).read_text())
    entry = manifest['files'][role]
    entry['size'], entry['sha256'] = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_another_model_s_gallery_is_refused_naming_both(folder):
    mine = make_similarity(np.random.default_rng(0), width=8)
    theirs = read_folder(folder).similarity
    with pytest.raises(GalleryError) as caught:
        FaissGallery.load(folder, mine)
    message = str(caught.value)
    assert "model '5'" in message and mine.fingerprint() in message and theirs.fingerprint() in message
    assert len(FaissGallery.load(folder, theirs)) == 205


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / 'photo.jpg').write_text('x')
    with pytest.raises(GalleryError, match=r'holds photo\.jpg, which is of no gallery'):
        write_folder(tmp_path, content(1))
    assert [path.name for path in tmp_path.iterdir()] == ['photo.jpg']
    with pytest.raises(GalleryError, match='is no gallery: there is no manifest'):
        read_folder(tmp_path)

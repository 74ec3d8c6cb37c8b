import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmdf2.datasets import prepare as prepare_module
from mmdf2.datasets.annotation import AnnotationError, ImageAnnotation, read_annotation
from mmdf2.datasets.deepfashion2 import DeepFashion2Dataset
from mmdf2.datasets.freshness import CHECKED, differing_files
from mmdf2.datasets.listing import list_split, signature
from mmdf2.datasets.prepare import (
    PrepareError,
    image_size,
    open_annotation,
    open_or_prepare,
    prepare,
    read_columns,
)
from mmdf2.datasets.store import Store, StoreError
from mmdf2.evaluation.truth import open_truth


@pytest.fixture
def root(tiny_root, tmp_path):
    """A copy of the training images that a test may break."""
    shutil.copytree(tiny_root / 'train', tmp_path / 'train')
    return tmp_path


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(prepare_module, 'IMAGES_PER_PART', 5)


def assert_store_equals_files(store, root, split):
    names = sorted(path.name for path in (root / split / 'annos').iterdir())
    assert [f'{image_id:06d}.json' for image_id in store.image_ids] == names
    for index, name in enumerate(names):
        record = store.image(index)
        with Image.open(root / split / 'image' / record.file_name) as image:
            assert (record.width, record.height) == ImageOps.exif_transpose(image).size
        expected = read_annotation(root / split / 'annos' / name)
        assert (record.source, record.pair_id, len(record.items)) == (
            expected.source,
            expected.pair_id,
            len(expected.items),
        )
        for ours, theirs in zip(record.items, expected.items, strict=True):
            for field in ('item_id', 'category_id', 'style', 'bbox', 'scale', 'occlusion', 'zoom_in', 'viewpoint'):
                assert getattr(ours, field) == getattr(theirs, field)
            assert np.array_equal(ours.landmarks, theirs.landmarks)
            assert len(ours.segmentation) == len(theirs.segmentation)
            for a, b in zip(ours.segmentation, theirs.segmentation, strict=True):
                assert np.array_equal(a, b)


@pytest.mark.parametrize('workers', [1, 2])
def test_store_holds_what_the_files_say(root, small_parts, workers):
    report = prepare(root, 'train', workers=workers)
    store = Store.open(root / 'train.store')
    assert report.made and (report.images, report.items) == (len(store), len(store.item_ids)) == (24, 32)
    assert_store_equals_files(store, root, 'train')
    store.verify()
    assert sorted(path.name for path in root.iterdir()) == ['.train.store.lock', 'train', 'train.store']


def test_photos_are_read(photo_root, tmp_path):
    store = open_or_prepare(photo_root, 'validation', tmp_path / 'validation.store')
    assert_store_equals_files(store, photo_root, 'validation')
    assert [len(store.polygons(row)) for row in range(2)] == [1, 4]
    assert store.manifest['problems'] == {}
    assert store.image_ids.tolist() == [264, 265]


def test_columns_agree_with_the_records(tiny_root, tmp_path):
    store = open_or_prepare(tiny_root, 'train', tmp_path / 'train.store')
    items = [item for index in range(len(store)) for item in store.image(index).items]
    assert store.category_ids.tolist() == [item.category_id for item in items]
    assert np.allclose(store.bboxes, [item.bbox for item in items])
    pair_ids = store.pair_ids[store.item_images]
    assert store.identities.tolist() == [
        pair_id * 65536 + item.style if item.style else -1 for pair_id, item in zip(pair_ids, items, strict=True)
    ]
    with pytest.raises(IndexError):
        store.image(len(store))
    with pytest.raises(ValueError, match='read-only'):
        store.bboxes[0] = 0


def test_second_run_does_nothing(root, monkeypatch):
    prepare(root, 'train')
    monkeypatch.setattr(prepare_module, 'make_part', None)
    assert not prepare(root, 'train').made


def test_changed_annotation_is_noticed_by_prepare(root):
    prepare(root, 'train')
    path = root / 'train' / 'annos' / '000001.json'
    data = json.loads(path.read_text())
    data['pair_id'] = 99
    path.write_text(json.dumps(data))
    assert prepare(root, 'train').made
    assert Store.open(root / 'train.store').pair_ids[0] == 99


def python(code, root):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, '-c', code, str(root)], stdout=subprocess.PIPE, text=True, env=environment)


KILLED_RUN = """
import os, signal, sys
from mmdf2.datasets import prepare
done, original = [], prepare.make_part
def make_part(part):
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(original(part))
    return done[-1]
prepare.IMAGES_PER_PART = 5
prepare.make_part = make_part
prepare.prepare(sys.argv[1], 'train', workers=1)
"""


def test_killed_run_goes_on_where_it_stopped(root, small_parts, monkeypatch):
    assert python(KILLED_RUN, root).wait() == -signal.SIGKILL
    assert not (root / 'train.store').exists()
    parts = sorted(path.name for path in (root / '.train.store.parts').glob('*.npz'))
    assert parts == ['part-000000.npz', 'part-000001.npz']
    before = {name: (root / '.train.store.parts' / name).stat().st_mtime_ns for name in parts}

    def keep_watch(job):
        images = make_part(job)
        name = job.path.name + '.npz'
        if name in before:
            assert job.path.with_suffix('.npz').stat().st_mtime_ns == before[name]
        return images

    make_part = prepare_module.make_part
    monkeypatch.setattr(prepare_module, 'make_part', keep_watch)
    prepare(root, 'train', workers=1)
    assert_store_equals_files(Store.open(root / 'train.store'), root, 'train')
    assert not (root / '.train.store.parts').exists()


KILLED_WHILE_REPLACING = """
import os, signal, sys
from mmdf2.datasets import prepare
replace = os.replace
def killed(source, target):
    if os.path.basename(target) == 'train.store':
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
prepare.prepare(sys.argv[1], 'train', workers=1)
"""


def test_run_killed_while_it_replaces_a_store_is_completed(root):
    prepare(root, 'train')
    (root / 'train' / 'annos' / '000024.json').unlink()
    assert python(KILLED_WHILE_REPLACING, root).wait() == -signal.SIGKILL
    assert not (root / 'train.store').exists() and (root / '.train.store.old').exists()
    store = open_or_prepare(root, 'train')
    assert len(store) == 23
    store.verify()
    assert sorted(path.name for path in root.iterdir()) == ['.train.store.lock', 'train', 'train.store']


def test_part_that_was_cut_short_is_made_again(root, small_parts):
    assert python(KILLED_RUN, root).wait() == -signal.SIGKILL
    first, second = sorted((root / '.train.store.parts').glob('*.npz'))
    first.write_bytes(b'')
    second.write_bytes(second.read_bytes()[:100])
    prepare(root, 'train', workers=1)
    assert_store_equals_files(Store.open(root / 'train.store'), root, 'train')


def test_part_of_changed_files_is_made_again(root, small_parts):
    assert python(KILLED_RUN, root).wait() == -signal.SIGKILL
    (root / 'train' / 'annos' / '000001.json').write_text('{}')
    assert prepare(root, 'train', workers=1).problems == {'bad source': 1}


def test_every_problem_is_counted_listed_and_treated(root, small_parts):
    annos, images = root / 'train' / 'annos', root / 'train' / 'image'
    (annos / '000001.json').write_text('{"source": "us')
    (annos / '000002.json').unlink()
    (images / '000003.jpg').unlink()
    (images / '000004.jpg').write_bytes(b'no image')
    (images / '000005.jpg').write_bytes(b'')
    shutil.copy(images / '000006.jpg', images / '6.jpg')
    shutil.copy(annos / '000006.json', annos / '6.json')
    (images / 'Thumbs.db').write_bytes(b'')
    data = json.loads((annos / '000007.json').read_text())
    data['item1']['bounding_box'] = [10, 10, 5, 5]
    (annos / '000007.json').write_text(json.dumps(data))
    report = prepare(root, 'train')
    assert report.problems == {
        'unreadable annotation': 1,
        'missing annotation': 1,
        'missing image': 1,
        'unreadable image': 2,
        'duplicate image id': 2,
        'bad file name': 1,
        'bad box': 1,
    }
    store = Store.open(root / 'train.store')
    assert store.image_ids.tolist() == list(range(6, 25)) and report.images == 19
    listed = [json.loads(line) for line in (root / 'train.store' / 'problems.jsonl').read_text().splitlines()]
    assert [problem['file'] for problem in listed if problem['kind'] == 'unreadable image'] == [
        '000004.jpg',
        '000005.jpg',
    ]
    assert len(listed) == sum(report.problems.values())
    text = str(report)
    assert '000007.json: item1: bad box' in text and 'problems.jsonl' in text and 'item left out' in text
    assert store.manifest['problems'] == report.problems


def test_strict_refuses_and_lists(root):
    (root / 'train' / 'annos' / '000001.json').write_text('[]')
    with pytest.raises(PrepareError, match=r'1 x unreadable annotation, such as 000001\.json'):
        prepare(root, 'train', strict=True)
    assert not (root / 'train.store').exists()
    assert 'unreadable' in (root / 'train.store.problems.jsonl').read_text()
    prepare(root, 'train')
    assert not (root / 'train.store.problems.jsonl').exists()
    with pytest.raises(PrepareError):
        prepare(root, 'train', strict=True)


@pytest.mark.parametrize('content', [b'', b'\0' * 700])
def test_empty_files_are_said_to_be_empty(root, content):
    (root / 'train' / 'annos' / '000001.json').write_bytes(content)
    (root / 'train' / 'image' / '000002.jpg').write_bytes(content)
    report = prepare(root, 'train')
    assert report.problems == {'unreadable annotation': 1, 'unreadable image': 1}
    assert f'the file of {len(content)} bytes is empty; unpack or copy it again' in str(report)
    assert (
        open_truth(root, 'train').notes()[0].startswith('the annotation has problems (1 x unreadable annotation, 1 x')
    )


def test_nothing_usable(root, tmp_path):
    with pytest.raises(FileNotFoundError, match='DeepFashion2 is laid out as'):
        prepare(root, 'validation')
    for folder in ('image', 'annos'):
        (tmp_path / 'empty' / 'train' / folder).mkdir(parents=True)
    with pytest.raises(PrepareError, match='no image with an annotation'):
        prepare(tmp_path / 'empty', 'train')
    for path in (root / 'train' / 'annos').iterdir():
        path.write_text('')
    with pytest.raises(PrepareError, match='not one image is usable'):
        prepare(root, 'train')
    assert not (root / 'train.store').exists()


def test_images_without_any_item_make_a_store(tmp_path, write_split):
    write_split(tmp_path, 'train', [ImageAnnotation('user', 1, []), ImageAnnotation('shop', 1, [])], (96, 64))
    report = prepare(tmp_path, 'train')
    assert (report.images, report.items, report.problems) == (2, 0, {'no items': 2})
    store = open_or_prepare(tmp_path, 'train')
    assert store.image(1).items == [] and store.bboxes.shape == (0, 4)
    store.verify()


def test_a_place_that_cannot_be_written_is_named(root):
    (root / 'file').write_text('')
    with pytest.raises(PrepareError, match=r'cannot write beside .* name another place for the store'):
        prepare(root, 'train', root / 'file' / 'train.store')


def test_killed_worker_is_an_error_that_keeps_what_is_done(root, small_parts, monkeypatch):
    monkeypatch.setattr(prepare_module, 'make_part', die)
    with pytest.raises(PrepareError, match='a worker process was killed'):
        prepare(root, 'train', workers=2)
    monkeypatch.undo()
    assert prepare(root, 'train').images == 24


def die(part):
    os.kill(os.getpid(), signal.SIGKILL)


def test_stale_store_is_refused(root):
    open_or_prepare(root, 'train')
    (root / 'train' / 'annos' / '000024.json').unlink()
    with pytest.raises(StoreError, match=r'stale.*\n?.*prepare_deepfashion2.py'):
        open_or_prepare(root, 'train')
    prepare(root, 'train')
    assert len(open_or_prepare(root, 'train')) == 23


OPENERS = {
    'dataset and split': lambda root: open_or_prepare(root, 'train'),
    'dataset': lambda root: open_annotation(root, 'train')[0],
    'split': lambda root: open_annotation(root / 'train')[0],
    'store': lambda root: open_annotation(root / 'train.store')[0],
    'link to the store': lambda root: open_annotation(linked(root))[0],
    'dataset of MMDetection': lambda root: DeepFashion2Dataset(root).store,
}


def linked(root):
    link = root / 'link'
    if not link.exists():
        link.symlink_to(root / 'train.store')
    return link


def move_box(path):
    """Changes one digit in a file and gives it back its time of change, as some tools do."""
    before, text = path.stat(), path.read_text()
    data = json.loads(text)
    x1 = data['item1']['bounding_box'][0]
    data['item1']['bounding_box'][0] = x1 + (1 if x1 % 10 < 9 else -1)
    path.write_text(json.dumps(data))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize('opener', OPENERS.values(), ids=OPENERS)
def test_a_correction_in_place_is_noticed_however_the_store_is_opened(root, opener):
    prepare(root, 'train')
    assert len(opener(root)) == 24
    move_box(root / 'train' / 'annos' / '000017.json')
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r'stale: .*train/annos/000017\.json was changed after.*\n?.*--split train'
        ):
            opener(root)
    prepare(root, 'train')
    assert_store_equals_files(opener(root), root, 'train')


def test_a_correction_is_noticed_by_a_store_in_another_place(root, tmp_path):
    elsewhere = tmp_path / 'elsewhere' / 'x'
    prepare(root, 'train', elsewhere)
    assert len(open_annotation(elsewhere)[0]) == 24
    assert open_annotation(elsewhere)[1] == root / 'train' / 'image'
    move_box(root / 'train' / 'annos' / '000017.json')
    with pytest.raises(StoreError, match=r'stale: .*000017\.json was changed'):
        open_annotation(elsewhere)


def test_other_images_are_noticed(root, small_parts):
    shutil.copy(root / 'train' / 'image' / '000009.jpg', root / 'whole.jpg')
    (root / 'train' / 'image' / '000009.jpg').write_bytes(b'')
    assert prepare(root, 'train').problems == {'unreadable image': 1}
    Image.new('RGB', (100, 60)).save(root / 'train' / 'image' / '000001.jpg')
    with pytest.raises(StoreError, match=r'stale: .*image/000001\.jpg was changed'):
        open_or_prepare(root, 'train')
    shutil.copy(root / 'whole.jpg', root / 'train' / 'image' / '000009.jpg')
    with pytest.raises(StoreError, match=r'stale: .*image/000001\.jpg and 1 others were changed'):
        open_or_prepare(root, 'train')


def test_a_copy_with_other_times_is_compared_once(root, small_parts, tmp_path, monkeypatch):
    prepare(root, 'train')
    copy = tmp_path / 'copy'
    shutil.copytree(root / 'train', copy / 'train', copy_function=shutil.copyfile)
    shutil.copytree(root / 'train.store', copy / 'train.store', copy_function=shutil.copyfile)
    compared = []

    def counting(folder, images, read):
        compared.append(images[0].image_id)
        return differing_files(folder, images, read)

    monkeypatch.setattr(prepare_module, 'differing_files', counting)
    monkeypatch.setattr(prepare_module, 'FEW_PARTS', 99)
    assert_store_equals_files(open_or_prepare(copy, 'train'), copy, 'train')
    assert compared == [1, 6, 11, 16, 21]
    for _ in range(2):
        open_or_prepare(copy, 'train')
    assert compared == [1, 6, 11, 16, 21]
    move_box(copy / 'train' / 'annos' / '000017.json')
    with pytest.raises(StoreError, match=r'000017\.json was changed'):
        open_or_prepare(copy, 'train')
    assert compared[5:] == [16]
    assert len(open_or_prepare(root, 'train')) == 24
    prepare(copy, 'train')
    assert_store_equals_files(open_or_prepare(copy, 'train'), copy, 'train')
    assert len(compared) == 6


def touch_all(root):
    for path in (root / 'train' / 'annos').iterdir():
        os.utime(path)


def test_what_is_kept_of_a_check_counts_for_its_own_store_only(root):
    prepare(root, 'train')
    kept = root / 'train.store' / CHECKED
    touch_all(root)
    open_or_prepare(root, 'train')
    good = json.loads(kept.read_text())
    move_box(root / 'train' / 'annos' / '000001.json')
    listing = list_split(root, 'train')
    lie = {**good, 'stamp': listing.stamp, 'parts': [signature(listing.images)]}
    for content in ('', '[]', '7', '{"parts": 1}', '[' * 100000, '\udcff', json.dumps({**lie, 'manifest': '0' * 64})):
        kept.write_text(content, errors='surrogateescape')
        with pytest.raises(StoreError, match=r'000001\.json was changed'):
            open_or_prepare(root, 'train')


def test_a_store_that_cannot_be_written_is_compared_each_time(root, capsys):
    prepare(root, 'train')
    (root / 'train.store' / CHECKED).mkdir()
    touch_all(root)
    for _ in range(2):
        assert_store_equals_files(open_or_prepare(root, 'train'), root, 'train')
        assert 'train.store cannot be written' in capsys.readouterr().out


OPEN_AND_COUNT = """
import sys
from mmdf2.datasets.prepare import open_or_prepare
print(len(open_or_prepare(sys.argv[1], 'train')))
"""


def test_two_processes_compare_a_copy(root):
    prepare(root, 'train')
    touch_all(root)
    started = [python(OPEN_AND_COUNT, root) for _ in range(2)]
    assert [process.communicate()[0].split()[-1] for process in started] == ['24', '24']
    assert [process.returncode for process in started] == [0, 0]
    kept = json.loads((root / 'train.store' / CHECKED).read_text())
    assert kept['stamp'] == list_split(root, 'train').stamp


def test_columns_of_a_store_are_those_of_the_files(root):
    store, images = open_or_prepare(root, 'train'), list_split(root, 'train').images
    for first, last in ((0, 24), (0, 1), (5, 17), (23, 24), (7, 7)):
        wanted, found = read_columns(images[first:last]), store.columns(first, last)
        assert wanted.keys() == found.keys()
        for name, column in wanted.items():
            assert (found[name].dtype, found[name].shape) == (column.dtype, column.shape), name
            assert np.array_equal(found[name], column), name


def test_store_of_another_split_is_refused(tiny_root, tmp_path):
    open_or_prepare(tiny_root, 'train', tmp_path / 'x.store')
    with pytest.raises(StoreError, match="is of split 'train', not 'validation'"):
        open_or_prepare(tiny_root, 'validation', tmp_path / 'x.store')


def test_store_works_without_the_annotation_files(root):
    open_or_prepare(root, 'train')
    shutil.rmtree(root / 'train' / 'annos')
    assert len(open_or_prepare(root, 'train')) == 24


def empty_column(store):
    (store / 'bboxes.npy').write_bytes(b'')


def empty_manifest(store):
    (store / 'manifest.json').write_bytes(b'')


def column_with_a_hostile_header(store):
    text = b'(' * 9000
    (store / 'bboxes.npy').write_bytes(b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text)


def damage_column(store):
    (store / 'bboxes.npy').write_bytes((store / 'bboxes.npy').read_bytes()[:-8])


def pickled_column(store):
    np.save(store / 'bboxes.npy', np.array([{}], dtype=object), allow_pickle=True)


def missing_column(store):
    (store / 'points.npy').unlink()


def other_version(store):
    text = (store / 'manifest.json').read_text()
    (store / 'manifest.json').write_text(text.replace('"version": 1', '"version": 99'))


def cut_manifest(store):
    (store / 'manifest.json').write_text((store / 'manifest.json').read_text()[:100])


HARMS = [
    empty_column,
    empty_manifest,
    column_with_a_hostile_header,
    damage_column,
    pickled_column,
    missing_column,
    other_version,
    cut_manifest,
]


@pytest.mark.parametrize('harm', HARMS)
def test_damaged_store_is_refused_and_force_mends_it(root, harm):
    prepare(root, 'train')
    harm(root / 'train.store')
    with pytest.raises(StoreError, match=r'run: python tools/prepare_deepfashion2\.py .* --split train --force'):
        open_or_prepare(root, 'train')
    prepare(root, 'train', force=True)
    assert_store_equals_files(open_or_prepare(root, 'train'), root, 'train')


def test_changed_column_fails_verification(root):
    prepare(root, 'train')
    column = np.load(root / 'train.store' / 'bboxes.npy')
    column[0, 0] += 1
    np.save(root / 'train.store' / 'bboxes.npy', column)
    with pytest.raises(StoreError, match=r'bboxes\.npy was changed'):
        Store.open(root / 'train.store').verify()


@pytest.mark.parametrize('force', [False, True])
def test_foreign_folder_is_never_replaced(root, force):
    (root / 'train.store').mkdir()
    (root / 'train.store' / 'thesis.txt').write_text('mine')
    with pytest.raises(StoreError):
        prepare(root, 'train', force=force)
    assert (root / 'train.store' / 'thesis.txt').read_text() == 'mine'
    with pytest.raises(StoreError, match='no store'):
        open_or_prepare(root, 'train')


def test_missing_store_says_what_to_run(root):
    with pytest.raises(StoreError, match=r'does not exist; run: python tools/prepare_deepfashion2.py .* --split train'):
        Store.open(root / 'train.store')


def test_sizes_are_those_that_decoders_show(tmp_path):
    cv2 = pytest.importorskip('cv2')
    for orientation in range(1, 9):
        path = tmp_path / f'{orientation}.jpg'
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new('RGB', (40, 30)).save(path, exif=exif)
        assert image_size(path) == cv2.imread(str(path)).shape[1::-1]
    with pytest.raises(AnnotationError, match='missing image'):
        image_size(tmp_path / 'none.jpg')


def test_two_runs_at_once_make_one_store(root):
    code = 'import sys; from mmdf2.datasets.prepare import prepare; print(prepare(sys.argv[1], "train").made)'
    runs = [python(code, root), python(code, root)]
    outputs = [run.communicate(timeout=60)[0].splitlines()[-1] for run in runs]
    assert sorted(outputs) == ['False', 'True'] and all(run.returncode == 0 for run in runs)


def test_annotation_is_found_by_store_split_or_dataset(tiny_root, tmp_path):
    images = tiny_root / 'validation' / 'image'
    for path in (tiny_root, tiny_root / 'validation', tiny_root / 'validation.store'):
        store, folder = open_annotation(path)
        assert len(store) == 16 and folder.resolve() == images.resolve()
    assert len(open_annotation(tiny_root, 'train')[0]) == 24
    with pytest.raises(FileNotFoundError, match='is neither a store'):
        open_annotation(tmp_path)
    (tmp_path / 'broken.store').mkdir()
    (tmp_path / 'broken.store' / 'manifest.json').write_text('{"format": "mmdf2-store", "version": 99}')
    with pytest.raises(StoreError, match='version 99'):
        open_annotation(tmp_path / 'broken.store')


def cut_short(path):
    """Takes the second half of a file away."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_jpeg_cut_short_is_counted_and_strict_refuses_it(root):
    cut_short(root / 'train' / 'image' / '000003.jpg')
    with pytest.raises(PrepareError, match=r'1 x unreadable image, such as .*000003\.jpg'):
        prepare(root, 'train', strict=True)
    report = prepare(root, 'train')
    assert report.problems == {'unreadable image': 1} and '000003.jpg' in report.examples['unreadable image'][0]
    assert 3 not in Store.open(report.folder).image_ids


def test_strict_decodes_what_only_looks_whole(root):
    path = root / 'train' / 'image' / '000003.jpg'
    png = path.with_suffix('.png')
    exif = Image.Exif()
    exif[0x0112] = 1  # with the tag before the pixels, the header alone says how large the image is
    Image.open(path).save(png, exif=exif)
    path.unlink()
    assert prepare(root, 'train', strict=True).made
    assert not prepare(root, 'train', strict=True).made
    damaged = bytearray(png.read_bytes())
    for place in range(len(damaged) // 3, len(damaged) // 2):
        damaged[place] ^= 0xFF
    png.write_bytes(damaged)
    assert prepare(root, 'train').problems == {}
    # The store is up to date, but nobody has looked at the pixels.
    with pytest.raises(PrepareError, match=r'1 x unreadable image, such as .*000003\.png'):
        prepare(root, 'train', strict=True)

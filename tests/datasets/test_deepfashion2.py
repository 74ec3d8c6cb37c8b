import copy
import pickle
import shutil

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from torch.utils.data import DataLoader

from mmdf2.datasets.annotation import ImageAnnotation, read_annotation
from mmdf2.datasets.deepfashion2 import DeepFashion2Dataset
from mmdf2.datasets.store import StoreError
from mmdf2.registry import DATASETS


@pytest.fixture
def dataset(tiny_root):
    return DeepFashion2Dataset(tiny_root, 'train')


def test_it_says_what_the_files_say(dataset, tiny_root):
    assert len(dataset) == 24
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        raw = read_annotation(tiny_root / 'train' / 'annos' / f'{index + 1:06d}.json')
        assert info['img_path'] == str(tiny_root / 'train' / 'image' / f'{index + 1:06d}.jpg')
        assert (info['img_id'], info['width'], info['height']) == (index + 1, 96, 64)
        assert (info['source'], info['pair_id'], info['sample_idx']) == (raw.source, raw.pair_id, index)
        for instance, item in zip(info['instances'], raw.items, strict=True):
            assert instance['bbox'] == list(item.bbox)
            assert instance['bbox_label'] == item.category_id - 1
            assert instance['mask'] == [polygon.reshape(-1).tolist() for polygon in item.segmentation]
            assert np.array_equal(instance['landmarks'], item.landmarks)
            assert instance['identity'] == (raw.pair_id * 65536 + item.style if item.style else -1)
            assert (instance['item_id'], instance['ignore_flag']) == (item.item_id, 0)
        assert dataset.get_cat_ids(index) == [item.category_id - 1 for item in raw.items]


def test_config_builds_it_by_name(tiny_root):
    dataset = DATASETS.build({'type': 'mmdf2.DeepFashion2Dataset', 'data_root': str(tiny_root), 'split': 'validation'})
    assert len(dataset) == 16
    assert len(dataset.metainfo['classes']) == len(set(dataset.metainfo['palette'])) == 13
    assert dataset[-1]['img_id'] == 16 and dataset[-1]['sample_idx'] == 15


def test_a_pipeline_cannot_change_the_store(dataset):
    before = copy.deepcopy(dataset.get_data_info(0))
    info = dataset.get_data_info(0)
    info['instances'][0]['landmarks'][:] = -1
    info['instances'].pop()
    again = dataset.get_data_info(0)
    assert np.array_equal(again['instances'][0]['landmarks'], before['instances'][0]['landmarks'])


def test_wrappers_of_mmdet_and_mmengine_work(dataset):
    balanced = ClassBalancedDataset(dataset, oversample_thr=0.5)
    assert len(balanced) >= len(dataset)
    assert balanced.get_data_info(0)['img_id'] == 1
    assert RepeatDataset(dataset, 3).get_data_info(25)['img_id'] == 2


def test_indices_and_subsets(tiny_root, dataset):
    assert len(DeepFashion2Dataset(tiny_root, 'train', indices=5)) == 5
    picked = DeepFashion2Dataset(tiny_root, 'train', indices=[3, 1])
    assert [picked.get_data_info(index)['img_id'] for index in range(2)] == [4, 2]
    subset = dataset.get_subset([7])
    assert len(subset) == 1 and len(dataset) == 24
    dataset.get_subset_(4)
    assert len(dataset) == 4


def test_filters(tmp_path, write_split, make_item):
    rng = np.random.default_rng(0)
    annotations = [
        ImageAnnotation('user', 1, [make_item(rng, 1, 1, 1, (96, 64))] if full else []) for full in (1, 0, 1)
    ]
    write_split(tmp_path, 'train', annotations, (96, 64))
    ids = [
        DeepFashion2Dataset(tmp_path, 'train', filter_cfg={'filter_empty_gt': True})[index]['img_id']
        for index in (0, 1)
    ]
    assert ids == [1, 3]
    assert len(DeepFashion2Dataset(tmp_path, 'train')) == 3
    assert len(DeepFashion2Dataset(tmp_path, 'train', filter_cfg={'filter_empty_gt': True}, test_mode=True)) == 3
    assert len(DeepFashion2Dataset(tmp_path, 'train', filter_cfg={'min_size': 65})) == 0
    with pytest.raises(ValueError, match='filter_cfg knows'):
        DeepFashion2Dataset(tmp_path, 'train', filter_cfg={'filter_empty': True})


def test_classes_cannot_be_changed(tiny_root):
    with pytest.raises(ValueError, match='cannot be changed'):
        DeepFashion2Dataset(tiny_root, 'train', metainfo={'classes': ('skirt',)})
    assert DeepFashion2Dataset(tiny_root, 'train', metainfo={'dataset_version': 'x'}).metainfo['dataset_version'] == 'x'


def test_lazy_init_opens_nothing(tmp_path):
    dataset = DeepFashion2Dataset(tmp_path / 'none', 'train', lazy_init=True)
    with pytest.raises(FileNotFoundError, match='DeepFashion2 is laid out as'):
        dataset.full_init()


def test_stale_store_is_refused(tiny_root, tmp_path):
    shutil.copytree(tiny_root / 'train', tmp_path / 'train')
    DeepFashion2Dataset(tmp_path, 'train')
    (tmp_path / 'train' / 'image' / '000001.jpg').unlink()
    with pytest.raises(StoreError, match='stale'):
        DeepFashion2Dataset(tmp_path, 'train')


def test_pickling_carries_no_annotation(dataset):
    pickled = pickle.dumps(dataset.store)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).image(3).image_id == 4
    assert copy.deepcopy(dataset).get_data_info(3)['img_id'] == 4


def test_workers_read_the_same(dataset):
    loader = DataLoader(dataset, 4, num_workers=2, collate_fn=list)
    assert [info['img_id'] for batch in loader for info in batch] == list(range(1, 25))


def test_identity_table(dataset):
    images, identities = dataset.get_subset([5, 0, 3]).identity_table()
    expected = [
        (index, instance['identity'])
        for index, number in enumerate([5, 0, 3])
        for instance in dataset.get_data_info(number)['instances']
        if instance['identity'] >= 0
    ]
    assert list(zip(images.tolist(), identities.tolist(), strict=True)) == expected
    assert dataset.sources()[:4].tolist() == [0, 1, 0, 1]


class Failing:
    """A pipeline that fails on some images, by their numbers, unless it is told that they cannot be used."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def __call__(self, results):
        if results['img_id'] in self.numbers and 'unreadable' not in results:
            raise ZeroDivisionError('no such corner')
        return results


def made_of(tiny_root, numbers, **options):
    dataset = DeepFashion2Dataset(tiny_root, 'train', **options)
    dataset.pipeline = Failing(*numbers)
    return dataset


def test_another_image_takes_the_place_of_one_that_fails_in_training(tiny_root, monkeypatch):
    lines = []
    monkeypatch.setattr('mmdf2.datasets.deepfashion2.print_log', lambda text, *others: lines.append(text))
    dataset = made_of(tiny_root, [3])
    assert dataset[2]['img_id'] != 3 and dataset[0]['img_id'] == 1
    assert 'train/image/000003.jpg: the pipeline failed on it: ZeroDivisionError: no such corner' in lines[0]
    assert 'another image takes its place (1 images so far' in lines[0]


def test_an_image_that_fails_in_testing_is_marked(tiny_root):
    dataset = made_of(tiny_root, [3], test_mode=True)
    found = [dataset[index] for index in range(len(dataset))]
    assert [data['img_id'] for data in found] == list(range(1, 25))
    assert [data['img_id'] for data in found if 'unreadable' in data] == [3]
    assert '000003.jpg: the pipeline failed on it: ZeroDivisionError: no such corner' in found[2]['unreadable']


@pytest.mark.parametrize('test_mode', [False, True])
def test_a_pipeline_that_fails_on_all_images_ends_the_run(tiny_root, test_mode):
    dataset = made_of(tiny_root, range(1, 25), test_mode=test_mode)
    with pytest.raises(ZeroDivisionError, match='no such corner'):
        for index in range(len(dataset)):
            dataset[index]

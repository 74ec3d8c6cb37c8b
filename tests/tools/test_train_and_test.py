"""tools/train.py and tools/test.py as a user starts them: one process and two, straight through and resumed."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image
from pycocotools import mask as mask_utils
from tiny_run import losses, metrics, run_tool, write_config

from mmdf2.datasets.prepare import prepare
from mmdf2.engine import load_checkpoint_file
from mmdf2.images import read_image

EPOCHS = 2
ITERATIONS_PER_EPOCH = 6
# Parts of a report that are not tasks.
ABOUT_REPORT = ('about', 'categories')


@pytest.fixture(scope='module')
def run(tmp_path_factory, tiny_root) -> Path:
    """Folder of a finished training of two epochs without a seed, augmented by a worker process, and its config.py."""
    folder = tmp_path_factory.mktemp('run')
    changes = {
        'train_cfg.max_epochs': EPOCHS,
        'train_dataloader.num_workers': 1,
        'randomness.seed': None,
        'custom_hooks': [{'type': 'CheckpointHook', 'by_epoch': False, 'interval': 4, 'save_last': False}],
    }
    config = write_config(folder, tiny_root, **changes)
    run_tool('train.py', config, '--work-dir', folder / 'work', '--launcher', 'none')
    return folder


def run_test(run: Path, folder: Path, processes: int) -> Path:
    """Tests the finished training; result files go to ``dump`` and pictures to ``pictures`` in ``folder``."""
    folder.mkdir()
    arguments = ('--work-dir', folder, '--dump', folder / 'dump', '--subsets', '--show-dir', folder / 'pictures')
    checkpoint = run / 'work' / 'epoch_2.pth'
    run_tool('test.py', run / 'config.py', checkpoint, *arguments, processes=processes, cwd=folder)
    return folder


@pytest.fixture(scope='module', name='test_of_one_process')
def fixture_of_one_process(run) -> Path:
    """Folder of a test by one process."""
    return run_test(run, run / 'one', 1)


@pytest.fixture(scope='module', name='test_of_two_processes')
def fixture_of_two_processes(run) -> Path:
    """Folder of a test by two processes."""
    return run_test(run, run / 'two', 2)


def figures(work_dir: Path) -> dict[str, float]:
    return {name: value for name, value in metrics(work_dir).items() if 'time' not in name}


def test_training_logs_every_loss_of_every_iteration(run):
    logged = losses(run / 'work')
    assert list(logged) == list(range(1, EPOCHS * ITERATIONS_PER_EPOCH + 1))
    parts = ('rpn_cls', 'rpn_bbox', 'cls', 'bbox', 'mask', 'keypoint', 'match')
    for entry in logged.values():
        assert set(entry) == {'loss', *(f'loss_{part}' for part in parts)}
        assert all(math.isfinite(value) for value in entry.values())


@pytest.mark.parametrize(('name', 'epoch', 'iteration'), [('epoch_1', 1, 6), ('iter_8', 1, 8)])
def test_resumed_run_has_the_losses_of_the_uninterrupted_one(run, tmp_path, name, epoch, iteration):
    shutil.copy(run / 'work' / f'{name}.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / f'{name}.pth'))
    output = run_tool('train.py', run / 'config.py', '--work-dir', tmp_path, '--resume')
    assert f'resumed epoch: {epoch}, iter: {iteration}' in output
    expected, resumed = losses(run / 'work'), losses(tmp_path)
    assert list(resumed) == list(range(iteration + 1, EPOCHS * ITERATIONS_PER_EPOCH + 1))
    assert resumed == {iteration: expected[iteration] for iteration in resumed}
    straight, broken = (load_checkpoint_file(path / 'epoch_2.pth') for path in (run / 'work', tmp_path))
    assert broken['meta']['seed'] == straight['meta']['seed']
    for name, value in straight['state_dict'].items():
        torch.testing.assert_close(broken['state_dict'][name], value, rtol=0, atol=0)
    momenta = (checkpoint['optimizer']['state'] for checkpoint in (straight, broken))
    for one, other in zip(*(state.values() for state in momenta), strict=True):
        torch.testing.assert_close(other['momentum_buffer'], one['momentum_buffer'], rtol=0, atol=0)


def test_training_begins_with_what_fits_of_another_model_on_request(run, tmp_path):
    """A learning rate of 0 shows in the checkpoint what training began with."""
    weights = load_checkpoint_file(run / 'work' / 'epoch_2.pth')['state_dict']
    common = {name: value for name, value in weights.items() if 'match_head' not in name}
    torch.save({'state_dict': common | {'of_another.model': torch.zeros(3)}}, tmp_path / 'other.pth')
    options = [f'load_from={tmp_path / "other.pth"}', 'load_from_other_model=True']
    options += ['optim_wrapper.optimizer.lr=0.0', 'train_cfg.max_epochs=1']
    output = run_tool('train.py', run / 'config.py', '--work-dir', tmp_path / 'work', '--cfg-options', *options)
    assert f"{len(common)} of the model's {len(weights)} weights are taken from" in output
    assert f'; {len(weights) - len(common)} keep their initial values: roi_head.match_head.' in output
    end = load_checkpoint_file(tmp_path / 'work' / 'epoch_1.pth')['state_dict']
    kept = [name for name in common if not name.endswith(('running_mean', 'running_var', 'num_batches_tracked'))]
    assert len(kept) > 50
    for name in kept:
        torch.testing.assert_close(end[name], common[name], rtol=0, atol=0)


def test_two_processes_test_as_one_does(test_of_one_process, test_of_two_processes):
    expected = figures(test_of_one_process)
    wanted = 'bbox_AP segm_AP keypoints_AP_visible keypoints_AP_all retrieval_top1 retrieval_gt_top1'
    assert set(wanted.split()) <= set(expected)
    assert expected['retrieval_gt_top20'] > 0
    assert figures(test_of_two_processes) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    files = sorted(path.name for path in (test_of_one_process / 'dump').iterdir())
    assert files == [f'results.{kind}.json' for kind in ('bbox', 'keypoints', 'retrieval', 'retrieval_gt', 'segm')]
    for name in files:
        one, two = (
            json.loads((folder / 'dump' / name).read_text()) for folder in (test_of_one_process, test_of_two_processes)
        )
        assert len(one) > 0 and len(one) == len(two)
        assert_same_entries(one, two)


def test_dumped_files_evaluate_to_the_very_figures_of_the_test(test_of_one_process, tiny_root, tmp_path):
    """tools/evaluate.py gives the same figures, in every column, for the files that tools/test.py --dump wrote."""
    dump, out = test_of_one_process / 'dump', tmp_path / 'report.json'
    kinds = ('bbox', 'segm', 'keypoints', 'retrieval', 'retrieval_gt')
    options = [word for kind in kinds for word in (f'--{kind.replace("_", "-")}', dump / f'results.{kind}.json')]
    run_tool('evaluate.py', '--gt', tiny_root, *options, '--subsets', '--out', out)
    report = {task: columns for task, columns in json.loads(out.read_text()).items() if task not in ABOUT_REPORT}
    found = {}
    for task, columns in report.items():
        assert len(columns) == 13
        stream, _, setting = task.partition('_') if task.startswith('keypoints') else (task, '', '')
        for column, cells in columns.items():
            ending = ''.join(f'_{part}' for part in (setting, column.replace('/', '_')) if part not in ('', 'overall'))
            found.update({f'{stream}_{name}{ending}': value for name, value in cells.items() if name != 'items'})
    printed = figures(test_of_one_process)
    # The figures of verification and of a random order cannot be computed from the result files.
    others = {name for name in printed if name.startswith('verification_') or name == 'retrieval_chance_top1'}
    expected = {name: value for name, value in printed.items() if name not in others}
    found = {name: math.nan if value is None else value for name, value in found.items()}
    assert found == pytest.approx(expected, abs=0, rel=0, nan_ok=True)
    assert found['bbox_AP'] >= 0 and found['retrieval_gt_top20'] > 0 and len(found) > 400


def assert_same_entries(one: list[dict], two: list[dict]) -> None:
    """Checks that two lists of results are equal up to rounding."""
    for first, second in zip(one, two, strict=True):
        assert list(first) == list(second)
        for name, value in first.items():
            if name == 'segmentation':
                assert mask_utils.iou([value], [second[name]], [0]).item() > 0.99 or value == second[name]
            else:
                torch.testing.assert_close(torch.tensor(second[name]), torch.tensor(value), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('processes', [1, 2])
def test_every_image_is_drawn_by_every_process(test_of_one_process, test_of_two_processes, processes):
    folder = (test_of_one_process, test_of_two_processes)[processes - 1]
    pictures = sorted((folder / 'pictures').iterdir())
    assert [path.name for path in pictures] == [f'{number:06d}.jpg' for number in range(1, 17)]
    # A picture shows ground truth and prediction side by side.
    assert read_image(pictures[0]).shape == (64, 2 * 96, 3)


@pytest.fixture(scope='module')
def without_chance(tmp_path_factory, tiny_root) -> Path:
    """Folder with initial weights and a config whose training depends on the images alone.

    Nothing is sampled, and the backbone has no batch statistics. The match head has them, as in the paper.
    """
    folder = tmp_path_factory.mktemp('without_chance')
    config = write_config(
        folder,
        tiny_root,
        **{
            'model.backbone.norm_cfg': {'type': 'GN', 'num_groups': 4, '_delete_': True},
            'model.train_cfg.rpn.sampler.num': 100_000,
            'model.train_cfg.rcnn.sampler.num': 100_000,
            'model.train_cfg.rcnn.match_rois_per_image': 100_000,
            'train_dataloader.dataset.pipeline.3.prob': 0.0,
            'load_from': str(folder / 'start.pth'),
        },
    )
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model | {'_scope_': 'mmdet'})
    model.init_weights()
    torch.save({'state_dict': model.state_dict()}, folder / 'start.pth')
    return folder


def step_of(folder: Path, work_dir: Path, batch_size: int, processes: int = 1) -> torch.Tensor:
    """The change of all parameters and running statistics in one epoch of training, as one vector."""
    options = ('--cfg-options', f'train_dataloader.batch_size={batch_size}')
    run_tool('train.py', folder / 'config.py', '--work-dir', work_dir, *options, processes=processes, cwd=folder)
    start, end = (load_checkpoint_file(path)['state_dict'] for path in (folder / 'start.pth', work_dir / 'epoch_1.pth'))
    assert start.keys() == end.keys()
    # The garments of a batch are in the memory of the match head in the order of ranks.
    return torch.cat([(end[name] - start[name]).flatten() for name in start if '.memory.' not in name])


def test_two_processes_train_as_one_does(without_chance, tmp_path):
    one = step_of(without_chance, tmp_path / 'one', batch_size=4)
    two = step_of(without_chance, tmp_path / 'two', batch_size=2, processes=2)
    # When each half of a batch normalised its own losses, the difference was 0.026.
    assert (one - two).norm() < 0.0005 * one.norm()


def damage_behind_the_header(path):
    """Replaces an image by a PNG file that only decoding finds to be damaged."""
    exif = Image.Exif()
    exif[0x0112] = 1  # with the tag before the pixels, the header alone says how large the image is
    Image.open(path).save(path.with_suffix('.png'), exif=exif)
    path.unlink()
    data = bytearray(path.with_suffix('.png').read_bytes())
    for place in range(len(data) // 3, len(data) // 2):
        data[place] ^= 0xFF
    path.with_suffix('.png').write_bytes(data)


def test_images_that_cannot_be_used_are_named_and_the_others_go_on(run, tiny_root, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(tiny_root, root)
    for split in ('train', 'validation'):
        damage_behind_the_header(root / split / 'image' / '000003.jpg')
        shutil.rmtree(root / f'{split}.store', ignore_errors=True)
        assert not prepare(root, split).problems
    config = write_config(tmp_path / 'run', root, **{'train_dataloader.num_workers': 1})
    trained = run_tool('train.py', config, '--work-dir', tmp_path / 'work')
    assert '000003.png is not a readable image' in trained and 'another image takes its place' in trained
    assert len(losses(tmp_path / 'work')) == ITERATIONS_PER_EPOCH
    dump = ('--dump', tmp_path / 'dump', '--show-dir', tmp_path / 'pictures')
    tested = run_tool('test.py', config, tmp_path / 'work' / 'epoch_1.pth', '--work-dir', tmp_path / 'test', *dump)
    for metric in ('DeepFashion2Metric', 'RetrievalMetric'):
        assert f'{metric}: 1 of 16 images could not be used and are left out of the figures' in tested
    assert '000003.png is not a readable image' in tested
    boxes = json.loads((tmp_path / 'dump' / 'results.bbox.json').read_text())
    assert {entry['image_id'] for entry in boxes} <= set(range(1, 17)) - {3} and len(boxes) > 15
    assert len(list((tmp_path / 'test').rglob('*.jpg')) + list((tmp_path / 'pictures').rglob('*.jpg'))) == 15

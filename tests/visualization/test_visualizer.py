"""The visualizer, called with data samples and by the hook."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks
from mmengine.registry import VISUALIZERS as ROOT_VISUALIZERS
from mmengine.structures import InstanceData
from PIL import Image

from mmdf2.images import read_image, write_image
from mmdf2.registry import HOOKS
from mmdf2.visualization import ClothesVisualizer
from mmdf2.visualization.hook import ClothesVisualizationHook

GREY = 127


def make_sample(count=1):
    boxes = torch.tensor([[20.0, 30, 80, 90]]).repeat(count, 1)
    points = boxes[:, None, :2] + torch.rand(count, 39, 2, generator=torch.Generator().manual_seed(0)) * 60
    polygon = [np.array([20.0, 30, 80, 30, 80, 90, 20, 90])]
    return DetDataSample(
        gt_instances=InstanceData(
            bboxes=HorizontalBoxes(boxes),
            labels=torch.zeros(count, dtype=torch.long),
            masks=PolygonMasks([polygon] * count, 100, 120),
            keypoints=points,
            keypoints_visible=torch.full((count, 39), 2, dtype=torch.uint8),
            identities=torch.zeros(count, dtype=torch.long),
        ),
        pred_instances=InstanceData(
            bboxes=boxes,
            scores=torch.full((count,), 0.6, dtype=torch.bfloat16),
            labels=torch.full((count,), 8),
            masks=torch.ones(count, 100, 120, dtype=torch.bool),
            keypoints=points,
            keypoint_scores=torch.rand(count, 39, generator=torch.Generator().manual_seed(1)),
            embeddings=torch.zeros(count, 8),
        ),
    )


def draw(tmp_path, sample, **kwargs):
    visualizer = ClothesVisualizer()
    image = np.full((100, 120, 3), GREY, np.uint8)
    visualizer.add_datasample('picture', image, sample, out_file=str(tmp_path / 'out.png'), **kwargs)
    return read_image(tmp_path / 'out.png')


def test_ground_truth_and_prediction_stand_side_by_side(tmp_path):
    picture = draw(tmp_path, make_sample())
    assert picture.shape == (100, 240, 3)
    truth, prediction = picture[:, :120], picture[:, 120:]
    assert (truth[5, 5] == GREY).all() and not (truth[60, 50] == GREY).all()
    # The predicted mask covers the image.
    assert not (prediction[95, 5] == GREY).all()


@pytest.mark.parametrize('count', [0, 1, 3])
def test_threshold_and_absent_parts(tmp_path, count):
    sample = make_sample(count)
    assert draw(tmp_path, sample, draw_gt=False).shape == (100, 120, 3)
    assert (draw(tmp_path, sample, draw_gt=False, pred_score_thr=0.7) == GREY).all()
    assert (draw(tmp_path, None) == GREY).all()


def test_boxes_alone_are_enough(tmp_path):
    sample = DetDataSample(
        pred_instances=InstanceData(bboxes=torch.tensor([[5.0, 5, 60, 60]]), labels=torch.tensor([1]))
    )
    assert (draw(tmp_path, sample) != GREY).any()


@pytest.mark.parametrize('scope', ['mmdet', 'mmengine'])
def test_found_by_name_and_writes_to_backends(tmp_path, scope):
    config = {
        'type': 'mmdf2.ClothesVisualizer',
        'name': f'visualizer of {scope}',
        'vis_backends': [{'type': 'mmengine.LocalVisBackend'}],
        'save_dir': str(tmp_path),
        '_scope_': scope,
    }
    visualizer = ROOT_VISUALIZERS.build(config)
    visualizer.add_datasample('val_img', np.full((100, 120, 3), GREY, np.uint8), make_sample(), step=7)
    assert [path.name for path in tmp_path.rglob('*.png')] == ['val_img_7.png']


def test_the_hook_draws_upright_images_and_names_those_that_it_cannot_read(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.full((120, 100), GREY * 257, np.uint16)
    Image.fromarray(lying).save(tmp_path / 'input.png', exif=exif)
    (tmp_path / 'broken.png').write_bytes(b'no image')
    ClothesVisualizer.get_instance('for the hook')
    hook = HOOKS.build(
        {'type': 'mmdf2.ClothesVisualizationHook', 'draw': True, 'test_out_dir': 'pictures', 'score_thr': 0.5}
    )
    assert isinstance(hook, ClothesVisualizationHook)
    samples = [make_sample(), make_sample()]
    for sample, name in zip(samples, ('broken.png', 'input.png'), strict=True):
        sample.set_metainfo({'img_path': str(tmp_path / name)})
    runner = SimpleNamespace(work_dir=str(tmp_path), timestamp='now', iter=0)
    for index in range(2):
        hook.after_test_iter(runner, index, {}, samples)
    assert [path.name for path in (tmp_path / 'now' / 'pictures').iterdir()] == ['input.png']
    picture = read_image(tmp_path / 'now' / 'pictures' / 'input.png')
    assert picture.shape == (100, 240, 3)
    assert (picture[:8, :8] == GREY).all()


def test_the_hook_draws_every_so_many_batches_of_validation(tmp_path):
    write_image(tmp_path / 'input.png', np.full((100, 120, 3), GREY, np.uint8))
    drawn = []
    ClothesVisualizer.get_instance('for the hook')
    hook = ClothesVisualizationHook(draw=True, interval=3)
    hook._visualizer = SimpleNamespace(add_datasample=lambda name, image, step, **options: drawn.append((name, step)))
    sample = make_sample()
    sample.set_metainfo({'img_path': str(tmp_path / 'input.png')})
    for index in range(7):
        hook.after_val_iter(SimpleNamespace(iter=10), index, {}, [sample])
    assert drawn == [('val_img', 12), ('val_img', 15)]

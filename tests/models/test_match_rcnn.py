import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmdf2.categories import LANDMARK_COUNTS, MAX_LANDMARKS
from mmdf2.models.roi_heads.clothing_pose_head import CategoryLogits

from .tiny import SIZE, build_tiny, make_batch, make_sample

LOSSES = {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask', 'loss_keypoint', 'loss_match'}


def losses_and_gradients(model, images, samples):
    """The losses of a training step; they are checked to be finite and to reach every parameter."""
    model.train()
    losses = model(images, samples, mode='loss')
    total, scalars = model.parse_losses(losses)
    total.backward()
    assert all(torch.isfinite(torch.as_tensor(value)) for value in scalars.values()), scalars
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without, f'no finite gradient: {without}'
    return scalars


def single_images(count, garments, **kwargs):
    rng = np.random.default_rng(0)
    samples = [make_sample(rng, garments, **kwargs) for _ in range(count)]
    return torch.randn(count, 3, SIZE, SIZE), samples


def strip(samples, *names):
    for sample in samples:
        for name in names:
            delattr(sample.gt_instances, name)


def test_seven_losses_with_gradients_for_every_parameter():
    scalars = losses_and_gradients(build_tiny(), *make_batch())
    assert set(scalars) >= LOSSES
    assert all(scalars[name] > 0 for name in LOSSES)


def test_options_of_matching_with_gradients_for_every_parameter():
    options = {'true_metric': True, 'same_category_weight': 4.0, 'contrastive_weight': 0.5}
    model = build_tiny(match_head=TINY | VARIANTS['pose'] | options)
    scalars = losses_and_gradients(model, *make_batch())
    assert scalars['loss_match'] > 0 and scalars['loss_match_contrastive'] > 0
    similarity = predict(model, *make_batch())[0].match_similarity
    assert (similarity['weight'][0] <= similarity['weight'][1]).all()


def test_images_without_garments():
    scalars = losses_and_gradients(build_tiny(), *single_images(2, 0, source='user', pair_id=1))
    assert all(scalars[name] == 0 for name in ('loss_mask', 'loss_keypoint', 'loss_match', 'loss_bbox'))


def test_one_image_with_one_garment():
    losses_and_gradients(build_tiny(), *single_images(1, 1, source='shop', pair_id=1, identities=[5]))


def test_images_without_landmarks():
    images, samples = make_batch(visible=False)
    assert losses_and_gradients(build_tiny(), images, samples)['loss_keypoint'] == 0


def test_images_of_a_dataset_without_landmarks_or_identities():
    images, samples = make_batch()
    strip(samples, 'keypoints', 'keypoints_visible', 'identities')
    scalars = losses_and_gradients(build_tiny(), images, samples)
    assert scalars['loss_keypoint'] == 0


def test_images_without_source_or_identity():
    scalars = losses_and_gradients(build_tiny(), *single_images(2, 2))
    assert scalars['loss_match'] == 0 and scalars['loss_mask'] > 0


def test_a_batch_without_a_positive_pair():
    rng = np.random.default_rng(0)
    samples = [make_sample(rng, 2, 'user', 1, [7, -1]), make_sample(rng, 2, 'shop', 2, [9, 10])]
    scalars = losses_and_gradients(build_tiny(), torch.randn(2, 3, SIZE, SIZE), samples)
    assert scalars['loss_match'] > 0


def test_caps_on_training_rois():
    model = build_tiny()
    model.roi_head.train_cfg.update(stream_rois_per_image=3, match_rois_per_image=2)
    seen = {}
    for name in ('mask_head', 'keypoint_head', 'match_head'):
        head = getattr(model.roi_head, name)
        module = head.conv_logits if name == 'mask_head' else head.predictor if name == 'keypoint_head' else head.embed
        module.register_forward_hook(lambda _, inputs, __, name=name: seen.update({name: len(inputs[0])}))
    losses_and_gradients(model, *single_images(2, 5))
    assert seen == {'mask_head': 6, 'keypoint_head': 6, 'match_head': 4}


def test_nothing_is_aligned_twice():
    model = build_tiny().eval()
    calls = {'bbox': 0, 'mask': 0}
    for name in calls:
        extractor = getattr(model.roi_head, f'{name}_roi_extractor')
        extractor.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    images, samples = make_batch()
    strip_gt_protocol(model)
    predict(model, images, samples)
    assert calls == {'bbox': 1, 'mask': 1}
    losses_and_gradients(model, images, samples)
    assert calls == {'bbox': 2, 'mask': 2}


def strip_gt_protocol(model):
    model.roi_head.test_cfg.embed_gt_boxes = False


@torch.no_grad()
def predict(model, images, samples):
    model.eval()
    return model(images, samples, mode='predict')


VARIANTS = {
    'class': {'sources': ('class',), 'in_channels': 16},
    'pose': {'sources': ('pose',), 'in_channels': 24},
    'mask': {'sources': ('mask',), 'in_channels': 16},
    'pose+class': {'sources': ('pose', 'class'), 'in_channels': 40},
    'mask+class': {'sources': ('mask', 'class'), 'in_channels': 32},
}
NO_MASK = {'mask_head': None, 'mask_roi_extractor': None}
KEYPOINT_EXTRACTOR = {
    'type': 'SingleRoIExtractor',
    'roi_layer': {'type': 'RoIAlign', 'output_size': 14, 'sampling_ratio': 0},
    'out_channels': 16,
    'featmap_strides': [4, 8, 16, 32],
}
TINY = {'type': 'mmdf2.MatchHead', 'conv_channels': (16, 32), 'embed_dims': 8}


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_matching_variant_trains_and_predicts(variant):
    model = build_tiny(match_head=TINY | VARIANTS[variant])
    images, samples = make_batch()
    assert losses_and_gradients(model, images, samples)['loss_match'] > 0
    predictions = predict(model, images, samples)[0].pred_instances
    assert predictions.embeddings.shape == (6, 8)


@pytest.mark.parametrize(
    'absent, missing',
    [
        (NO_MASK | {'keypoint_roi_extractor': KEYPOINT_EXTRACTOR}, {'masks'}),
        ({'keypoint_head': None, 'match_head': TINY | VARIANTS['mask']}, {'keypoints', 'keypoint_scores'}),
        ({'match_head': None}, {'embeddings'}),
        (
            {
                'mask_head': None,
                'mask_roi_extractor': None,
                'keypoint_head': None,
                'match_head': TINY | VARIANTS['class'],
            },
            {'masks', 'keypoints', 'keypoint_scores'},
        ),
    ],
    ids=['no mask', 'no landmarks', 'no matching', 'boxes and matching'],
)
def test_each_stream_may_be_absent(absent, missing):
    model = build_tiny(**absent)
    images, samples = make_batch()
    losses_and_gradients(model, images, samples)
    sample = predict(model, images, samples)[0]
    everything = {'bboxes', 'scores', 'labels', 'masks', 'keypoints', 'keypoint_scores', 'embeddings'}
    assert set(sample.pred_instances.keys()) == everything - missing
    assert ('match_similarity' in sample) == ('embeddings' not in missing)
    assert (sample.pred_instances.bboxes <= SIZE).all()


def test_a_source_that_is_absent_is_an_error():
    with pytest.raises(ValueError, match="'pose'"):
        build_tiny(keypoint_head=None)


def test_mmdets_own_mask_head_is_refused_by_name():
    with pytest.raises(ValueError, match='FCNMaskHead'):
        build_tiny(mask_head={'type': 'FCNMaskHead', 'num_convs': 1, 'in_channels': 16, 'conv_out_channels': 16})


def test_predictions_carry_every_stream():
    images, samples = make_batch()
    sample = predict(build_tiny(), images, samples)[1]
    found = sample.pred_instances
    count = len(found)
    assert count == 6
    shapes = {name: tuple(found[name].shape) for name in found.keys()}  # noqa: SIM118
    assert shapes == {
        'bboxes': (count, 4),
        'scores': (count,),
        'labels': (count,),
        'masks': (count, SIZE, SIZE),
        'keypoints': (count, MAX_LANDMARKS, 2),
        'keypoint_scores': (count, MAX_LANDMARKS),
        'embeddings': (count, 8),
    }
    beyond = torch.arange(MAX_LANDMARKS) >= torch.as_tensor(LANDMARK_COUNTS)[found.labels][:, None]
    assert (found.keypoints[beyond] == 0).all() and (found.keypoint_scores[beyond] == 0).all()
    assert (found.keypoint_scores[~beyond] > 0).all()
    low, high = found.bboxes[:, None, :2] - 1e-3, found.bboxes[:, None, 2:] + 1e-3
    assert ((found.keypoints >= low) & (found.keypoints <= high)).all(dim=-1)[~beyond].all()
    assert sample.match_similarity['weight'].shape == (2, 8) and sample.match_similarity['bias'].shape == (2,)


def test_no_detections():
    model = build_tiny()
    model.roi_head.test_cfg.score_thr = 0.999
    images, samples = make_batch()
    for sample in predict(model, images, samples):
        shapes = {name: tuple(sample.pred_instances[name].shape) for name in sample.pred_instances.keys()}  # noqa: SIM118
        assert shapes == {
            'bboxes': (0, 4),
            'scores': (0,),
            'labels': (0,),
            'masks': (0, SIZE, SIZE),
            'keypoints': (0, MAX_LANDMARKS, 2),
            'keypoint_scores': (0, MAX_LANDMARKS),
            'embeddings': (0, 8),
        }


def test_detections_in_some_images_only():
    model = build_tiny()
    images, samples = make_batch(pairs=1)
    levels = model.extract_feat(images)
    boxes = torch.tensor([[5.0, 5.0, 60.0, 60.0]])
    results = [
        InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)),
        InstanceData(bboxes=boxes, labels=torch.tensor([3])),
    ]
    metainfo = [sample.metainfo for sample in samples]
    with torch.no_grad():
        none, one = model.roi_head.predict_streams(levels, results, metainfo, rescale=True)
    assert none.keypoints.shape == (0, MAX_LANDMARKS, 2) and none.embeddings.shape == (0, 8)
    assert one.keypoints.shape == (1, MAX_LANDMARKS, 2) and one.masks.shape == (1, SIZE, SIZE)


@pytest.mark.parametrize('with_mask', [True, False])
def test_boxes_landmarks_and_masks_return_to_the_original_image(with_mask):
    scale_factor = (0.5, 0.25)
    model = build_tiny().eval()
    if not with_mask:
        model.roi_head.mask_head = None
    box = torch.tensor([[16.0, 8.0, 72.0, 64.0]])
    head = model.roi_head.keypoint_head
    # Every heatmap is hot in row 30, column 12 of 56, whatever the features are.
    logits = torch.zeros(1, int(LANDMARK_COUNTS[6]), 56, 56)
    logits[:, :, 30, 12] = 40
    head.predictor.forward = lambda features, labels: [head_logits(labels, logits)]
    meta = {'scale_factor': scale_factor, 'ori_shape': (SIZE * 4, SIZE * 2), 'img_shape': (SIZE, SIZE)}
    results = [InstanceData(bboxes=box.clone(), labels=torch.tensor([6]), scores=torch.ones(1))]
    with torch.no_grad():
        found = model.roi_head.predict_streams(model.extract_feat(torch.randn(1, 3, SIZE, SIZE)), results, [meta], True)
    expected = torch.tensor([(16 + 12.5) / 0.5, (8 + 30.5) / 0.25])
    torch.testing.assert_close(found[0].keypoints[0, 0], expected)
    torch.testing.assert_close(found[0].bboxes, torch.tensor([[32.0, 32.0, 144.0, 256.0]]))
    if with_mask:
        assert found[0].masks.shape == (1, SIZE * 4, SIZE * 2)


def head_logits(labels, logits):
    return CategoryLogits(int(labels[0]), torch.arange(len(labels)), logits)


def test_embeddings_of_ground_truth_boxes_are_those_of_equal_detections():
    model = build_tiny()
    images, samples = make_batch(scale=0.5)
    for sample in samples:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes / 0.5
    gts = [sample.gt_instances for sample in samples]
    predict(model, images, samples)
    detections = [InstanceData(bboxes=gt.bboxes * 0.5, labels=gt.labels, scores=torch.ones(len(gt))) for gt in gts]
    with torch.no_grad():
        levels = model.extract_feat(images)
        found = model.roi_head.predict_streams(levels, detections, [sample.metainfo for sample in samples], True)
    for sample, detection, gt in zip(samples, found, gts, strict=True):
        torch.testing.assert_close(sample.gt_box_instances.bboxes, gt.bboxes)
        torch.testing.assert_close(sample.gt_box_instances.embeddings, detection.embeddings)
        assert torch.equal(sample.gt_box_instances.labels, gt.labels)


def test_no_ground_truth_embeddings_unless_asked_for():
    model = build_tiny()
    strip_gt_protocol(model)
    images, samples = make_batch()
    assert all('gt_box_instances' not in sample for sample in predict(model, images, samples))


def test_ground_truth_protocol_without_garments():
    images, samples = single_images(2, 0)
    for sample in predict(build_tiny(), images, samples):
        assert sample.gt_box_instances.embeddings.shape == (0, 8)


def test_larger_pose_rois():
    model = build_tiny()
    model.roi_head.keypoint_head.roi_scale = 1.5
    images, samples = make_batch()
    losses_and_gradients(model, images, samples)
    assert torch.isfinite(predict(model, images, samples)[0].pred_instances.keypoints).all()


def test_bfloat16_autocast_trains_and_predicts():
    model = build_tiny()
    images, samples = make_batch()
    with torch.autocast('cpu', torch.bfloat16):
        model.train()
        losses = model(images, samples, mode='loss')
        values = [value for name in LOSSES for value in (losses[name] if 'rpn' in name else [losses[name]])]
        assert {value.dtype for value in values} == {torch.float32}
        total, _ = model.parse_losses(losses)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.autocast('cpu', torch.bfloat16):
        found = predict(model, images, samples)[0].pred_instances
    assert {found[name].dtype for name in ('bboxes', 'scores', 'keypoints', 'embeddings')} == {torch.float32}


def test_channels_last_changes_nothing():
    images, samples = make_batch()
    expected = predict(build_tiny(), images, samples)[0].pred_instances
    model = build_tiny().to(memory_format=torch.channels_last)
    found = predict(model, images.to(memory_format=torch.channels_last), make_batch()[1])[0].pred_instances
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.embeddings, expected.embeddings, rtol=1e-2, atol=1e-3)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for with_cp in (False, True):
        model = build_tiny()
        for block in (block for stage in range(1, 5) for block in getattr(model.backbone, f'layer{stage}')):
            block.with_cp = with_cp
        torch.manual_seed(1)
        losses_and_gradients(model, *make_batch())
        gradients.append(model.backbone.layer1[0].conv1.weight.grad)
    torch.testing.assert_close(*gradients)


def test_tensor_mode():
    images, samples = make_batch()
    model = build_tiny().eval()
    with torch.no_grad():
        ((scores, deltas, masks, landmarks, embeddings),) = model(images, samples, mode='tensor')
    assert scores.shape[1] == 14 and deltas.shape[1] == 52 and masks.shape[1:] == (13, 28, 28)
    assert sum(len(logits) for logits in landmarks) == len(masks) == len(embeddings)


@pytest.mark.slow
def test_a_few_steps_overfit_one_batch():
    model = build_tiny()
    images, samples = make_batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    torch.manual_seed(0)
    history = []
    for _ in range(25):
        optimizer.zero_grad()
        history.append(losses_and_gradients(model, images, samples))
        optimizer.step()
    for name in ('loss_cls', 'loss_mask', 'loss_keypoint', 'loss_match'):
        assert history[-1][name] < 0.9 * history[0][name], name

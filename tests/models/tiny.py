"""A Match R-CNN small enough for tests, and made-up batches for it."""

from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from mmdf2.categories import LANDMARK_COUNTS, MAX_LANDMARKS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/_base_/models/match-rcnn_r50_fpn.py'
CHANNELS = 16
SIZE = 96


def tiny_config(**roi_head) -> Config:
    """The model config of the paper with few channels and RoIs; ``roi_head`` overrides keys of ``model.roi_head``."""
    config = Config.fromfile(str(CONFIG)).model
    config.backbone.update(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
    config.neck.update(in_channels=[8, 16, 32, 64], out_channels=CHANNELS)
    config.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    head = config.roi_head
    head.bbox_roi_extractor.out_channels = head.mask_roi_extractor.out_channels = CHANNELS
    head.bbox_head.update(in_channels=CHANNELS, fc_out_channels=32)
    head.mask_head.update(in_channels=CHANNELS, conv_out_channels=CHANNELS, num_convs=1)
    head.keypoint_head.update(in_channels=CHANNELS, conv_channels=24, num_convs=2)
    head.match_head.update(in_channels=24, conv_channels=(16, 32), embed_dims=8)
    config.train_cfg.rcnn.sampler.num = 32
    config.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
    config.test_cfg.rpn.update(nms_pre=100, max_per_img=20)
    config.test_cfg.rcnn.update(score_thr=0.0, max_per_img=6)
    head.update(roi_head)
    return config


def build_tiny(seed=0, **roi_head):
    """The tiny detector with initial weights."""
    torch.manual_seed(seed)
    model = MODELS.build(tiny_config(**roi_head) | {'_scope_': 'mmdet'})
    model.init_weights()
    return model


def make_sample(rng, count, source=None, pair_id=None, identities=None, scale=1.0, visible=True) -> DetDataSample:
    """A sample of ``count`` garment instances in a SIZE x SIZE input; every landmark lies inside its box."""
    corner = rng.uniform(0, SIZE / 2, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(SIZE / 4, SIZE / 2 - 1, (count, 2))], axis=1)
    labels = rng.integers(0, 13, count)
    keypoints = boxes[:, None, :2] + rng.random((count, MAX_LANDMARKS, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2])
    flags = rng.integers(1, 3, (count, MAX_LANDMARKS)) * (np.arange(MAX_LANDMARKS) < LANDMARK_COUNTS[labels][:, None])
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
            masks=BitmapMasks(masks, SIZE, SIZE),
            keypoints=torch.tensor(keypoints, dtype=torch.float32),
            keypoints_visible=torch.tensor(flags * visible, dtype=torch.uint8),
            identities=torch.tensor([-1] * count if identities is None else identities, dtype=torch.long),
        )
    )
    original = round(SIZE / scale)
    sample.set_metainfo(
        {
            'img_id': 0,
            'img_shape': (SIZE, SIZE),
            'ori_shape': (original, original),
            'pad_shape': (SIZE, SIZE),
            'batch_input_shape': (SIZE, SIZE),
            'scale_factor': (SIZE / original, SIZE / original),
        }
    )
    if source is not None:
        sample.set_metainfo({'source': source, 'pair_id': pair_id})
    return sample


def make_batch(seed=0, pairs=2, **kwargs):
    """Images and samples of ``pairs`` user and shop images that share an identity."""
    rng = np.random.default_rng(seed)
    samples = []
    for pair in range(pairs):
        identities = [pair * 65536 + 1, -1]
        samples += [
            make_sample(rng, 2, source, pair_id=pair, identities=identities, **kwargs) for source in ('user', 'shop')
        ]
    return torch.randn(len(samples), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)), samples

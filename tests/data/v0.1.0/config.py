auto_scale_lr = dict(base_batch_size=16, enable=False)
backend_args = None
data_root = 'tests/data/v0.1.0/dataset'
dataset_type = 'mmdf2.DeepFashion2Dataset'
default_hooks = dict(
    checkpoint=dict(
        interval=160,
        max_keep_ckpts=3,
        save_optimizer=False,
        type='CheckpointHook'),
    epoch_seed=dict(type='mmdf2.EpochSeedHook'),
    logger=dict(interval=50, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'),
    visualization=dict(type='DetVisualizationHook'))
default_scope = 'mmdet'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=True, type='LogProcessor', window_size=50)
model = dict(
    backbone=dict(
        base_channels=4,
        depth=18,
        frozen_stages=-1,
        init_cfg=None,
        norm_cfg=dict(requires_grad=True, type='BN'),
        norm_eval=False,
        num_stages=4,
        out_indices=(
            0,
            1,
            2,
            3,
        ),
        style='pytorch',
        type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            123.675,
            116.28,
            103.53,
        ],
        pad_mask=True,
        pad_size_divisor=32,
        std=[
            58.395,
            57.12,
            57.375,
        ],
        type='DetDataPreprocessor'),
    neck=dict(
        in_channels=[
            4,
            8,
            16,
            32,
        ], num_outs=5, out_channels=8, type='FPN'),
    roi_head=dict(
        bbox_head=dict(
            bbox_coder=dict(
                target_means=[
                    0.0,
                    0.0,
                    0.0,
                    0.0,
                ],
                target_stds=[
                    0.1,
                    0.1,
                    0.2,
                    0.2,
                ],
                type='DeltaXYWHBBoxCoder'),
            fc_out_channels=24,
            in_channels=8,
            loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
            loss_cls=dict(
                loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=False),
            num_classes=13,
            reg_class_agnostic=False,
            roi_feat_size=7,
            type='Shared2FCBBoxHead'),
        bbox_roi_extractor=dict(
            featmap_strides=[
                4,
                8,
                16,
                32,
            ],
            out_channels=8,
            roi_layer=dict(output_size=7, sampling_ratio=0, type='RoIAlign'),
            type='SingleRoIExtractor'),
        keypoint_head=dict(
            conv_channels=8,
            in_channels=8,
            num_convs=2,
            num_deconvs=2,
            type='mmdf2.ClothingPoseHead'),
        keypoint_roi_extractor=None,
        mask_head=dict(
            conv_out_channels=8,
            in_channels=8,
            loss_mask=dict(
                loss_weight=1.0, type='CrossEntropyLoss', use_mask=True),
            num_classes=13,
            num_convs=1,
            type='mmdf2.ClothesMaskHead'),
        mask_roi_extractor=dict(
            featmap_strides=[
                4,
                8,
                16,
                32,
            ],
            out_channels=8,
            roi_layer=dict(output_size=14, sampling_ratio=0, type='RoIAlign'),
            type='SingleRoIExtractor'),
        match_head=dict(
            conv_channels=(
                8,
                16,
            ),
            embed_dims=8,
            in_channels=8,
            sources=('pose', ),
            type='mmdf2.MatchHead'),
        type='mmdf2.ClothesRoIHead'),
    rpn_head=dict(
        anchor_generator=dict(
            ratios=[
                0.5,
                1.0,
                2.0,
            ],
            scales=[
                8,
            ],
            strides=[
                4,
                8,
                16,
                32,
                64,
            ],
            type='AnchorGenerator'),
        bbox_coder=dict(
            target_means=[
                0.0,
                0.0,
                0.0,
                0.0,
            ],
            target_stds=[
                1.0,
                1.0,
                1.0,
                1.0,
            ],
            type='DeltaXYWHBBoxCoder'),
        feat_channels=8,
        in_channels=8,
        loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
        loss_cls=dict(
            loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=True),
        type='RPNHead'),
    test_cfg=dict(
        rcnn=dict(
            embed_gt_boxes=True,
            mask_thr_binary=0.5,
            max_per_img=6,
            nms=dict(iou_threshold=0.5, type='nms'),
            score_thr=0.05),
        rpn=dict(
            max_per_img=20,
            min_bbox_size=0,
            nms=dict(iou_threshold=0.7, type='nms'),
            nms_pre=100)),
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(
                ignore_iof_thr=-1,
                match_low_quality=True,
                min_pos_iou=0.5,
                neg_iou_thr=0.5,
                pos_iou_thr=0.5,
                type='MaxIoUAssigner'),
            debug=False,
            mask_size=28,
            match_rois_per_image=8,
            pos_weight=-1,
            sampler=dict(
                add_gt_as_proposals=True,
                neg_pos_ub=-1,
                num=32,
                pos_fraction=0.25,
                type='RandomSampler')),
        rpn=dict(
            allowed_border=-1,
            assigner=dict(
                ignore_iof_thr=-1,
                match_low_quality=True,
                min_pos_iou=0.3,
                neg_iou_thr=0.3,
                pos_iou_thr=0.7,
                type='MaxIoUAssigner'),
            debug=False,
            pos_weight=-1,
            sampler=dict(
                add_gt_as_proposals=False,
                neg_pos_ub=-1,
                num=256,
                pos_fraction=0.5,
                type='RandomSampler')),
        rpn_proposal=dict(
            max_per_img=50,
            min_bbox_size=0,
            nms=dict(iou_threshold=0.7, type='nms'),
            nms_pre=100)),
    type='mmdf2.MatchRCNN')
optim_wrapper = dict(
    optimizer=dict(lr=0.004, type='Adam'), type='OptimWrapper')
param_scheduler = [
    dict(begin=0, by_epoch=True, end=160, type='CosineAnnealingLR'),
]
randomness = dict(seed=0)
resume = False
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root='tests/data/v0.1.0/dataset',
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(
                96,
                64,
            ), type='mmdf2.Resize'),
            dict(type='mmdf2.LoadClothesAnnotations', with_mask=False),
            dict(type='mmdf2.PackClothesInputs'),
        ],
        split='validation',
        test_mode=True,
        type='mmdf2.DeepFashion2Dataset'),
    drop_last=False,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = [
    dict(
        data_root='tests/data/v0.1.0/dataset',
        split='validation',
        type='mmdf2.DeepFashion2Metric'),
    dict(
        data_root='tests/data/v0.1.0/dataset',
        split='validation',
        type='mmdf2.RetrievalMetric'),
]
test_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(keep_ratio=True, scale=(
        1333,
        800,
    ), type='mmdf2.Resize'),
    dict(type='mmdf2.LoadClothesAnnotations', with_mask=False),
    dict(type='mmdf2.PackClothesInputs'),
]
train_cfg = dict(max_epochs=160, type='EpochBasedTrainLoop', val_interval=1)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root='tests/data/v0.1.0/dataset',
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(type='mmdf2.LoadClothesAnnotations'),
            dict(keep_ratio=True, scale=(
                96,
                64,
            ), type='mmdf2.Resize'),
            dict(prob=0.5, type='mmdf2.RandomFlip'),
            dict(type='mmdf2.PackClothesInputs'),
        ],
        split='validation',
        type='mmdf2.DeepFashion2Dataset'),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='mmdf2.PairSampler'))
train_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(type='mmdf2.LoadClothesAnnotations'),
    dict(keep_ratio=True, scale=(
        1333,
        800,
    ), type='mmdf2.Resize'),
    dict(prob=0.5, type='mmdf2.RandomFlip'),
    dict(type='mmdf2.PackClothesInputs'),
]
val_cfg = None
val_dataloader = None
val_evaluator = None
visualizer = dict(
    name='visualizer',
    type='mmdf2.ClothesVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
    ])

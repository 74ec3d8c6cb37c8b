# A Match R-CNN that trains on two CPU cores in less than 20 minutes, on the images that tools/make_wardrobe.py draws.
_base_ = ['../_base_/models/match-rcnn_r50_fpn.py', '../_base_/datasets/wardrobe.py', '../_base_/default_runtime.py']

# Garments fill much of an image, so the pyramid starts at stride 8; stride 4 would take half of the time and improve
# nothing.
strides = [8, 16, 32]
channels = 64
base_channels = 48
# The statistics of all processes: embeddings of garments from different processes are compared. The backbone keeps the
# running statistics that come with its weights, because sharing those of each layer would take a fifth of the time.
norm_cfg = dict(type='mmdf2.BatchNorm', sync=True)

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        depth=18,
        base_channels=base_channels,
        stem_channels=base_channels,
        frozen_stages=-1,
        norm_eval=True,
        # These weights were trained on another wardrobe with match-rcnn_r18-narrow_scratch_wardrobe.py, see README.md.
        init_cfg=dict(type='Pretrained', checkpoint='mmdf2://resnet18-narrow_wardrobe'),
    ),
    neck=dict(
        in_channels=[base_channels, base_channels * 2, base_channels * 4, base_channels * 8],
        out_channels=channels,
        start_level=1,
        num_outs=3,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4, 5.66], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, featmap_strides=strides),
        bbox_head=dict(in_channels=channels, fc_out_channels=512, reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=channels, featmap_strides=strides),
        mask_head=dict(
            num_convs=2, in_channels=channels, conv_out_channels=channels, class_agnostic=True, norm_cfg=norm_cfg
        ),
        keypoint_head=dict(
            num_convs=3,
            in_channels=channels,
            conv_channels=96,
            num_deconvs=1,
            norm_cfg=norm_cfg,
            loss_weight=0.5,
        ),
        match_head=dict(sources=('class', 'pose'), in_channels=channels + 96, conv_channels=(96, 96), embed_dims=128),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=48), stream_rois_per_image=6, match_rois_per_image=6),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=20)),
)

max_epochs = 2
optim_wrapper = dict(
    type='mmdf2.CpuAmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [dict(type='mmdf2.ChannelsLastHook', priority='VERY_LOW')]
# Validation comes once, after the last epoch.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best=None))

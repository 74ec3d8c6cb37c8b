# Trains the backbone that the demo starts from: from random weights, with more epochs and averaged weights.
_base_ = './match-rcnn_r18-narrow_wardrobe.py'

norm_cfg = dict(type='mmdf2.BatchNorm', sync=True)

max_epochs = 4
model = dict(backbone=dict(norm_cfg=norm_cfg, norm_eval=False, init_cfg=None))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
custom_hooks = [
    dict(type='mmdf2.ChannelsLastHook', priority='VERY_LOW'),
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.002, gamma=200, update_buffers=True),
]

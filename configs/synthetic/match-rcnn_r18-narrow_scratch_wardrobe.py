# Trains the backbone that the demo starts from: from random weights, on more garments, and with averaged weights.
_base_ = './match-rcnn_r18-narrow_wardrobe.py'

# Statistics of each process's own images: those of all processes would take a fifth of the time, see README.md.
model = dict(backbone=dict(norm_eval=False, init_cfg=None))
custom_hooks = [
    dict(type='mmdf2.ChannelsLastHook', priority='VERY_LOW'),
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.002, gamma=200, update_buffers=True),
]

# The s1x schedule: 1.44 x 12 = 17.28 epochs, rounded; the learning rate drops where that of Detectron's 'stretched 1x'
# does.
_base_ = './schedule_1x.py'

train_cfg = dict(max_epochs=17)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=17, by_epoch=True, milestones=[13, 16], gamma=0.1),
]

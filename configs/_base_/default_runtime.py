default_scope = 'mmdet'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # The best checkpoint is the one that finds garments again, for which boxes and categories must be right, too.
    # For a model without a matching stream take bbox_AP.
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3, save_best='retrieval_top1', rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    epoch_seed=dict(type='mmdf2.EpochSeedHook'),
    statistics=dict(type='mmdf2.SharedStatisticsHook'),
    validation_trial=dict(type='mmdf2.ValidationTrialHook'),
    visualization=dict(type='mmdf2.ClothesVisualizationHook'),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

visualizer = dict(type='mmdf2.ClothesVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False

_base_ = [
    '../_base_/models/match-rcnn_r50_fpn.py',
    '../_base_/datasets/deepfashion2.py',
    '../_base_/schedules/schedule_s1x.py',
    '../_base_/default_runtime.py',
]

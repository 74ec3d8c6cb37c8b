_base_ = './match-rcnn-pose_r50_fpn_1x_deepfashion2.py'

model = dict(roi_head=dict(match_head=dict(sources=('pose', 'class'), in_channels=512 + 256)))

# The similarity has no positive weights, so any Euclidean index can search it, see docs/match_options.md.
_base_ = './match-rcnn_r18-narrow_wardrobe.py'

model = dict(roi_head=dict(match_head=dict(true_metric=True)))

# Pairs of different garments of the same category count four times in the loss of the match head, see
# docs/match_options.md.
_base_ = './match-rcnn_r18-narrow_wardrobe.py'

model = dict(roi_head=dict(match_head=dict(same_category_weight=4.0)))

# Adds a contrastive loss to the loss of the match head, see docs/match_options.md.
_base_ = './match-rcnn_r18-narrow_wardrobe.py'

model = dict(roi_head=dict(match_head=dict(contrastive_weight=1.0)))

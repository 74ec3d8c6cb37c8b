# DeepFashion2 in its original folders: data_root/{train,validation}/{image,annos}.
data_root = 'data/deepfashion2'
dataset_type = 'mmdf2.DeepFashion2Dataset'
backend_args = None

train_pipeline = [
    dict(type='mmdf2.LoadImage', backend_args=backend_args),
    dict(type='mmdf2.LoadClothesAnnotations'),
    dict(type='mmdf2.Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='mmdf2.RandomFlip', prob=0.5),
    dict(type='mmdf2.PackClothesInputs'),
]
# Annotations are loaded after resizing, so they stay in the coordinates of the original image: retrieval with
# ground-truth boxes needs them so. Masks are not loaded, because items without a mask would be ignored.
test_pipeline = [
    dict(type='mmdf2.LoadImage', backend_args=backend_args),
    dict(type='mmdf2.Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='mmdf2.LoadClothesAnnotations', with_mask=False),
    dict(type='mmdf2.PackClothesInputs'),
]

# Two images on each of 8 GPUs are the paper's batch of 16 images: the sampler gives every process whole twos, and the
# matching stream compares the garments of all processes. Not every two is a pair of shared identity, since the images
# without a partner come too; an epoch is somewhat longer than the dataset, because shop images are partners of several
# user images. The first lines of the log say how much of both. sampler.pair_share=0.5 gives every batch that share of
# pairs and an epoch as many images as the dataset has; with pair_share=1, all twos are pairs, as in the paper.
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=False,
    sampler=dict(type='mmdf2.PairSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split='validation', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='mmdf2.DeepFashion2Metric', data_root=data_root, split='validation'),
    dict(type='mmdf2.RetrievalMetric', data_root=data_root, split='validation'),
]
test_evaluator = val_evaluator

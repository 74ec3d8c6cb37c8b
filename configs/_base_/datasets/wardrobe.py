# A synthetic wardrobe (tools/make_wardrobe.py). Images are resized to fit into a square of `image_size` pixels; batches
# consist of image pairs and of the images that are left.
data_root = 'data/wardrobe/'
# The tool and the arguments that draw the data; the tools show them when it is missing.
data_command = 'make_wardrobe --identities 800 --validation-identities 280 --size 320'
image_size = (224, 224)
batch_size = 8

train_pipeline = [
    dict(type='mmdf2.LoadImage', backend_args=None),
    dict(type='mmdf2.LoadClothesAnnotations'),
    dict(type='mmdf2.Resize', scale=image_size, keep_ratio=True),
    dict(type='mmdf2.RandomFlip', prob=0.5),
    dict(type='mmdf2.PackClothesInputs'),
]
test_pipeline = [
    dict(type='mmdf2.LoadImage', backend_args=None),
    dict(type='mmdf2.Resize', scale=image_size, keep_ratio=True),
    dict(type='mmdf2.LoadClothesAnnotations', with_mask=False),
    dict(type='mmdf2.PackClothesInputs'),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='mmdf2.PairSampler', fill=True, seed=0),
    dataset=dict(type='mmdf2.DeepFashion2Dataset', data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmdf2.DeepFashion2Dataset',
        data_root=data_root,
        split='validation',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='mmdf2.DeepFashion2Metric', data_root=data_root, split='validation'),
    dict(type='mmdf2.RetrievalMetric', data_root=data_root, split='validation'),
]
test_evaluator = val_evaluator

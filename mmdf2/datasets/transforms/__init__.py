"""Transforms of a pipeline that change boxes, masks, landmarks and identities together with the image."""

from mmdf2.datasets.transforms.formatting import LoadClothesAnnotations, LoadImage, PackClothesInputs
from mmdf2.datasets.transforms.geometric import RandomAffine, RandomCrop, RandomFlip, Resize

__all__ = [
    'LoadClothesAnnotations',
    'LoadImage',
    'PackClothesInputs',
    'RandomAffine',
    'RandomCrop',
    'RandomFlip',
    'Resize',
]

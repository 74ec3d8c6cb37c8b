"""Transforms that keep boxes, masks, landmarks and identities true to the image."""

from mmdf2.datasets.transforms.affine import RandomAffine
from mmdf2.datasets.transforms.crop import RandomCrop
from mmdf2.datasets.transforms.flip import RandomFlip
from mmdf2.datasets.transforms.loading import LoadClothesAnnotations
from mmdf2.datasets.transforms.packing import PackClothesInputs
from mmdf2.datasets.transforms.resize import Resize

__all__ = ['LoadClothesAnnotations', 'PackClothesInputs', 'RandomAffine', 'RandomCrop', 'RandomFlip', 'Resize']

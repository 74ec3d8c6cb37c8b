"""Trained models, used from Python."""

from mmdf2.apis.inferencer import ClothesInferencer, ImageResult, InferenceReport, prediction_dicts
from mmdf2.apis.search import FashionSearch, FoundGarment

__all__ = ['ClothesInferencer', 'FashionSearch', 'FoundGarment', 'ImageResult', 'InferenceReport', 'prediction_dicts']

"""Trained models, used from Python."""

from mmdf2.apis.fashion_search import FashionSearch, FoundGarment
from mmdf2.apis.inferencer import ClothesInferencer, ImageResult, InferenceReport
from mmdf2.apis.predictions import prediction_dicts

__all__ = ['ClothesInferencer', 'FashionSearch', 'FoundGarment', 'ImageResult', 'InferenceReport', 'prediction_dicts']

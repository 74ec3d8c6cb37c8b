"""Trained models, used from Python."""

from mmdf2.apis.inferencer import ClothesInferencer, ImageResult, InferenceReport
from mmdf2.apis.predictions import prediction_dicts

__all__ = ['ClothesInferencer', 'ImageResult', 'InferenceReport', 'prediction_dicts']

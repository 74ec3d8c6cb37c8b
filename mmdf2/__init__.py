"""mmdf2: Match R-CNN and the DeepFashion2 benchmark for MMDetection 3.x."""

__version__ = '0.1.0'

"""mmdf2: Match R-CNN and the DeepFashion2 benchmark for MMDetection 3.x."""

__version__ = '0.2.0.dev0'

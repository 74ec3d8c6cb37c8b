"""Landmarks to heatmap cells and back, landmarks to contours, polygons to masks and back: pure functions."""

from .roi_heatmap import decode_heatmaps, encode_cells

__all__ = ['decode_heatmaps', 'encode_cells']

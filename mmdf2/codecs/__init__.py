"""Landmarks to heatmap cells and back: pure functions that need torch alone."""

from .roi_heatmap import decode_heatmaps, encode_cells

__all__ = ['decode_heatmaps', 'encode_cells']

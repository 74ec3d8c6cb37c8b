"""Landmarks to heatmap cells and to dense vectors and back, landmarks to contours, polygons to masks and back: pure functions.

Each module needs what it computes with, torch or OpenCV, and no other; so nothing is imported here.
"""

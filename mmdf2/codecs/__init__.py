"""Pure functions between landmarks and heatmap cells, dense vectors and contours, and between polygons and masks.

Each module needs what it computes with, torch or OpenCV, and no other; so nothing is imported here.
"""

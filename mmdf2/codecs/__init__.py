"""Pure functions that convert landmarks to heatmap cells, dense vectors and contours, and polygons to masks, and back.

Nothing is imported here, because each module needs only one of torch, OpenCV and NumPy.
"""

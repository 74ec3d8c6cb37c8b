"""Drawing of garments and of retrieval results: pure functions, and a visualizer for MMEngine's runner."""

from mmdf2.visualization.drawing import draw_boxes, draw_instances, draw_items, draw_landmarks, draw_masks
from mmdf2.visualization.retrieval_rows import RetrievalRow, draw_retrieval_rows
from mmdf2.visualization.visualizer import ClothesVisualizer, draw_instance_data

__all__ = [
    'ClothesVisualizer',
    'RetrievalRow',
    'draw_boxes',
    'draw_instance_data',
    'draw_instances',
    'draw_items',
    'draw_landmarks',
    'draw_masks',
    'draw_retrieval_rows',
]

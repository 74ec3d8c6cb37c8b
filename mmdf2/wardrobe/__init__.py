"""A drawn dataset: people and clothes of all 13 categories, annotated in DeepFashion2's format.

``cut`` samples the measures of garments; ``uppers``, ``outwear``, ``bottoms`` and ``sleeves`` turn them into panels of
cloth and landmarks on a ``body``; ``fabric`` gives them colour and print; ``scene`` stacks everything and paints it on
a ``canvas``; ``labels`` reads the annotation off the canvas. ``plan`` decides what is drawn, ``picture`` draws one
image, and ``writer`` writes them all.
"""

from mmdf2.wardrobe.writer import make_wardrobe

__all__ = ['make_wardrobe']

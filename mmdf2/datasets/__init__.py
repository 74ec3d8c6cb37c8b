"""DeepFashion2's data: annotation, stores, exchange files, the dataset with its transforms, and samplers.

Nothing is imported here, because annotation and stores need neither torch nor mmdet, which the dataset and the
transforms need.
"""

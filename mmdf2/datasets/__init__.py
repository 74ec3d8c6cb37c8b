"""DeepFashion2's data: annotation, store, dataset, transforms, samplers, and a drawn wardrobe in the same format.

Nothing is imported here: reading annotation and stores needs numpy alone, the dataset and the transforms need mmdet.
"""

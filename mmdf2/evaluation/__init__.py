"""DeepFashion2's benchmark: detection, masks, landmarks and retrieval.

Nothing is imported here: the core needs numpy and pycocotools' mask functions alone and can evaluate anyone's
predictions; ``mmdf2.evaluation.metrics`` holds the metrics that MMEngine runs.
"""

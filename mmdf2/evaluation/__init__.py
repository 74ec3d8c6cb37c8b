"""DeepFashion2's benchmark: detection, masks, landmarks and retrieval.

The core (everything beside ``metrics``) needs numpy and pycocotools' mask functions alone.
"""

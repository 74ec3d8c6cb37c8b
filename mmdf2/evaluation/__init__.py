"""DeepFashion2's benchmark: detection, masks, landmarks and retrieval.

The core (``records``, ``coco``, ``retrieval``, ``verification``) computes figures from arrays: beside the table of
categories and the dense landmarks it needs only NumPy and pycocotools' mask functions. ``files`` reads and writes the
official files, ``truth`` opens ground truth, ``report`` makes the paper's tables, ``evaluate`` takes result files and
returns a report, and ``metrics`` are for MMEngine's evaluator.
"""

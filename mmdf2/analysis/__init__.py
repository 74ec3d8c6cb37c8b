"""Seeing the data and the errors: statistics of a store, failures of result files, and the pages that show them.

What counts (``statistics``, ``detection_errors``, ``landmark_errors``, ``retrieval_errors``, ``weak_spots``) is pure
functions on arrays; ``svg``, ``charts`` and ``page`` draw, ``dataset_page`` and ``error_page`` put both together.
"""

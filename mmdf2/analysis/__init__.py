"""Analysis of data and of errors: statistics of a store, failures of result files, contours, and pages that show them.

``statistics``, ``detection_errors``, ``landmark_errors``, ``retrieval_errors`` and ``error_report`` count, as functions
from arrays and a store to records. ``charts``, ``pictures`` and ``page`` draw. ``dataset_page``, ``error_page`` and
``contours`` make a page of each kind.
"""

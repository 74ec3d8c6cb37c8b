"""The official files: ground truth and results of detection and retrieval, read and written."""

"""The metrics that MMEngine's evaluator runs."""

from mmdf2.evaluation.metrics.deepfashion2_metric import DeepFashion2Metric
from mmdf2.evaluation.metrics.retrieval_metric import RetrievalMetric

__all__ = ['DeepFashion2Metric', 'RetrievalMetric']

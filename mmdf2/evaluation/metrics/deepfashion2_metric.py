"""Detection, masks and landmarks by COCO's protocol, for MMEngine's evaluator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmdf2.categories import CATEGORIES, MAX_LANDMARKS
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.coco import evaluate_task
from mmdf2.evaluation.files.detections import detection_results
from mmdf2.evaluation.files.json_list import write_results
from mmdf2.evaluation.files.masks import encode_masks
from mmdf2.evaluation.metrics.data_samples import (
    common_fields,
    image_id,
    one_per_image,
    to_array,
    unreadable_result,
    usable,
    warn_of_coverage,
)
from mmdf2.evaluation.records import COLUMNS, OVERALL, Detections
from mmdf2.evaluation.report.figures import column_ending, flat_figures, metric_key, task_figures
from mmdf2.evaluation.report.tables import category_table, report_text
from mmdf2.evaluation.retrieval import with_size
from mmdf2.evaluation.truth import ground_truth
from mmdf2.registry import METRICS

# Metric -> field of pred_instances that it needs, and tasks of ``mmdf2.evaluation.coco``.
STREAMS = {
    'bbox': ('bboxes', ('bbox',)),
    'segm': ('masks', ('segm',)),
    'keypoints': ('keypoints', ('keypoints_visible', 'keypoints_all')),
}


@METRICS.register_module()
class DeepFashion2Metric(BaseMetric):
    """AP, AP50, AP75 and AR of boxes, masks and landmarks, as pycocotools would report them.

    Returns ``bbox_AP``, ``segm_AP``, ``keypoints_AP_visible`` (landmarks with v == 2) and ``keypoints_AP_all`` (v > 0),
    and the same keys with AP50, AP75 and AR in the place of AP. All figures are from 0 to 1, NaN when there is nothing
    to find. Logs a table of the categories. The figures cover the images that were processed; a warning says so when
    these are not the whole split.

    Args:
        data_root: The dataset's folder. Ground truth comes from its store, which is made if it is missing.
        split: 'train' or 'validation'.
        metrics: Some of 'bbox', 'segm', 'keypoints'; 'auto' takes those that are predicted and logs which are not.
        subsets: Whether to evaluate the paper's twelve subsets too, with keys such as ``bbox_AP_scale_small``, and to
            log the paper's Tables 2 to 4.
        outfile_prefix: Prefix of official result files to write: ``<prefix>.bbox.json``, ``<prefix>.segm.json`` and
            ``<prefix>.keypoints.json``; None to write none.
        collect_device: Device on which results of several processes are collected; see MMEngine's ``BaseMetric``.
        prefix: Prefix of the keys; none by default.
        collect_dir: Folder through which results are collected on the CPU; see MMEngine's ``BaseMetric``.
        store: Folder of the store, the same as that of the dataset; by default ``<data_root>/<split>.store``.

    Raises:
        ValueError: A metric is unknown, or is asked for by name and not predicted.
        EvaluationError: A prediction is not finite, or lies on an image that the split does not have.
    """

    default_prefix = ''

    def __init__(
        self,
        data_root: str,
        split: str = 'validation',
        metrics: str | Sequence[str] = 'auto',
        subsets: bool = False,
        outfile_prefix: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
        store: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        wanted = list(STREAMS) if metrics == 'auto' else [metrics] if isinstance(metrics, str) else list(metrics)
        unknown = [metric for metric in wanted if metric not in STREAMS]
        if unknown or not wanted:
            raise ValueError(f"metrics must be 'auto' or some of {', '.join(STREAMS)}, got {metrics!r}")
        self.wanted = wanted
        self.automatic = metrics == 'auto'
        self.data_root = data_root
        self.split = split
        self.store = store
        self.subsets = subsets
        self.outfile_prefix = outfile_prefix

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps boxes, scores, labels, run-length masks and landmarks of each image.

        Args:
            data_batch: Not used.
            data_samples: Dicts with img_id, ori_shape, and pred_instances in coordinates of the original image.
        """
        self.results.extend(unreadable_result(sample) or _compact(sample, self.wanted) for sample in data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluates the collected results of all processes."""
        results = one_per_image(results, type(self).__name__)
        metrics = self._predicted(results)
        store = open_or_prepare(self.data_root, self.split, self.store)
        image_ids = np.array([result['img_id'] for result in results], dtype=np.int64)
        warn_of_coverage(store, image_ids, type(self).__name__)
        detections = _detections(results, metrics)
        if self.outfile_prefix:
            for metric in metrics:
                path = f'{self.outfile_prefix}.{metric}.json'
                print_log(f'Results written to {write_results(path, detection_results(detections, metric))}', 'current')
        truth = ground_truth(store, image_ids, masks='segm' in metrics)
        columns = COLUMNS if self.subsets else (OVERALL,)
        tasks = [task for metric in metrics for task in STREAMS[metric][1]]
        evaluated = {task: evaluate_task(truth, detections, task, columns) for task in tasks}
        if evaluated:
            print_log('\n' + category_table(evaluated).boxed(), 'current')
        if evaluated and self.subsets:
            tables = report_text({task: task_figures(result) for task, result in evaluated.items()})
            print_log(f'\n{tables}', 'current')
        figures = {}
        for task, result in evaluated.items():
            figures.update(flat_figures({column: result.figures(column) for column in columns}, metric_key(task, '{}')))
        return figures

    def figure_names(self) -> set[str]:
        """The keys of the figures that the results kept so far lead to; logs which streams are not predicted."""
        columns = COLUMNS if self.subsets else (OVERALL,)
        return {
            metric_key(task, figure) + column_ending(column)
            for metric in self._predicted(self.results)
            for task in STREAMS[metric][1]
            for figure in ('AP', 'AP50', 'AP75', 'AR')
            for column in columns
        }

    def _predicted(self, results: list[dict]) -> list[str]:
        fields = [STREAMS[metric][0] for metric in self.wanted]
        results = usable(results)
        present = common_fields(results, fields)
        missing = [metric for metric in self.wanted if STREAMS[metric][0] not in present]
        if missing and not self.automatic and results:
            needed = ' and '.join(STREAMS[metric][0] for metric in missing)
            raise ValueError(
                f'metrics {missing} need {needed} in pred_instances, which the model does not predict; give it the '
                "stream's head, or leave the metric out"
            )
        if missing:
            print_log(f'Not predicted, so not evaluated: {", ".join(missing)}', 'current')
        return [metric for metric in self.wanted if metric not in missing]


def _compact(sample: dict, metrics: Sequence[str]) -> dict:
    predictions = sample['pred_instances']
    labels = to_array(predictions['labels'], np.int64)
    result = {
        'img_id': image_id(sample),
        'bboxes': to_array(predictions['bboxes'], np.float32).reshape(-1, 4),
        'scores': to_array(predictions['scores'], np.float32),
        'labels': labels,
    }
    if 'segm' in metrics and 'masks' in predictions:
        masks = predictions['masks']
        result['masks'] = masks if isinstance(masks, list) else encode_masks(to_array(masks, np.bool_))
    if 'keypoints' in metrics and 'keypoints' in predictions:
        result['keypoints'] = _own_landmarks(predictions['keypoints'], labels)
    return result


def _own_landmarks(keypoints: Any, labels: np.ndarray) -> np.ndarray:
    """(n, 39, 2) landmarks, with zeros beyond those of each row's category, whatever the model predicted there."""
    keypoints = to_array(keypoints, np.float32).reshape(-1, MAX_LANDMARKS, 2).copy()
    for row, label in enumerate(labels):
        keypoints[row, CATEGORIES[label].num_landmarks :] = 0
    return keypoints


def _detections(results: list[dict], metrics: Sequence[str]) -> Detections:
    counts = [len(result['scores']) for result in results]
    boxes = _stack(results, 'bboxes', (4,))
    return Detections(
        image_ids=np.repeat(np.array([result['img_id'] for result in results], dtype=np.int64), counts),
        labels=_stack(results, 'labels', ()).astype(np.int64),
        scores=_stack(results, 'scores', ()),
        boxes=with_size(boxes),
        masks=[mask for result in results for mask in result['masks']] if 'segm' in metrics else None,
        landmarks=_stack(results, 'keypoints', (MAX_LANDMARKS, 2)) if 'keypoints' in metrics else None,
    )


def _stack(results: list[dict], field: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.zeros((0, *shape)), *(result[field] for result in results)], dtype=np.float64)

"""Detection, masks and landmarks by COCO's protocol, for MMEngine's evaluator."""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from pycocotools import mask as mask_utils
from terminaltables import AsciiTable

from mmdf2.categories import CATEGORIES, CATEGORY_NAMES, MAX_LANDMARKS
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.evaluation.accumulate import TaskResult
from mmdf2.evaluation.evaluator import evaluate_task
from mmdf2.evaluation.formats import detection_results, write_results
from mmdf2.evaluation.from_store import ground_truth
from mmdf2.evaluation.metrics.collected import (
    common_fields,
    image_id,
    one_per_image,
    to_array,
    warn_of_coverage,
)
from mmdf2.evaluation.records import Detections
from mmdf2.evaluation.report import flat_figures, task_figures
from mmdf2.evaluation.report_files import report_text
from mmdf2.evaluation.subsets import COLUMNS, OVERALL
from mmdf2.registry import METRICS

# Metric -> field of pred_instances that it needs, and tasks of the evaluator.
STREAMS = {
    'bbox': ('bboxes', ('bbox',)),
    'segm': ('masks', ('segm',)),
    'keypoints': ('keypoints', ('keypoints_visible', 'keypoints_all')),
}


@METRICS.register_module()
class DeepFashion2Metric(BaseMetric):
    """AP, AP50, AP75 and AR of boxes, masks and landmarks, as pycocotools would report them.

    Returns ``bbox_AP``, ``segm_AP``, ``keypoints_AP_visible`` (landmarks with v == 2), ``keypoints_AP_all`` (v > 0) and
    likewise AP50, AP75, AR, from 0 to 1, NaN when there is nothing to find; logs a table of the categories. Figures are
    of the images that were processed, with a warning when that is not the whole split.

    Args:
        data_root: The dataset's folder. Ground truth comes from its store, which is made when it is missing.
        split: 'train' or 'validation'.
        metrics: Of 'bbox', 'segm', 'keypoints'; 'auto' takes those that are predicted and says which are not.
        subsets: Also evaluates the paper's twelve subsets, as ``bbox_AP_scale_small`` ..., and logs its Tables 2 to 4.
        outfile_prefix: Writes the official result files ``<prefix>.bbox.json``, ``.segm.json``, ``.keypoints.json``.
        collect_device: As of BaseMetric.
        prefix: As of BaseMetric; none by default.
        collect_dir: As of BaseMetric.

    Raises:
        ValueError: A metric that is unknown, or asked for by name and not predicted.
        EvaluationError: Predictions on images that the split does not have, or that are not finite.
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
        self.subsets = subsets
        self.outfile_prefix = outfile_prefix

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keeps boxes, scores, labels, run-length masks and landmarks of each image.

        Args:
            data_batch: Not used.
            data_samples: Dicts with img_id, ori_shape and pred_instances in original image coordinates.
        """
        self.results.extend(_compact(sample, self.wanted) for sample in data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluates the collected results of all processes."""
        results = one_per_image(results, type(self).__name__)
        metrics = self._predicted(results)
        store = open_or_prepare(self.data_root, self.split)
        image_ids = np.array([result['img_id'] for result in results], dtype=np.int64)
        warn_of_coverage(store, image_ids, type(self).__name__)
        detections = _join(results, metrics)
        if self.outfile_prefix:
            for metric in metrics:
                path = f'{self.outfile_prefix}.{metric}.json'
                print_log(f'Results written to {write_results(path, detection_results(detections, metric))}', 'current')
        truth = ground_truth(store, image_ids, masks='segm' in metrics)
        columns = COLUMNS if self.subsets else (OVERALL,)
        tasks = [task for metric in metrics for task in STREAMS[metric][1]]
        evaluated = {task: evaluate_task(truth, detections, task, columns) for task in tasks}
        if evaluated:
            print_log('\n' + category_table(evaluated), 'current')
        if evaluated and self.subsets:
            tables = report_text({task: task_figures(result) for task, result in evaluated.items()})
            print_log(f'\n{tables}', 'current')
        figures = {}
        for task, result in evaluated.items():
            figures.update(flat_figures({column: result.figures(column) for column in columns}, _key(task, '{}')))
        return figures

    def _predicted(self, results) -> list[str]:
        fields = [STREAMS[metric][0] for metric in self.wanted]
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


def _key(task: str, name: str) -> str:
    stream, _, setting = task.partition('_')
    return f'{stream}_{name}_{setting}' if setting else f'{stream}_{name}'


def category_table(evaluated: dict[str, TaskResult]) -> str:
    """Text table: items and AP of each task for each category, then their mean AP, AP50 and AP75."""
    # Landmark tasks ignore items without landmarks, so the largest count is that of all items.
    counts = np.max([result.num_truths[result.columns.index(OVERALL)] for result in evaluated.values()], axis=0)
    rows = [['category', 'items', *(_key(task, 'AP') for task in evaluated)]]
    for label, name in enumerate(CATEGORY_NAMES):
        rows.append([name, counts[label], *(_shown(r.average_precision(label=label)) for r in evaluated.values())])
    means = {task: result.figures() for task, result in evaluated.items()}
    for name in ('AP', 'AP50', 'AP75'):
        rows.append([f'mean {name}', counts.sum(), *(_shown(figures[name]) for figures in means.values())])
    table = AsciiTable(rows)
    table.justify_columns = dict.fromkeys(range(1, len(rows[0])), 'right')
    return table.table


def _shown(figure: float) -> str:
    return '-' if np.isnan(figure) else f'{figure:.3f}'


def _compact(sample: dict, metrics) -> dict:
    predictions = sample['pred_instances']
    result = {
        'img_id': image_id(sample),
        'bboxes': to_array(predictions['bboxes'], np.float32).reshape(-1, 4),
        'scores': to_array(predictions['scores'], np.float32),
        'labels': to_array(predictions['labels'], np.int64),
    }
    if 'segm' in metrics and 'masks' in predictions:
        result['masks'] = _encode(predictions['masks'])
    if 'keypoints' in metrics and 'keypoints' in predictions:
        result['keypoints'] = _own_landmarks(predictions['keypoints'], result['labels'])
    return result


def _encode(masks) -> list[dict]:
    if isinstance(masks, list):
        return masks
    masks = to_array(masks, np.uint8)
    return mask_utils.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if len(masks) else []


def _own_landmarks(keypoints, labels) -> np.ndarray:
    """(n, 39, 2) with zeros beyond the landmarks of each row's category, whatever a model leaves there."""
    keypoints = to_array(keypoints, np.float32).reshape(-1, MAX_LANDMARKS, 2).copy()
    for row, label in enumerate(labels):
        keypoints[row, CATEGORIES[label].num_landmarks :] = 0
    return keypoints


def _join(results, metrics) -> Detections:
    counts = [len(result['scores']) for result in results]
    boxes = _stack(results, 'bboxes', (4,))
    return Detections(
        np.repeat(np.array([result['img_id'] for result in results], dtype=np.int64), counts),
        _stack(results, 'labels', ()).astype(np.int64),
        _stack(results, 'scores', ()),
        np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
        [mask for result in results for mask in result['masks']] if 'segm' in metrics else None,
        _stack(results, 'keypoints', (MAX_LANDMARKS, 2)) if 'keypoints' in metrics else None,
    )


def _stack(results, field, shape) -> np.ndarray:
    return np.concatenate([np.zeros((0, *shape)), *(result[field] for result in results)], dtype=np.float64)

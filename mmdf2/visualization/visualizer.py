"""Drawing of data samples: the visualizer for MMEngine's runner, and the function that it draws with."""

from typing import Any

import numpy as np
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from mmdf2.images import write_image
from mmdf2.registry import VISUALIZERS
from mmdf2.visualization.drawing import draw_instances

_DRAWN = ('labels', 'bboxes', 'scores', 'masks', 'keypoints', 'keypoints_visible', 'keypoint_scores')


@VISUALIZERS.register_module()
class ClothesVisualizer(Visualizer):
    """Draws boxes, masks and landmarks with skeletons, for ``ClothesVisualizationHook`` or called directly.

    Where a sample has both ground truth and predictions, they are drawn side by side, ground truth on the left.

    Args:
        name: Name of this instance, unique among MMEngine's visualizers.
        landmark_threshold: Predicted landmarks with at least this score are drawn filled, others hollow.
        **kwargs: ``image``, ``vis_backends`` and ``save_dir`` of MMEngine's ``Visualizer``.
    """

    def __init__(self, name: str = 'visualizer', landmark_threshold: float = 0.3, **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.landmark_threshold = landmark_threshold

    # Not master_only: every process tests its own images, and those of all processes should be drawn.
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: DetDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Draws a data sample on its image and shows it, writes it, or hands it to the backends.

        Args:
            name: Name of the picture in the backends.
            image: (H, W, 3) RGB.
            data_sample: A sample with ``gt_instances``, ``pred_instances`` or both, in the coordinates of the image.
            draw_gt: Whether to draw the ground truth.
            draw_pred: Whether to draw the predictions.
            show: Whether to open a window; the picture is then not given to the backends.
            wait_time: Seconds that the window stays open; 0 waits for a key.
            out_file: File to write the picture to, instead of giving it to the backends.
            pred_score_thr: Predictions with a lower score are not drawn.
            step: Number of the iteration, for the backends.
        """
        image = np.clip(image, 0, 255).astype(np.uint8)
        panels = []
        if draw_gt and data_sample is not None and 'gt_instances' in data_sample:
            panels.append(draw_instance_data(image, data_sample.gt_instances))
        if draw_pred and data_sample is not None and 'pred_instances' in data_sample:
            instances = data_sample.pred_instances
            panels.append(draw_instance_data(image, instances, pred_score_thr, self.landmark_threshold))
        drawn = np.concatenate(panels or [image], axis=1)
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            write_image(out_file, drawn)
        elif not show:
            self.add_image(name, drawn, step)


def draw_instance_data(
    image: np.ndarray, instances: InstanceData, score_threshold: float = 0.0, landmark_threshold: float = 0.3
) -> np.ndarray:
    """Draws the garment instances of a data sample, ground truth or predictions; only the fields that exist are drawn.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: ``labels`` and any of ``bboxes``, ``scores``, ``masks`` (tensor, bitmaps or polygons), ``keypoints``
            with ``keypoints_visible`` or ``keypoint_scores``; on any device.
        score_threshold: Instances with a lower score are not drawn; those without scores all are.
        landmark_threshold: Landmarks with at least this score are drawn filled, others hollow.

    Returns:
        A new image of the same size.
    """
    fields = {name: _to_numpy(instances[name]) for name in _DRAWN if name in instances}
    if 'scores' in fields:
        kept = fields['scores'] >= score_threshold
        fields = {name: value[kept] for name, value in fields.items()}
    flags = fields.get('keypoints_visible')
    if flags is None and 'keypoint_scores' in fields:
        flags = np.where(fields['keypoint_scores'] >= landmark_threshold, 2, 1)
    return draw_instances(
        image,
        labels=fields['labels'],
        boxes=fields.get('bboxes'),
        scores=fields.get('scores'),
        masks=fields.get('masks'),
        landmarks=fields.get('keypoints'),
        visibility=flags,
    )


def _to_numpy(value: Any) -> np.ndarray:
    """A field of the instances as an array; boxes of any of MMDetection's types, masks as bitmaps."""
    if isinstance(value, (BitmapMasks, PolygonMasks)):
        return value.to_ndarray().astype(bool)
    value = get_box_tensor(value) if isinstance(value, BaseBoxes) else value
    if hasattr(value, 'detach'):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value)

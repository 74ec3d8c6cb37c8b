"""Match R-CNN's second stage: boxes, then masks, landmarks and embeddings of the same RoIs."""

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmdf2.registry import MODELS

from .clothes_streams import ClothesStreamsMixin
from .roi_features import RoIFeatures
from .sampled_rois import gather_positives

# RoIs that `forward` (the tensor mode, for tracing and for counting operations) sends through the streams, as many as
# in MMDetection.
TENSOR_MODE_ROIS = 100


@MODELS.register_module()
class ClothesRoIHead(ClothesStreamsMixin, StandardRoIHead):
    """:class:`mmdet.StandardRoIHead` with a landmark and a matching stream beside those of boxes and masks.

    RoIAlign and all losses run in float32 even under autocast: in half precision the coordinates of RoIs are off by
    whole pixels, and RoIAlign on the CPU has no bfloat16. Feature maps may have any memory format.

    Args:
        keypoint_roi_extractor: Config of the landmark stream's RoI extractor; None shares that of the mask stream.
        keypoint_head: Config of :class:`ClothingPoseHead`; None for no landmark stream.
        match_head: Config of :class:`MatchHead`; None for no matching stream.
        **kwargs: Arguments of StandardRoIHead.
    """

    def __init__(
        self,
        keypoint_roi_extractor: dict | None = None,
        keypoint_head: dict | None = None,
        match_head: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.init_streams(keypoint_roi_extractor, keypoint_head, match_head)

    def loss(self, x: tuple[Tensor, ...], rpn_results_list: list[InstanceData], batch_data_samples: SampleList) -> dict:
        """The losses of all streams on one sampling of the proposals; for the arguments see the base class."""
        levels = _for_roi_align(x)
        gt_instances, ignored, metainfo = unpack_gt_instances(batch_data_samples)
        sampling_results = [
            self._assign_and_sample(*image) for image in zip(rpn_results_list, gt_instances, ignored, strict=True)
        ]
        box_results = self.bbox_loss(levels, sampling_results)
        positives = gather_positives(sampling_results, gt_instances, metainfo)
        return self.stream_losses(levels, positives, box_results['bbox_feats'], box_results['loss_bbox'], gt_instances)

    def predict(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: list[InstanceData],
        batch_data_samples: SampleList,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Detections with the fields of every stream; for the arguments see the base class.

        With a matching stream each sample also gets ``match_similarity``, the weights that compare embeddings. With
        ``test_cfg.embed_gt_boxes`` a sample with ``gt_instances`` also gets ``gt_box_instances``.
        """
        levels = _for_roi_align(x)
        metainfo = [sample.metainfo for sample in batch_data_samples]
        results = self.predict_bbox(levels, metainfo, rpn_results_list, rcnn_test_cfg=self.test_cfg, rescale=False)
        results = self.predict_streams(levels, results, metainfo, rescale)
        if self.with_match:
            similarity = self.match_head.similarity_parameters()
            for sample in batch_data_samples:
                sample.match_similarity = similarity
            if self.test_cfg.get('embed_gt_boxes', False) and _have_gt_boxes(batch_data_samples):
                self.embed_gt_boxes(levels, batch_data_samples)
        return results

    def average_with_mirror(self, x: tuple[Tensor, ...], data_samples: SampleList, rescaled: bool) -> None:
        """See the base class; ``x`` may have any floating-point type and memory format."""
        super().average_with_mirror(_for_roi_align(x), data_samples, rescaled)

    def forward(
        self, x: tuple[Tensor, ...], rpn_results_list: list[InstanceData], batch_data_samples: SampleList | None = None
    ) -> tuple:
        """Raw outputs: class scores, box deltas, mask logits, landmark logits per category, embeddings."""
        levels = _for_roi_align(x)
        rois = bbox2roi([proposals.bboxes for proposals in rpn_results_list])
        box_results = self._bbox_forward(levels, rois)
        outputs = (box_results['cls_score'], box_results['bbox_pred'])
        features = RoIFeatures(self, levels, rois[:TENSOR_MODE_ROIS], box_results['bbox_feats'][:TENSOR_MODE_ROIS])
        if self.with_mask:
            outputs += (self.mask_head.forward_logits(features.mask),)
        if self.with_keypoint:
            labels = box_results['cls_score'][:TENSOR_MODE_ROIS, :-1].argmax(dim=1)
            outputs += (tuple(group.logits for group in self.keypoint_head.forward_logits(features.pose, labels)),)
        if self.with_match:
            outputs += (self._embed(features),)
        return outputs

    def _bbox_forward(self, x: tuple[Tensor, ...], rois: Tensor) -> dict:
        results = super()._bbox_forward(x, rois)
        return results | {'cls_score': results['cls_score'].float(), 'bbox_pred': results['bbox_pred'].float()}

    def _assign_and_sample(
        self, proposals: InstanceData, gt_instances: InstanceData, ignored: InstanceData | None
    ) -> SamplingResult:
        proposals.priors = proposals.pop('bboxes')
        assigned = self.bbox_assigner.assign(proposals, gt_instances, ignored)
        return self.bbox_sampler.sample(assigned, proposals, gt_instances)


def _for_roi_align(levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Feature maps in contiguous float32; mmcv's RoIAlign reads channels-last memory as if it were contiguous."""
    return tuple(level.float().contiguous() for level in levels)


def _have_gt_boxes(samples: SampleList) -> bool:
    # A pipeline that packs without loading annotations leaves gt_instances without fields.
    return all('gt_instances' in sample and 'bboxes' in sample.gt_instances for sample in samples)

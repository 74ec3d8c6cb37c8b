"""The mask, landmark and matching streams of Match R-CNN, for any RoI head that finds boxes."""

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmdf2.models.gather import averaging_factors, gather_counts
from mmdf2.models.mirroring import mirrored_boxes

from .clothes_mask_head import ClothesMaskHead, mask_targets
from .clothing_pose_head import landmark_targets
from .roi_features import RoIFeatures
from .sampled_rois import SampledRoIs


class ClothesStreamsMixin:
    """Adds a landmark and a matching stream to a RoI head; the matching stream reads the features of other streams.

    A stream is absent when its head is None. The streams need boxes, labels and feature maps, whatever found the boxes.
    ``train_cfg`` may have ``stream_rois_per_image`` (how many positive RoIs per image train the mask and the landmark
    stream; default: all) and ``match_rois_per_image`` (how many of these train the matching stream; default: 8, as in
    the paper). ``test_cfg`` may have ``embed_gt_boxes`` (see :meth:`embed_gt_boxes`) and ``flip_average`` (see
    :meth:`average_with_mirror`).
    """

    @property
    def with_keypoint(self) -> bool:
        """Whether there is a landmark stream."""
        return self.keypoint_head is not None

    @property
    def with_match(self) -> bool:
        """Whether there is a matching stream."""
        return self.match_head is not None

    def init_streams(
        self, keypoint_roi_extractor: dict | None, keypoint_head: dict | None, match_head: dict | None
    ) -> None:
        """Builds the landmark and matching streams.

        Args:
            keypoint_roi_extractor: Config of the landmark stream's RoI extractor; None shares that of the mask stream,
                which saves a RoIAlign.
            keypoint_head: Config of :class:`ClothingPoseHead`; None for no landmark stream.
            match_head: Config of :class:`MatchHead`; None for no matching stream.

        Raises:
            ValueError: A stream that the match head reads is absent, the landmark stream has no RoI extractor, or the
                mask head is no ``ClothesMaskHead``.
        """
        if self.with_mask and not isinstance(self.mask_head, ClothesMaskHead):
            raise ValueError(f'mask_head is a {type(self.mask_head).__name__}; it should be mmdf2.ClothesMaskHead')
        self.keypoint_head = self.match_head = None
        if keypoint_head is not None:
            if keypoint_roi_extractor is None and not self.with_mask:
                raise ValueError('keypoint_head has no keypoint_roi_extractor, and no mask stream to share one with')
            self.keypoint_roi_extractor = (
                self.mask_roi_extractor
                if keypoint_roi_extractor is None
                else MMDET_MODELS.build(keypoint_roi_extractor)
            )
            self.keypoint_head = MMDET_MODELS.build(keypoint_head)
        if match_head is not None:
            self.match_head = MMDET_MODELS.build(match_head)
            present = {'class': self.with_bbox, 'pose': self.with_keypoint, 'mask': self.with_mask}
            absent = [source for source in self.match_head.sources if not present[source]]
            if absent:
                raise ValueError(f'match_head.sources names the stream {absent[0]!r}, which this RoI head lacks')

    def stream_losses(
        self,
        levels: tuple[Tensor, ...],
        sampled: SampledRoIs,
        box_features: Tensor,
        box_losses: dict[str, Tensor],
        gt_instances: list[InstanceData],
    ) -> dict[str, Tensor]:
        """The losses of all streams, as they would be in one process that has the images of all.

        Args:
            levels: Feature maps, fine to coarse.
            sampled: The positive RoIs of the batch.
            box_features: (m, C, S, S) input of the box head for all sampled RoIs of the batch.
            box_losses: The losses of the box head, means over these m RoIs.
            gt_instances: The ground truth of each image, with ``masks`` when there is a mask stream.
        """
        rois = sampled.first(self.train_cfg.get('stream_rois_per_image'))
        matched = (rois.turns < self.train_cfg.get('match_rois_per_image', 8)).nonzero()[:, 0]
        features = RoIFeatures(self, levels, rois.rois, box=box_features[rois.box_rows])
        landmarks = rois.keypoints_visible.new_zeros(())
        if self.with_keypoint:
            _, valid = landmark_targets(features.pose_boxes, rois.keypoints, rois.keypoints_visible, size=1)
            landmarks = valid.sum()
        sizes = landmarks.new_tensor([len(box_features), len(rois.rois), len(matched)])
        counts = gather_counts(torch.cat([sizes, landmarks[None]]))
        of_boxes, of_rois, _, of_landmarks = averaging_factors(counts)
        losses = {
            name: loss * (len(box_features) / of_boxes) if 'loss' in name else loss for name, loss in box_losses.items()
        }
        if self.with_mask:
            targets = self._mask_targets(rois, gt_instances)
            losses |= self.mask_head.loss(self.mask_head.forward_logits(features.mask), targets, rois.labels, of_rois)
        if self.with_keypoint:
            groups = self.keypoint_head.forward_logits(features.pose, rois.labels)
            losses |= self.keypoint_head.loss(
                groups, features.pose_boxes, rois.keypoints, rois.keypoints_visible, of_landmarks
            )
        if self.with_match:
            inputs = [features.of_stream(source)[matched] for source in self.match_head.sources]
            losses |= self.match_head.loss(
                self.match_head.project(inputs),
                rois.is_shop[matched],
                rois.identities[matched],
                rois.pair_ids[matched],
                rois.labels[matched],
                counts[:, 2],
            )
        return losses

    def predict_streams(
        self, levels: tuple[Tensor, ...], results: list[InstanceData], metainfo: list[dict], rescale: bool
    ) -> list[InstanceData]:
        """Adds masks, landmarks and embeddings to detections.

        Args:
            levels: Feature maps, fine to coarse.
            results: The detections of each image: ``bboxes`` in the coordinates of the network's input, and
                ``labels``. They are changed in place.
            metainfo: The metadata of each image, with ``scale_factor``.
            rescale: Whether to return boxes, masks and landmarks in the coordinates of the original image.
        """
        counts = [len(result) for result in results]
        features = RoIFeatures(self, levels, bbox2roi([result.bboxes for result in results]))
        if self.with_keypoint:
            labels = torch.cat([result.labels for result in results])
            groups = self.keypoint_head.forward_logits(features.pose, labels)
            keypoints, scores = self.keypoint_head.predict(groups, features.pose_boxes)
            for result, points, confidence in zip(results, keypoints.split(counts), scores.split(counts), strict=True):
                result.keypoints, result.keypoint_scores = points, confidence
        if self.with_match:
            for result, embeddings in zip(results, self._embed(features).split(counts), strict=True):
                result.embeddings = embeddings
        logits = self.mask_head.forward_logits(features.mask).float().split(counts) if self.with_mask else None
        if rescale:
            _rescale_keypoints(results, metainfo)
        if logits is not None:
            # Pasting the masks needs the boxes at the final scale, and rescales them itself.
            return self.mask_head.predict_by_feat(logits, results, metainfo, self.test_cfg, rescale=rescale)
        if rescale:
            for result, meta in zip(results, metainfo, strict=True):
                result.bboxes = result.bboxes / _scale_factor(meta, result.bboxes).repeat(2)
        return results

    def embed_gt_boxes(self, levels: tuple[Tensor, ...], data_samples: SampleList) -> None:
        """Adds ``gt_box_instances`` (bboxes, labels and embeddings of the ground truth) to every sample.

        The protocol of retrieval with ground-truth boxes needs them.

        Args:
            levels: Feature maps, fine to coarse.
            data_samples: Samples whose ``gt_instances.bboxes`` are in the coordinates of the original image, as
                MMDetection's test pipelines leave them; changed in place.
        """
        gts = [sample.gt_instances for sample in data_samples]
        boxes = [
            gt.bboxes * _scale_factor(sample.metainfo, gt.bboxes).repeat(2)
            for gt, sample in zip(gts, data_samples, strict=True)
        ]
        for sample, gt, rows in zip(data_samples, gts, self._embed_boxes(levels, boxes), strict=True):
            sample.gt_box_instances = InstanceData(bboxes=gt.bboxes, labels=gt.labels, embeddings=rows)

    def average_with_mirror(self, levels: tuple[Tensor, ...], data_samples: SampleList, rescaled: bool) -> None:
        """Replaces each embedding by its mean with the embedding of the same garment instance on the mirrored image.

        An image and its mirror image then have the same embeddings. No boxes are searched on the mirrored image.

        Args:
            levels: Feature maps of the mirrored images (:func:`mirrored_images`), fine to coarse.
            data_samples: Samples with ``pred_instances``, ``gt_box_instances`` or both; changed in place.
            rescaled: Whether the boxes of ``pred_instances`` are in the coordinates of the original image.
        """
        for name in ('pred_instances', 'gt_box_instances'):
            if not all(name in sample for sample in data_samples):
                continue
            boxes = []
            for sample in data_samples:
                found = sample.get(name).bboxes
                if rescaled or name == 'gt_box_instances':
                    found = found * _scale_factor(sample.metainfo, found).repeat(2)
                boxes.append(mirrored_boxes(found, sample.img_shape[1]))
            for sample, rows in zip(data_samples, self._embed_boxes(levels, boxes), strict=True):
                garments = sample.get(name)
                garments.embeddings = (garments.embeddings + rows) / 2

    def _embed_boxes(self, levels: tuple[Tensor, ...], boxes: list[Tensor]) -> tuple[Tensor, ...]:
        """Embeddings (n, D) of the boxes (n, 4) of each image, which are in the coordinates of the network's input."""
        return self._embed(RoIFeatures(self, levels, bbox2roi(boxes))).split([len(rows) for rows in boxes])

    def _embed(self, features: RoIFeatures) -> Tensor:
        """Embeddings (n, D) of n RoIs."""
        return self.match_head([features.of_stream(source) for source in self.match_head.sources])

    def _mask_targets(self, rois: SampledRoIs, gt_instances: list[InstanceData]) -> Tensor:
        counts = torch.bincount(rois.images, minlength=len(gt_instances)).tolist()
        size = self.train_cfg.mask_size
        return torch.cat(
            [
                mask_targets(boxes, rows, gts.masks, size)
                for boxes, rows, gts in zip(
                    rois.boxes.split(counts), rois.gt_rows.split(counts), gt_instances, strict=True
                )
            ]
        )


def _scale_factor(meta: dict, like: Tensor) -> Tensor:
    """(2,) factors of width and height from the original image to the network's input."""
    return like.new_tensor(meta['scale_factor'])


def _rescale_keypoints(results: list[InstanceData], metainfo: list[dict]) -> None:
    for result, meta in zip(results, metainfo, strict=True):
        if 'keypoints' in result:
            result.keypoints = result.keypoints / _scale_factor(meta, result.keypoints)

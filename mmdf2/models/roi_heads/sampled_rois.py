"""What the streams train on: sampled positive RoIs with the garment instances that they were assigned to."""

from dataclasses import dataclass, fields

import torch
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmdf2.categories import MAX_LANDMARKS, source_code


@dataclass
class SampledRoIs:
    """The positive RoIs of a batch, one row each.

    Attributes:
        rois: (n, 5) image number and box xyxy, in the coordinates of the network's input.
        box_rows: (n,) row of the RoI among all sampled RoIs of the batch, positive and negative.
        gt_rows: (n,) row of the assigned garment instance among those of its image.
        labels: (n,) category label of the assigned garment instance.
        turns: (n,) position of the RoI, from 0, in a sequence of all RoIs of its image in which the garment instances
            take turns; the RoIs of one instance come in random order. The RoIs of the first ``k`` turns are a sample
            of ``k`` RoIs that contains as many instances as possible.
        keypoints: (n, 39, 2) landmarks of the assigned garment instance.
        keypoints_visible: (n, 39) visibility of the landmarks: 0 not labelled, 1 occluded, 2 visible.
        identities: (n,) identity code of the assigned garment instance, -1 for none.
        is_shop: (n,) source of the image: 1 for a shop image, 0 for a user image, -1 when unknown.
        pair_ids: (n,) ``pair_id`` of the image, -1 when unknown.
    """

    rois: Tensor
    box_rows: Tensor
    gt_rows: Tensor
    labels: Tensor
    turns: Tensor
    keypoints: Tensor
    keypoints_visible: Tensor
    identities: Tensor
    is_shop: Tensor
    pair_ids: Tensor

    @property
    def images(self) -> Tensor:
        """(n,) number of each RoI's image within the batch."""
        return self.rois[:, 0].long()

    @property
    def boxes(self) -> Tensor:
        """(n, 4) boxes xyxy of the RoIs."""
        return self.rois[:, 1:]

    def first(self, turns: int | None) -> 'SampledRoIs':
        """The RoIs of the first ``turns`` turns of each image; None keeps all."""
        return self if turns is None else self.select((self.turns < turns).nonzero()[:, 0])

    def select(self, rows: Tensor) -> 'SampledRoIs':
        """The RoIs of the given rows."""
        return SampledRoIs(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def gather_positives(
    sampling_results: list[SamplingResult], gt_instances: list[InstanceData], metainfo: list[dict]
) -> SampledRoIs:
    """Collects the positive RoIs of a batch.

    Args:
        sampling_results: The sampled RoIs of each image.
        gt_instances: The ground truth of each image; without a field ``keypoints`` or ``identities``, its garment
            instances count as unlabelled.
        metainfo: The metadata of each image; ``source`` and ``pair_id`` may be absent.
    """
    rois = bbox2roi([result.pos_priors for result in sampling_results])
    images = rois[:, 0].long()
    gt_rows = torch.cat([result.pos_assigned_gt_inds for result in sampling_results]).long()
    gt_counts = torch.tensor([len(gts) for gts in gt_instances], device=rois.device)
    gt_in_batch = gt_rows + (gt_counts.cumsum(0) - gt_counts)[images]
    sources = torch.tensor([source_code(meta.get('source')) for meta in metainfo], device=rois.device)
    pair_ids = torch.tensor([meta.get('pair_id', -1) for meta in metainfo], device=rois.device)
    keypoints, visible, identities = (
        torch.cat(values)[gt_in_batch] for values in zip(*(_labels_of(gts, rois) for gts in gt_instances), strict=True)
    )
    return SampledRoIs(
        rois=rois,
        box_rows=_rows_of_positives(sampling_results, rois.device),
        gt_rows=gt_rows,
        labels=torch.cat([result.pos_gt_labels for result in sampling_results]).long(),
        turns=turns_within_image(gt_in_batch, images),
        keypoints=keypoints,
        keypoints_visible=visible,
        identities=identities,
        is_shop=sources[images],
        pair_ids=pair_ids[images],
    )


def turns_within_image(garments: Tensor, images: Tensor) -> Tensor:
    """Puts the RoIs of each image in a sequence in which its garment instances take turns.

    The RoIs of one instance come in random order.

    Args:
        garments: (n,) number of each RoI's garment instance; numbers of different images differ.
        images: (n,) number of each RoI's image.

    Returns:
        (n,) int64 position of each RoI; a permutation of 0..m-1 within an image of m RoIs.
    """
    shuffled = torch.randperm(len(garments), device=garments.device)
    by_garment = shuffled[garments[shuffled].argsort(stable=True)]
    rounds = _rank_in_run(garments[by_garment])
    by_round = by_garment[rounds.argsort(stable=True)]
    by_image = by_round[images[by_round].argsort(stable=True)]
    turns = torch.empty_like(garments)
    turns[by_image] = _rank_in_run(images[by_image])
    return turns


def _rank_in_run(values: Tensor) -> Tensor:
    """Position of each element within its run of equal neighbours."""
    _, run, lengths = values.unique_consecutive(return_inverse=True, return_counts=True)
    starts = lengths.cumsum(0) - lengths
    return torch.arange(len(values), device=values.device) - starts[run]


def _rows_of_positives(sampling_results: list[SamplingResult], device: torch.device) -> Tensor:
    """The rows of positive RoIs in a batch in which each image's positive RoIs precede its negative ones."""
    start, rows = 0, []
    for result in sampling_results:
        rows.append(torch.arange(start, start + len(result.pos_priors), device=device))
        start += len(result.pos_priors) + len(result.neg_priors)
    return torch.cat(rows)


def _labels_of(gts: InstanceData, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Landmarks, visibility and identities of the garment instances of one image, on the device of ``like``."""
    count = len(gts)
    keypoints = gts.get('keypoints', like.new_zeros(count, MAX_LANDMARKS, 2))
    visible = gts.get('keypoints_visible', like.new_zeros(count, MAX_LANDMARKS))
    identities = gts.get('identities', like.new_full((count,), -1))
    return keypoints.to(like), visible.to(like.device).long(), identities.to(like.device).long()

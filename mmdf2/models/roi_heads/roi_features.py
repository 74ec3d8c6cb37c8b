"""Features of one set of RoIs; each kind is computed when it is first needed, and only once."""

from functools import cached_property

from torch import Tensor, nn

from .clothing_pose_head import scale_boxes_about_centre


class RoIFeatures:
    """Lazily computed RoI features, shared by the streams of a RoI head.

    Args:
        roi_head: The RoI head whose extractors and heads are used (see :class:`ClothesStreamsMixin`).
        levels: Feature maps, fine to coarse.
        rois: (n, 5) image number and box xyxy in the coordinates of the network's input.
        box: The box head's input for these RoIs, if it has been computed already.
    """

    def __init__(self, roi_head: nn.Module, levels: tuple[Tensor, ...], rois: Tensor, box: Tensor | None = None):
        self.roi_head = roi_head
        self.levels = levels
        self.rois = rois
        self._aligned = {}
        if box is not None:
            self._aligned[id(roi_head.bbox_roi_extractor), 1.0] = box

    @cached_property
    def pose_boxes(self) -> Tensor:
        """(n, 4) boxes whose features the landmark head gets: the RoIs, grown by its ``roi_scale``."""
        return scale_boxes_about_centre(self.rois[:, 1:], self.roi_head.keypoint_head.roi_scale)

    @cached_property
    def pose(self) -> Tensor:
        """(n, C, S, S) features after the landmark head's convolutions."""
        head = self.roi_head.keypoint_head
        return head.forward_features(self.aligned(self.roi_head.keypoint_roi_extractor, head.roi_scale))

    @cached_property
    def mask(self) -> Tensor:
        """(n, C, S, S) features after the mask head's convolutions."""
        return self.roi_head.mask_head.forward_features(self.aligned(self.roi_head.mask_roi_extractor))

    def of_stream(self, stream: str) -> Tensor:
        """The features (n, C, S, S) of a stream, which is 'class', 'pose' or 'mask'."""
        if stream == 'class':
            return self.aligned(self.roi_head.bbox_roi_extractor)
        return self.pose if stream == 'pose' else self.mask

    def aligned(self, extractor: nn.Module, scale: float = 1.0) -> Tensor:
        """The features that ``extractor`` finds by RoIAlign in the RoIs, grown by ``scale``."""
        key = id(extractor), scale
        if key not in self._aligned:
            features = extractor(
                self.levels[: extractor.num_inputs], self.rois, roi_scale_factor=None if scale == 1 else scale
            )
            self._aligned[key] = self.roi_head.shared_head(features) if self.roi_head.with_shared_head else features
        return self._aligned[key]

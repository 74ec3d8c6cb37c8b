"""The matching stream: RoI features to an embedding, pairs of embeddings to 'same' or 'different'."""

import itertools

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdf2.models.gather import gather_rows
from mmdf2.models.losses import contrastive_loss, contrastive_targets, match_loss, pair_targets, pair_weights
from mmdf2.ops import pair_similarity
from mmdf2.registry import MODELS

STREAMS = ('class', 'pose', 'mask')
ROI_SIZE = 7


@MODELS.register_module()
class MatchHead(BaseModule):
    """Match R-CNN's matching network: a shared tower to an embedding, then a linear layer on squared differences.

    Tower: 3 x 3 convolutions with ReLU on 7 x 7 features, global average pooling, a linear layer with batch norm
    (DeepFashion2, section 4; widths by its author's later word). The score of a pair is ``W (a - b)^2 + c`` with W of
    2 x embed_dims; class 0 is 'same'.

    ``sources`` names the RoI streams that feed it and gives the paper's five variants: 'class' is what feeds the box
    head, 'pose' and 'mask' are the last convolution's output of those streams, before any deconvolution. The paper does
    not say how streams are joined: here each is average-pooled to 7 x 7 and their channels are concatenated, in the
    order of ``sources``.

    Args:
        sources: Streams that feed the head, of 'class', 'pose', 'mask'.
        in_channels: Channels of all sources together.
        conv_channels: Output channels of each convolution.
        embed_dims: Length of the embedding.
        positive_share: How the loss balances same and different pairs, see :func:`match_loss`.
        loss_weight: Weight of ``loss_match``.
        true_metric: Whether the similarity is kept from having positive weights, so that the root of its best score
            minus its score is a distance, and any Euclidean index serves it. Beyond the paper, as are the next three.
        same_category_weight: How many times a pair of different garments of one category counts in ``loss_match``, see
            :func:`pair_weights`.
        contrastive_weight: Weight of ``loss_match_contrastive``, see :func:`contrastive_loss`; 0 for none.
        temperature: Of that loss.

    Raises:
        ValueError: An unknown, repeated or missing source; a weight below 0 or a temperature that is not above it.
    """

    def __init__(
        self,
        sources: tuple[str, ...] = ('pose',),
        in_channels: int = 512,
        conv_channels: tuple[int, ...] = (256, 256, 256, 1024),
        embed_dims: int = 256,
        positive_share: float | None = None,
        loss_weight: float = 1.0,
        true_metric: bool = False,
        same_category_weight: float = 1.0,
        contrastive_weight: float = 0.0,
        temperature: float = 1.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        if not sources or len(set(sources)) != len(sources) or not set(sources) <= set(STREAMS):
            raise ValueError(f'MatchHead: sources must be distinct names of {STREAMS}, at least one, got {sources!r}')
        weights_fit = 0 <= same_category_weight < float('inf') and 0 <= contrastive_weight < float('inf')
        if not (weights_fit and temperature > 0):
            raise ValueError(
                'MatchHead: same_category_weight and contrastive_weight must be finite and not negative, temperature '
                f'must be above 0; got {same_category_weight}, {contrastive_weight} and {temperature}'
            )
        default_init = [
            {'type': 'Kaiming', 'layer': 'Conv2d', 'mode': 'fan_out', 'nonlinearity': 'relu'},
            {'type': 'Normal', 'std': 0.01, 'layer': 'Linear'},
        ]
        super().__init__(init_cfg=default_init if init_cfg is None else init_cfg)
        widths = [in_channels, *conv_channels]
        self.sources = tuple(sources)
        self.convs = nn.Sequential(
            *(ConvModule(before, after, 3, padding=1) for before, after in itertools.pairwise(widths))
        )
        self.embed = nn.Linear(widths[-1], embed_dims)
        self.norm = nn.BatchNorm1d(embed_dims)
        self.similarity = nn.Linear(embed_dims, 2)
        self.positive_share = positive_share
        self.loss_weight = loss_weight
        self.true_metric = true_metric
        self.same_category_weight = same_category_weight
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature

    def init_weights(self) -> None:
        """Starts from plain distance: far apart means different, unrelated garments at odds of about 1 to 7.

        Batch norm makes the expected squared distance of unrelated embeddings 2 in each dimension. From weights around
        zero, embeddings get no gradient until the similarity has found its sign.
        """
        super().init_weights()
        with torch.no_grad():
            self.similarity.weight.copy_(torch.tensor([[-1.0], [1.0]]) / self.embed.out_features)
            self.similarity.bias.copy_(torch.tensor([1.0, -1.0]))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Embeddings (n, embed_dims), float32 or finer, of the features of each source, in the order of ``sources``.

        Args:
            features: (n, C_i, S_i, S_i) each.
        """
        joined = torch.cat([F.adaptive_avg_pool2d(feature, ROI_SIZE) for feature in features], dim=1)
        embeddings = self._normalise(self.embed(self.convs(joined).mean(dim=(2, 3))))
        return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))

    def pair_logits(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Logits (M, N, 2) of all pairs of embeddings (M, D) and (N, D); class 0 is 'same'."""
        return pair_similarity(query, gallery, self._similarity_weight().to(query), self.similarity.bias.to(query))

    def loss(
        self,
        embeddings: Tensor,
        is_shop: Tensor,
        identities: Tensor,
        pair_ids: Tensor,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss over every combination of a consumer's and a shop's garment in the batch, of all processes.

        The contrastive loss, where it is asked for, is over all pairs of the batch, see :func:`contrastive_targets`.

        Args:
            embeddings: (n, embed_dims).
            is_shop: (n,) 1 from a shop's image, 0 from a consumer's, -1 unknown and left out.
            identities: (n,) identity codes, -1 for a garment without one.
            pair_ids: (n,) ``pair_id`` of each garment's image, -1 where unknown.
            labels: (n,) category labels; needed where garments of one category count more.

        Returns:
            ``loss_match`` and, where it has a weight, ``loss_match_contrastive``: scalars, 0 with a zero gradient when
            there is no pair.

        Raises:
            ValueError: No labels where they are needed.
        """
        embeddings, is_shop, identities, pair_ids = (
            gather_rows(rows) for rows in (embeddings, is_shop, identities, pair_ids)
        )
        query, gallery = is_shop == 0, is_shop == 1
        targets = pair_targets(identities[query], identities[gallery], pair_ids[query], pair_ids[gallery])
        logits = self.pair_logits(embeddings[query], embeddings[gallery])
        weights = None
        if self.same_category_weight != 1:
            if labels is None:
                raise ValueError("MatchHead.loss: same_category_weight needs the garments' labels, got none")
            labels = gather_rows(labels)
            weights = pair_weights(targets, labels[query], labels[gallery], self.same_category_weight)
        losses = {'loss_match': self.loss_weight * match_loss(logits, targets, self.positive_share, weights)}
        if self.contrastive_weight:
            logits = self.pair_logits(embeddings, embeddings)
            targets = contrastive_targets(identities, pair_ids, is_shop)
            contrastive = contrastive_loss(logits, targets, self.temperature)
            losses['loss_match_contrastive'] = self.contrastive_weight * contrastive
        return losses

    def similarity_parameters(self) -> dict[str, Tensor]:
        """``weight`` (2, embed_dims) and ``bias`` (2,) on the CPU: all a gallery needs to score embeddings."""
        return {
            'weight': self._similarity_weight().detach().float().cpu(),
            'bias': self.similarity.bias.detach().float().cpu(),
        }

    def _similarity_weight(self) -> Tensor:
        """(2, embed_dims) rows that score: the parameter's, or with ``true_metric`` a form whose first is not above."""
        if not self.true_metric:
            return self.similarity.weight
        # A smooth form and not a projection after each step: it needs no hook in the optimiser, a dimension that has
        # become useless can come back (clamped, it would have no gradient), and the parameter keeps its shape. Around
        # the start, a difference of 2 / embed_dims, it is nearly the free one. Mean minus and plus half of something
        # that is not negative stay in order when they are rounded, so no index ever sees a positive weight.
        same, other = self.similarity.weight
        half = F.softplus(other - same, beta=self.similarity.in_features) / 2
        mean = (same + other) / 2
        return torch.stack([mean - half, mean + half])

    def _normalise(self, embeddings: Tensor) -> Tensor:
        # Batch statistics need two rows; a batch with fewer garments falls back on the running ones.
        if self.training and len(embeddings) < 2 and type(self.norm) is nn.BatchNorm1d:
            norm = self.norm
            return F.batch_norm(embeddings, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.norm(embeddings)

"""The match head: from RoI features to an embedding, and from pairs of embeddings to 'same' or 'different'."""

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

    The tower has 3 x 3 convolutions with ReLU on 7 x 7 features, global average pooling, and a linear layer with batch
    norm (DeepFashion2, section 4; the widths are those that its author named later). The logits of a pair are
    ``W (a - b)^2 + c`` with W of 2 x embed_dims; class 0 is 'same'. :mod:`mmdf2.retrieval.similarity` derives how they
    are computed and searched.

    ``sources`` names the RoI streams that feed the head, and so gives the paper's five variants: 'class' is the input
    of the box head, 'pose' and 'mask' are the output of the last convolution of those streams, before any
    deconvolution. The paper does not say how streams are joined: here each is average-pooled to 7 x 7, and the channels
    are concatenated in the order of ``sources``.

    Args:
        sources: Streams that feed the head, of 'class', 'pose' and 'mask'.
        in_channels: Channels of all sources together.
        conv_channels: Output channels of each convolution.
        embed_dims: Length of the embedding.
        positive_share: How the loss balances same and different pairs, see :func:`match_loss`.
        loss_weight: Weight of ``loss_match``.
        true_metric: Whether the weights of the similarity are kept at or below 0. The square root of the largest score
            minus a score is then a distance, which any Euclidean index can search. This option and the next three go
            beyond the paper.
        same_category_weight: How many times a pair of different garments of the same category counts in
            ``loss_match``, see :func:`pair_weights`.
        contrastive_weight: Weight of ``loss_match_contrastive``, see :func:`contrastive_loss`; 0 switches it off.
        temperature: Temperature of the contrastive loss.
        init_cfg: MMEngine's config of the initial weights of convolutions and linear layers; by default Kaiming's and
            a normal distribution of standard deviation 0.01.

    Raises:
        ValueError: A source is unknown or repeated or there is none, a weight is negative or infinite, or the
            temperature is not above 0.
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
        """Starts the similarity as plain distance: distant embeddings mean different garments.

        Two unrelated garments start with odds of about 1 to 7 of being the same, because batch norm makes the expected
        squared distance of unrelated embeddings 2 in each dimension. Starting from weights around 0 instead, embeddings
        would get no gradient until the similarity has found its sign.
        """
        super().init_weights()
        with torch.no_grad():
            self.similarity.weight.copy_(torch.tensor([[-1.0], [1.0]]) / self.embed.out_features)
            self.similarity.bias.copy_(torch.tensor([1.0, -1.0]))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Embeddings (n, embed_dims) of n RoIs, in float32 or a finer type.

        Args:
            features: The features (n, C_i, S_i, S_i) of each source, in the order of ``sources``.
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
        """The loss over every pair of a user's and a shop's garment instance in the batches of all processes.

        The contrastive loss, if it is switched on, is over all pairs, see :func:`contrastive_targets`.

        Args:
            embeddings: (n, embed_dims) embeddings of this process.
            is_shop: (n,) source of each instance's image: 1 for a shop image, 0 for a user image, -1 when unknown;
                instances of unknown source are left out.
            identities: (n,) identity code of each instance, -1 for none.
            pair_ids: (n,) ``pair_id`` of each instance's image, -1 when unknown.
            labels: (n,) category labels; needed when ``same_category_weight`` is not 1.

        Returns:
            A dict with ``loss_match`` and, if it has a weight, ``loss_match_contrastive``: scalars, which are 0 with a
            zero gradient when there is no pair.

        Raises:
            ValueError: There are no labels although they are needed.
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
        """``weight`` (2, embed_dims) and ``bias`` (2,) on the CPU: all that a gallery needs to compare embeddings."""
        return {
            'weight': self._similarity_weight().detach().float().cpu(),
            'bias': self.similarity.bias.detach().float().cpu(),
        }

    def _similarity_weight(self) -> Tensor:
        """(2, embed_dims) the weight of the similarity.

        With ``true_metric`` it is a function of the parameter, in which the first row nowhere exceeds the second.
        """
        if not self.true_metric:
            return self.similarity.weight
        # A smooth function is used instead of a projection after each step: it needs no hook in the optimiser, a
        # dimension that has become useless can recover (clamped, it would have no gradient), and the parameter keeps
        # its shape. Near the initial difference of 2 / embed_dims it is almost the identity. The mean minus and plus
        # half of a value that is not negative stay in order when they are rounded, so an index never gets a positive
        # weight.
        same, other = self.similarity.weight
        half = F.softplus(other - same, beta=self.similarity.in_features) / 2
        mean = (same + other) / 2
        return torch.stack([mean - half, mean + half])

    def _normalise(self, embeddings: Tensor) -> Tensor:
        # Batch statistics need two rows; a batch with fewer garment instances uses the running statistics.
        if self.training and len(embeddings) < 2 and type(self.norm) is nn.BatchNorm1d:
            norm = self.norm
            return F.batch_norm(embeddings, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.norm(embeddings)

"""The match head: from RoI features to an embedding, and from pairs of embeddings to 'same' or 'different'."""

import itertools

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdf2.models.batch_norm import by_running_statistics
from mmdf2.models.gather import gather_rows
from mmdf2.models.losses import (
    IGNORED,
    contrastive_loss,
    contrastive_targets,
    match_loss,
    pair_targets,
    pair_weights,
)
from mmdf2.ops import pair_similarity
from mmdf2.registry import MODELS

from .batch_memory import BatchMemory

STREAMS = ('class', 'pose', 'mask')
ROI_SIZE = 7


@MODELS.register_module()
class MatchHead(BaseModule):
    """Match R-CNN's matching network: a shared tower to an embedding, then a linear layer on squared differences.

    The tower has 3 x 3 convolutions with ReLU on 7 x 7 features, global average pooling, and a linear layer with batch
    norm (DeepFashion2, section 4; the widths are those that its author named later). The logits of a pair are
    ``W (a - b)^2 + c`` with W of 2 x embed_dims; class 0 is 'same'. :mod:`mmdf2.retrieval.similarity` derives how they
    are computed and searched.

    In training the norm and the loss see the garments of all processes: a norm of the garments of one process would
    subtract what these have in common, and so make all pairs of garments from different processes look different.

    ``sources`` names the RoI streams that feed the head, and so gives the paper's five variants: 'class' is the input
    of the box head, 'pose' and 'mask' are the output of the last convolution of those streams, before any
    deconvolution. The paper does not say how streams are joined: here each is average-pooled to 7 x 7, and the channels
    are concatenated in the order of ``sources``.

    Args:
        sources: Streams that feed the head, of 'class', 'pose' and 'mask'.
        in_channels: Channels of all sources together.
        conv_channels: Output channels of each convolution.
        embed_dims: Length of the embedding.
        norm_cfg: Config of the norm layer after the linear layer; None for no norm. In training it is applied to the
            rows of all processes, so it needs no synchronisation of its own.
        positive_share: How the loss balances same and different pairs, see :func:`match_loss`.
        loss_weight: Weight of ``loss_match``.
        true_metric: Whether the weights of the similarity are kept at or below 0. The square root of the largest score
            minus a score is then a distance, which any Euclidean index can search. This option and the next three go
            beyond the paper.
        same_category_weight: How many times a pair of different garments of the same category counts in
            ``loss_match``, see :func:`pair_weights`.
        contrastive_weight: Weight of ``loss_match_contrastive``, see :func:`contrastive_loss`; 0 switches it off.
        temperature: Temperature of the contrastive loss.
        memory: A batch with fewer garments than this is filled up with those of preceding batches, to compare its own
            with; 0 for none. The default is two image pairs with 8 proposals per image: with fewer garments hardly
            anything is learned, and with more the earlier garments, which are of older weights, do more harm than
            good. It needs a batch norm.
        init_cfg: MMEngine's config of the initial weights of convolutions and linear layers; by default Kaiming's and
            a normal distribution of standard deviation 0.01.

    Raises:
        ValueError: A source is unknown or repeated or there is none, a weight is negative or infinite, the
            temperature is not above 0, or there is a memory without a batch norm.
    """

    def __init__(
        self,
        sources: tuple[str, ...] = ('pose',),
        in_channels: int = 512,
        conv_channels: tuple[int, ...] = (256, 256, 256, 1024),
        embed_dims: int = 256,
        norm_cfg: dict | None = {'type': 'mmdf2.BatchNorm'},  # noqa: B006  (a default of MMDetection's kind)
        positive_share: float | None = None,
        loss_weight: float = 1.0,
        true_metric: bool = False,
        same_category_weight: float = 1.0,
        contrastive_weight: float = 0.0,
        temperature: float = 1.0,
        memory: int = 32,
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
        self.norm = nn.Identity() if norm_cfg is None else build_norm_layer(norm_cfg, embed_dims)[1]
        if memory and not isinstance(self.norm, _BatchNorm):
            raise ValueError(
                f'MatchHead: memory={memory} needs a batch norm, whose running statistics make earlier garments '
                f'comparable; got norm_cfg={norm_cfg}. Set memory=0, or another norm'
            )
        self.similarity = nn.Linear(embed_dims, 2)
        self.positive_share = positive_share
        self.loss_weight = loss_weight
        self.true_metric = true_metric
        self.same_category_weight = same_category_weight
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.memory = BatchMemory(memory, embed_dims) if memory else None

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
        """Embeddings (n, embed_dims) of n RoIs, in float32 or a finer type; for the argument see :meth:`project`."""
        return self._normalise(self.project(features))

    def project(self, features: list[Tensor]) -> Tensor:
        """Embeddings before the norm, (n, embed_dims), in float32 or a finer type.

        Args:
            features: The features (n, C_i, S_i, S_i) of each source, in the order of ``sources``.
        """
        joined = torch.cat([average_pool(feature) for feature in features], dim=1)
        rows = self.embed(self.convs(joined).mean(dim=(2, 3)))
        return rows.to(torch.promote_types(rows.dtype, torch.float32))

    def pair_logits(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Logits (M, N, 2) of all pairs of embeddings (M, D) and (N, D); class 0 is 'same'."""
        return pair_similarity(query, gallery, self._similarity_weight().to(query), self.similarity.bias.to(query))

    def loss(
        self,
        projections: Tensor,
        is_shop: Tensor,
        identities: Tensor,
        pair_ids: Tensor,
        labels: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss over every pair of a user's and a shop's garment instance in the batches of all processes.

        The contrastive loss, if it is switched on, is over all pairs, see :func:`contrastive_targets`.

        Args:
            projections: (n, embed_dims) result of :meth:`project` in this process.
            is_shop: (n,) source of each instance's image: 1 for a shop image, 0 for a user image, -1 when unknown;
                instances of unknown source are left out.
            identities: (n,) identity code of each instance, -1 for none.
            pair_ids: (n,) ``pair_id`` of each instance's image, -1 when unknown.
            labels: (n,) category labels; needed when ``same_category_weight`` is not 1.
            counts: (processes,) the n of each process, if they are known already.

        Returns:
            A dict with ``loss_match`` and, if it has a weight, ``loss_match_contrastive``: scalars, which are 0 with a
            zero gradient when there is no pair.

        Raises:
            ValueError: There are no labels although they are needed.
        """
        if labels is None:
            if self.same_category_weight != 1:
                raise ValueError("MatchHead.loss: same_category_weight needs the garments' labels, got none")
            labels = torch.full_like(identities, -1)
        garments = torch.stack([is_shop, identities, pair_ids, labels], dim=1).long()
        projections, garments = gather_rows(projections, garments, counts=counts)
        embeddings = self._normalise(projections)
        is_new = torch.ones(len(embeddings), dtype=torch.bool, device=embeddings.device)
        if self.memory is not None:
            earlier, labels_of_earlier = self.memory.exchange(projections, garments)
            # In one batch norm with the new garments, the weights would learn to tell new garments from earlier ones.
            embeddings = torch.cat([embeddings, by_running_statistics(self.norm, earlier.to(embeddings))])
            garments = torch.cat([garments, labels_of_earlier])
            is_new = torch.cat([is_new, is_new.new_zeros(len(earlier))])
        losses = {'loss_match': self.loss_weight * self._match_loss(embeddings, garments, is_new)}
        if self.contrastive_weight:
            is_shop, identities, pair_ids, _ = garments.unbind(dim=1)
            targets = contrastive_targets(identities, pair_ids, is_shop)
            targets = targets.masked_fill(~(is_new[:, None] | is_new), IGNORED)
            contrastive = contrastive_loss(self.pair_logits(embeddings, embeddings), targets, self.temperature)
            losses['loss_match_contrastive'] = self.contrastive_weight * contrastive
        return losses

    def _match_loss(self, embeddings: Tensor, garments: Tensor, is_new: Tensor) -> Tensor:
        users, shops = garments[:, 0] == 0, garments[:, 0] == 1
        (_, *of_users, user_labels), (_, *of_shops, shop_labels) = (
            garments[side].unbind(dim=1) for side in (users, shops)
        )
        targets = pair_targets(of_users[0], of_shops[0], of_users[1], of_shops[1])
        # Neither side of a pair of earlier garments can change.
        targets = targets.masked_fill(~(is_new[users][:, None] | is_new[shops]), IGNORED)
        weights = None
        if self.same_category_weight != 1:
            weights = pair_weights(targets, user_labels, shop_labels, self.same_category_weight)
        logits = self.pair_logits(embeddings[users], embeddings[shops])
        return match_loss(logits, targets, self.positive_share, weights)

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

    def _normalise(self, projections: Tensor) -> Tensor:
        if self.training and len(projections) < 2 and isinstance(self.norm, _BatchNorm):
            return by_running_statistics(self.norm, projections)  # torch's own batch norms refuse one row
        return self.norm(projections)


def average_pool(features: Tensor) -> Tensor:
    """Features (n, C, S, S), average-pooled to (n, C, 7, 7)."""
    size = features.shape[-1]
    if size % ROI_SIZE or features.shape[-2] != size:
        return F.adaptive_avg_pool2d(features, ROI_SIZE)
    # On CUDA the gradient of adaptive pooling is not deterministic, and torch refuses it when asked to be.
    return F.avg_pool2d(features, size // ROI_SIZE)

"""Sampling of image pairs: a user image and a shop image of one identity are neighbours in a batch."""

import logging
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmdf2.categories import Source
from mmdf2.registry import DATA_SAMPLERS


class IdentityPairs:
    """Which user images and which shop images share an identity.

    Args:
        images: (r,) index of the image of each row; a row is an identity on an image.
        identities: (r,) identity of each row; an image may have several.
        sources: (n,) code of each image's source: 0 for a user image, 1 for a shop image.

    Attributes:
        num_images: Number of images, n.
        user_images: (u,) user images that have a partner, sorted.
        shop_images: (s,) shop images that have a partner, sorted.
        alone: Number of identities that are only on user images or only on shop images.
    """

    def __init__(self, images: np.ndarray, identities: np.ndarray, sources: np.ndarray):
        self.num_images = len(sources)
        rows = np.unique(np.stack([identities, images], axis=1).reshape(-1, 2), axis=0)
        side = np.asarray(sources)[rows[:, 1]]
        both = np.intersect1d(rows[side == Source.USER, 0], rows[side == Source.SHOP, 0])
        self.alone = len(np.unique(rows[:, 0])) - len(both)
        paired = np.isin(rows[:, 0], both)
        number, image = np.searchsorted(both, rows[paired, 0]), rows[paired, 1]
        user = side[paired] == Source.USER
        by_image = np.argsort(image[user], kind='stable')
        self._user_numbers = number[user][by_image]
        self.user_images, self._user_starts, self._user_counts = np.unique(
            image[user][by_image], return_index=True, return_counts=True
        )
        self._shop_numbers, self._shop_rows = number[~user], image[~user]
        self._shop_starts = np.searchsorted(self._shop_numbers, np.arange(len(both)))
        self._shop_counts = np.bincount(self._shop_numbers, minlength=len(both))
        self.shop_images = np.unique(self._shop_rows)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a pair for every user image that has a partner: with a random shop image of one of its identities.

        All shop images of an identity are used before one is used twice for it.

        Returns:
            (pairs, 2): user image, shop image; in random order.
        """
        order = rng.permutation(len(self.user_images))
        pick = self._user_starts[order] + rng.integers(0, self._user_counts[order])
        numbers = self._user_numbers[pick]
        shops = self._shop_rows[np.lexsort((rng.random(len(self._shop_rows)), self._shop_numbers))]
        rank = _rank_within(numbers)
        partners = shops[self._shop_starts[numbers] + rank % self._shop_counts[numbers]]
        return np.stack([self.user_images[order], partners], axis=1)


def _rank_within(groups: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... for the first, second, third, ... occurrence of each value."""
    order = np.argsort(groups, kind='stable')
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return rank


@DATA_SAMPLERS.register_module()
class PairSampler(Sampler):
    """Samples images in twos: elements 2i and 2i + 1 of the sequence are a user and a shop image of one identity.

    In each epoch, every user image that has a partner comes once, with a newly drawn partner. With ``fill``, the other
    images come too, in twos between the pairs, so that the streams that need no pairs train on all images; without it,
    an epoch consists of pairs only. A shop image may be the partner of several user images, so an epoch with ``fill``
    is longer than the dataset, and a batch has more pairs or fewer by chance; the log says how long the epoch is and
    which share of its twos are pairs. With ``pair_share``, every batch has this share of pairs, and an epoch has as
    many images as the dataset (one more if their number is odd): user images come as pairs as often as the share
    allows, and the images that are in no pair fill the rest.

    All epochs have the same length, whatever the seed. Where an image has several identities, the number of shop images
    that are not drawn varies a little; therefore, a few of them are left to another epoch or come twice.

    Use an even batch size, and no batch sampler that regroups images.

    The same seed and epoch give the same sequence, whatever the number of processes: the batches of N processes
    together are the batch of one process with N times the batch size. Each process gets its own share of the twos. The
    shares have the same length: if need be, a few of the first twos are repeated at the end.

    Args:
        dataset: A dataset with ``sources()`` and ``identity_table()``, such as ``DeepFashion2Dataset``.
        fill: Whether the images come too that have no partner or were not drawn as a partner.
        seed: Seed that is the same in all processes; by default a random one that they agree on.
        pair_share: Share of pairs among the twos of every batch, the images of all processes counted together: more
            than 0, at most 1. A batch whose number of twos does not allow the exact share has the next smaller or
            larger number of pairs. None takes all pairs and all other images as they come.

    Raises:
        TypeError: The dataset has no ``identity_table``.
        ValueError: No user image shares an identity with a shop image, or ``pair_share`` is not a share, leaves no pair
            in an epoch, or comes together with ``fill=False``.
    """

    def __init__(self, dataset, fill: bool = True, seed: int | None = None, pair_share: float | None = None):
        if not hasattr(dataset, 'identity_table'):
            raise TypeError(
                f'PairSampler needs a dataset that knows identities, as mmdf2.DeepFashion2Dataset does, '
                f'got {type(dataset).__name__}'
            )
        self.pairs = IdentityPairs(*dataset.identity_table(), dataset.sources())
        users, images = len(self.pairs.user_images), self.pairs.num_images
        if not users:
            raise ValueError(
                f'no identity (pair_id and style > 0) is both on a user image and on a shop image among these {images} '
                'images, so there is no pair to draw'
            )
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        partnered = np.concatenate([self.pairs.user_images, self.pairs.shop_images])
        self._partnerless = np.setdiff1d(np.arange(images), partnered)
        if pair_share is None:
            self.num_pairs, self.num_fill = users, self._even_count_of_rest() if fill else 0
            self._is_pair = None
        else:
            self._is_pair = _even_pattern(pair_share, -(-images // 2), fill)
            self.num_pairs = int(self._is_pair.sum())
            self.num_fill = 2 * (len(self._is_pair) - self.num_pairs)
        twos = self.num_pairs + self.num_fill // 2
        self._twos_per_rank = -(-twos // self.world_size)
        print_log(
            f'PairSampler: an epoch has {self.num_pairs} pairs and {self.num_fill // 2} other twos, or {2 * twos} '
            f'images, which is {2 * twos / images:.2f} times the {images} images of the dataset; '
            f'{self.num_pairs / twos:.0%} of the twos are pairs. {self.pairs.alone} identities are only on user images '
            'or only on shop images and give no pair',
            logger='current',
            level=logging.INFO,
        )

    def __iter__(self) -> Iterator[int]:
        twos = self.epoch_twos(self.epoch)
        shares = np.arange(self._twos_per_rank * self.world_size).reshape(-1, self.world_size) % len(twos)
        if self._is_pair is not None:
            # Pairs come at regular intervals. Without this, one process could get all of them and another one none.
            shares = np.random.default_rng((self.seed, self.epoch, 1)).permuted(shares, axis=1)
        return iter(twos[shares[:, self.rank]].reshape(-1).tolist())

    def __len__(self) -> int:
        return 2 * self._twos_per_rank

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which determines the next sequence."""
        self.epoch = epoch

    def epoch_twos(self, epoch: int) -> np.ndarray:
        """Draws all twos of an epoch, those of all processes.

        Returns:
            (twos, 2) indices of images; in a pair, the user image comes first.
        """
        rng = np.random.default_rng((self.seed, epoch))
        pairs = self._draw_pairs(rng)
        if self._is_pair is None:
            undrawn = np.concatenate([self._partnerless, rng.permutation(np.setdiff1d(self.pairs.shop_images, pairs))])
        else:
            undrawn = rng.permutation(np.setdiff1d(np.arange(self.pairs.num_images), pairs))
        repeated = rng.permutation(self.pairs.num_images)
        rest = rng.permutation(np.concatenate([undrawn, repeated])[: self.num_fill]).reshape(-1, 2)
        if self._is_pair is None:
            return rng.permutation(np.concatenate([pairs, rest]))
        twos = np.empty((len(self._is_pair), 2), dtype=np.int64)
        twos[self._is_pair], twos[~self._is_pair] = pairs, rest
        return twos

    def _draw_pairs(self, rng: np.random.Generator) -> np.ndarray:
        passes = -(-self.num_pairs // len(self.pairs.user_images))
        return np.concatenate([self.pairs.draw(rng) for _ in range(passes)])[: self.num_pairs]

    def _even_count_of_rest(self) -> int:
        # Not the sampler's seed: the length of an epoch must not depend on it, since a resumed run gets its seed late.
        undrawn = np.setdiff1d(self.pairs.shop_images, self.pairs.draw(np.random.default_rng(0)))
        count = len(self._partnerless) + len(undrawn)
        return count + count % 2


def _even_pattern(share: float, twos: int, fill: bool) -> np.ndarray:
    """Which of an epoch's twos are pairs: any successive ones have the share, rounded up or down.

    Args:
        share: Share of pairs, as the user gives it.
        twos: Number of twos.
        fill: Whether there are other twos than pairs.

    Returns:
        (twos,) bool.
    """
    if not 0 < share <= 1:
        raise ValueError(f'PairSampler: pair_share is {share}; it should be more than 0 and at most 1, or None')
    if not fill:
        raise ValueError(
            f'PairSampler: pair_share={share} and fill=False were both given; leave out fill, or leave out pair_share '
            'for an epoch that consists of every pair once'
        )
    exact = Fraction(share).limit_denominator(1000)
    pairs_before = np.arange(twos + 1) * exact.numerator // exact.denominator
    if not pairs_before[-1]:
        raise ValueError(
            f'PairSampler: pair_share={share} leaves no pair in an epoch of {twos} twos; choose a larger one'
        )
    return np.diff(pairs_before) > 0

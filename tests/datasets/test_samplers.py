import logging
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from mmengine.runner import Runner

from mmdf2.datasets import samplers
from mmdf2.datasets.samplers import IdentityPairs, PairSampler


class Images:
    """A dataset that knows only sources and identities; ``identities[i]`` are those of image i."""

    def __init__(self, sources, identities):
        self._sources, self._identities = np.array(sources), identities

    def __len__(self):
        return len(self._sources)

    def __getitem__(self, index):
        return index

    def sources(self):
        return self._sources

    def identity_table(self):
        images = [image for image, found in enumerate(self._identities) for _ in found]
        identities = [code for found in self._identities for code in found]
        return np.array(images, dtype=np.int64), np.array(identities, dtype=np.int64)

    def is_pair(self, two):
        user, shop = two
        shared = set(self._identities[user]) & set(self._identities[shop])
        return (self._sources[user], self._sources[shop]) == (0, 1) and bool(shared)


def random_images(seed, count=400):
    rng = np.random.default_rng(seed)
    identities = [sorted({int(code) for code in rng.integers(0, count // 4, rng.integers(0, 4))}) for _ in range(count)]
    return Images(rng.integers(0, 2, count), identities)


def twos(sampler):
    return np.array(list(sampler)).reshape(-1, 2)


@pytest.mark.parametrize('seed', range(5))
def test_every_user_image_with_a_partner_comes_once_with_a_true_one(seed):
    images = random_images(seed)
    found = twos(PairSampler(images, fill=False, seed=seed))
    assert all(images.is_pair(two) for two in found)
    expected = [
        user
        for user in np.flatnonzero(images.sources() == 0)
        if any(images.is_pair((user, shop)) for shop in np.flatnonzero(images.sources() == 1))
    ]
    assert sorted(found[:, 0].tolist()) == expected


@pytest.mark.parametrize('seed', range(5))
def test_fill_makes_an_epoch_of_the_whole_dataset(seed):
    images = random_images(seed)
    sampler = PairSampler(images, seed=seed)
    assert len(sampler) == len(list(sampler))
    pairs = len(PairSampler(images, fill=False, seed=0)) // 2
    seen = Counter()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        found = twos(sampler)
        assert sum(images.is_pair(two) for two in found) >= pairs
        seen.update(np.unique(found).tolist())
    assert len(seen) == len(images)
    partnerless = [image for image in range(len(images)) if not images._identities[image]]
    assert all(seen[image] == 30 for image in partnerless)


def test_without_repeats_each_image_comes_exactly_once():
    images = Images([0, 1, 1, 0, 1, 0, 1, 1], [[1], [1], [1], [2], [2], [], [3], []])
    assert sorted(PairSampler(images, seed=0)) == list(range(8))


def test_partners_are_drawn_anew_and_used_up_before_they_are_repeated():
    images = Images([0, 0, 1, 1, 1], [[1], [1], [1], [1], [1]])
    sampler = PairSampler(images, fill=False, seed=3)
    partners = Counter()
    for epoch in range(300):
        sampler.set_epoch(epoch)
        found = twos(sampler)
        assert len(set(found[:, 1].tolist())) == 2
        partners.update(map(tuple, found.tolist()))
    assert set(partners) == {(user, shop) for user in (0, 1) for shop in (2, 3, 4)}
    assert min(partners.values()) > 60


def test_an_image_with_several_identities_is_paired_through_each():
    images = Images([0, 1, 1], [[1, 2], [1], [2]])
    sampler = PairSampler(images, fill=False, seed=0)
    drawn = set()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        drawn.add(tuple(sampler))
    assert drawn == {(0, 1), (0, 2)}


@pytest.mark.parametrize('fill', [True, False])
@pytest.mark.parametrize('world_size', [2, 3])
def test_processes_share_an_epoch_evenly(monkeypatch, world_size, fill):
    images = random_images(1)
    whole = twos(PairSampler(images, fill=fill, seed=5)).tolist()
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, world_size))
        sampler = PairSampler(images, fill=fill, seed=5)
        shares.append(twos(sampler).tolist())
        assert len(shares[-1]) * 2 == len(sampler)
    assert len({len(share) for share in shares}) == 1
    joined = [two for step in zip(*shares, strict=True) for two in step]
    assert joined[: len(whole)] == whole
    assert joined[len(whole) :] == whole[: len(joined) - len(whole)]


def whole_batches(monkeypatch, images, world_size, twos_per_batch, **options):
    """The batches of some processes together, of so many twos in all; each as a sorted list of twos."""
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, world_size))
        shares.append([tuple(two) for two in twos(PairSampler(images, seed=5, **options)).tolist()])
    size = twos_per_batch // world_size
    parts = [[share[start : start + size] for start in range(0, len(share), size)] for share in shares]
    return [sorted(two for part in batch for two in part) for batch in zip(*parts, strict=True)]


@pytest.mark.parametrize('options', [{}, {'fill': False}, {'pair_share': 0.5}, {'pair_share': 0.3}])
@pytest.mark.parametrize('count', [400, 403])
def test_processes_together_have_the_batches_of_one(monkeypatch, options, count):
    images = random_images(1, count)
    expected = whole_batches(monkeypatch, images, 1, 8, **options)
    first = {two for batch in expected[:1] for two in batch}
    for world_size in (2, 4, 8):
        found = whole_batches(monkeypatch, images, world_size, 8, **options)
        assert found[:-1] == expected[:-1]
        # The last batch is that of one process, and as many of the first twos as make it divisible.
        added = Counter(found[-1])
        added.subtract(expected[-1])
        assert min(added.values()) >= 0 and set(+added) <= first
        assert len(found[-1]) == -(-len(expected[-1]) // world_size) * world_size


def split_like_the_real_one(seed, count, user_share, alone=0.2):
    """A dataset with one to three styles per image, and shops' images shared by several user images.

    Args:
        seed: Seed of the random numbers.
        count: Number of images.
        user_share: Share of user images.
        alone: Share of images without a style.
    """
    rng = np.random.default_rng(seed)
    sources = (rng.random(count) >= user_share).astype(int)
    # Few identities have many images, most have few.
    weights = 1 / (1 + np.arange(count // 8)) ** 0.5
    identities = [
        []
        if rng.random() < alone
        else sorted({int(code) for code in rng.choice(count // 8, rng.integers(1, 4), p=weights / weights.sum())})
        for _ in range(count)
    ]
    return Images(sources, identities)


@pytest.mark.parametrize('user_share', [0.2, 0.34, 0.5, 0.7])
@pytest.mark.parametrize('pair_share', [0.1, 0.25, 1 / 3, 0.5, 0.8, 1])
def test_every_batch_has_its_share_of_pairs(monkeypatch, user_share, pair_share):
    images = split_like_the_real_one(2, 1001, user_share)
    partnered = len(PairSampler(images, fill=False, seed=0)) // 2
    for world_size, size in ((1, 1), (1, 5), (1, 8), (4, 8), (8, 16)):
        batches = whole_batches(monkeypatch, images, world_size, size, pair_share=pair_share)
        exact = Fraction(pair_share).limit_denominator(1000) * size
        for batch in batches[:-1]:
            # A two of the others may be a pair by accident.
            assert sum(images.is_pair(two) for two in batch) >= int(exact)
        drawn = PairSampler(images, seed=5, pair_share=pair_share)._is_pair
        counts = {int(drawn[start : start + size].sum()) for start in range(0, len(drawn) - size, size)}
        assert counts <= {int(exact), -int(-exact // 1)}
    assert len(drawn) == 501
    found = PairSampler(images, seed=5, pair_share=pair_share).epoch_twos(3)
    assert all(images.is_pair(two) for two in found[drawn])
    # User images come in pairs equally often, and the others come once, but for one that makes their number even.
    users = Counter(found[drawn][:, 0].tolist())
    most = -(-drawn.sum() // partnered)
    assert max(users.values()) <= most and min(users.values()) >= most - 1
    others = found[~drawn].reshape(-1).tolist()
    assert len(others) - len(set(others) - set(found[drawn].reshape(-1).tolist())) <= 1


@pytest.mark.parametrize('pair_share', [None, 0.2, 0.5, 1])
def test_all_images_come_in_a_few_epochs(pair_share):
    images = split_like_the_real_one(4, 600, 0.4)
    sampler = PairSampler(images, seed=1, pair_share=pair_share)
    seen = set()
    for epoch in range(25):
        sampler.set_epoch(epoch)
        seen.update(sampler)
    partnered = set(sampler.pairs.user_images.tolist()) | set(sampler.pairs.shop_images.tolist())
    assert seen == (partnered if pair_share == 1 else set(range(600)))


def test_no_process_gets_all_pairs(monkeypatch):
    images = split_like_the_real_one(4, 800, 0.5)
    for rank in range(4):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, 4))
        found = twos(PairSampler(images, seed=1, pair_share=0.5))
        assert 35 <= sum(images.is_pair(two) for two in found) <= 65


@pytest.mark.parametrize('options', [{}, {'fill': False}, {'pair_share': 0.4}])
def test_the_log_says_what_an_epoch_is(caplog, monkeypatch, options):
    monkeypatch.setattr(samplers, 'print_log', lambda text, **_: logging.getLogger().warning(text))
    images = split_like_the_real_one(3, 1000, 0.34)
    sampler = PairSampler(images, seed=2, **options)
    pattern = (
        r'has (\d+) pairs and (\d+) other twos, or (\d+) images, which is ([\d.]+) times the 1000 images .*; (\d+)% of '
    )
    pairs, others, length, times, percent = map(float, re.search(pattern, caplog.text).groups())
    assert length == len(list(sampler)) == len(sampler) == 2 * (pairs + others)
    assert times == pytest.approx(length / 1000, abs=0.005) and percent == pytest.approx(
        100 * pairs / (length / 2), abs=1
    )
    assert sum(images.is_pair(two) for two in twos(sampler)) >= pairs
    if not options:
        # Several user images have the same shop image as their partner.
        assert length > 1000


def test_the_length_of_an_epoch_does_not_depend_on_the_seed():
    """A resumed run learns its seed when its loop, with the number of iterations, has been built."""
    images = split_like_the_real_one(3, 1000, 0.34)
    assert len({len(PairSampler(images, seed=seed)) for seed in range(20)}) == 1


def test_seed_and_epoch_decide():
    images = random_images(2)
    a, b = PairSampler(images, seed=7), PairSampler(images, seed=7)
    first = list(a)
    assert first == list(b) == list(a)
    a.set_epoch(4)
    assert first != list(a)
    # A run that is resumed at epoch 4 sees the same images as one that was not interrupted.
    b.set_epoch(4)
    assert list(a) == list(b)
    assert first != list(PairSampler(images, seed=8))


def test_a_config_builds_batches_of_pairs(tiny_root):
    loader = Runner.build_dataloader(
        {
            'batch_size': 4,
            'num_workers': 0,
            'dataset': {'type': 'mmdf2.DeepFashion2Dataset', 'data_root': str(tiny_root), 'split': 'train'},
            'sampler': {'type': 'mmdf2.PairSampler', 'fill': False},
        },
        seed=3,
    )
    loader.collate_fn = list
    assert loader.sampler.seed == 3 and len(loader) == 6
    for batch in loader:
        for user, shop in zip(batch[0::2], batch[1::2], strict=True):
            assert (user['source'], shop['source']) == ('user', 'shop')
            shared = {item['identity'] for item in user['instances']} & {item['identity'] for item in shop['instances']}
            assert shared - {-1}


def test_identities_on_one_side_are_counted():
    images = Images([0, 1, 0, 1], [[1, 2], [1], [3], [4, 1]])
    assert IdentityPairs(*images.identity_table(), images.sources()).alone == 3


def test_nothing_to_pair_is_an_error():
    with pytest.raises(ValueError, match='there is no pair to draw'):
        PairSampler(Images([0, 0, 1], [[1], [1], [2]]), seed=0)
    with pytest.raises(ValueError, match='there is no pair to draw'):
        PairSampler(Images([0, 1], [[], []]), seed=0)
    with pytest.raises(TypeError, match=r'mmdf2\.DeepFashion2Dataset'):
        PairSampler([1, 2], seed=0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'pair_share': 0}, 'pair_share is 0; it should be more than 0 and at most 1, or None'),
        ({'pair_share': 1.5}, 'pair_share is 1.5; it should be'),
        ({'pair_share': float('nan')}, 'pair_share is nan; it should be'),
        ({'pair_share': 0.5, 'fill': False}, 'pair_share=0.5 and fill=False were both given; leave out'),
        ({'pair_share': 0.001}, 'leaves no pair in an epoch of 200 twos; choose a larger one'),
    ],
)
def test_a_share_that_cannot_be_had(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PairSampler(random_images(1), seed=0, **options)

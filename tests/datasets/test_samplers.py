from collections import Counter

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

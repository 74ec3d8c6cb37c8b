"""Arrays read as one, against the one."""

import numpy as np
import pytest

from mmdf2.retrieval.stacked import Stacked


@pytest.mark.parametrize('sizes', [(7,), (0,), (0, 0), (3, 4), (3, 0, 4), (1, 5, 2)])
def test_all_reads_are_those_of_one_array(sizes):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(size, 3)).astype(np.float32) for size in sizes]
    whole, stacked = np.concatenate(parts), Stacked(parts)
    assert stacked.shape == whole.shape and len(stacked) == len(whole) and stacked.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(stacked), whole)
    for start in range(10):
        for stop in range(10):
            np.testing.assert_array_equal(stacked[start:stop], whole[start:stop])
            np.testing.assert_array_equal(stacked[start:stop:2], whole[start:stop:2])
        pieces = stacked.below(start)
        assert np.concatenate([np.arange(first, first + len(part)) for first, part in pieces] or [[]]).tolist() == list(
            range(start, len(whole))
        )
        for first, part in pieces:
            np.testing.assert_array_equal(part, whole[first : first + len(part)])
    if len(whole):
        rows = rng.integers(0, len(whole), 20)
        np.testing.assert_array_equal(stacked[rows], whole[rows])
    assert stacked[np.zeros(0, int)].shape == (0, 3)


def test_a_slice_within_a_part_and_a_single_part_are_no_copies():
    parts = [np.zeros((3, 2)), np.ones((4, 2))]
    stacked = Stacked(parts)
    assert np.shares_memory(stacked[4:6], parts[1]) and np.shares_memory(stacked.below(5)[0][1], parts[1])
    assert np.shares_memory(np.asarray(Stacked(parts[:1])), parts[0])

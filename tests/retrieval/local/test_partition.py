"""ChunkedRows against one array of the same rows."""

import numpy as np
import pytest

from mmdf2.retrieval.local.partition import ChunkedRows


@pytest.mark.parametrize('sizes', [(7,), (0,), (0, 0), (3, 4), (3, 0, 4), (1, 5, 2)])
def test_all_reads_are_those_of_one_array(sizes):
    rng = np.random.default_rng(0)
    chunks = [rng.normal(size=(size, 3)).astype(np.float32) for size in sizes]
    whole, chunked = np.concatenate(chunks), ChunkedRows(chunks)
    assert chunked.shape == whole.shape and len(chunked) == len(whole) and chunked.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(chunked), whole)
    for start in range(10):
        for stop in range(10):
            np.testing.assert_array_equal(chunked[start:stop], whole[start:stop])
            np.testing.assert_array_equal(chunked[start:stop:2], whole[start:stop:2])
        pieces = chunked.chunks_from(start)
        assert np.concatenate(
            [np.arange(first, first + len(chunk)) for first, chunk in pieces] or [[]]
        ).tolist() == list(range(start, len(whole)))
        for first, chunk in pieces:
            np.testing.assert_array_equal(chunk, whole[first : first + len(chunk)])
    if len(whole):
        rows = rng.integers(0, len(whole), 20)
        np.testing.assert_array_equal(chunked[rows], whole[rows])
    assert chunked[np.zeros(0, int)].shape == (0, 3)


def test_a_slice_within_a_chunk_and_a_single_chunk_are_no_copies():
    chunks = [np.zeros((3, 2)), np.ones((4, 2))]
    chunked = ChunkedRows(chunks)
    assert np.shares_memory(chunked[4:6], chunks[1]) and np.shares_memory(chunked.chunks_from(5)[0][1], chunks[1])
    assert np.shares_memory(np.asarray(ChunkedRows(chunks[:1])), chunks[0])

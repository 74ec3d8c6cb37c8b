"""Operators of mmdf2: the learned similarity of all pairs and its nearest items. They need torch alone."""

from mmdf2.ops import library

library.load()

from mmdf2.ops.library import read_build_info as build_info  # noqa: E402
from mmdf2.ops.pair_similarity import pair_similarity, pair_topk  # noqa: E402

__all__ = ['build_info', 'pair_similarity', 'pair_topk']

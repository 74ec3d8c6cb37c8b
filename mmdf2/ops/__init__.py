"""Compiled operators: the learned similarity of all pairs of embeddings, and the k most similar items.

They need torch alone. Importing this package loads the compiled library, or raises ImportError with the command that
builds it.
"""

from mmdf2.ops.library import build_info
from mmdf2.ops.pair_similarity import pair_similarity, pair_topk

__all__ = ['build_info', 'pair_similarity', 'pair_topk']

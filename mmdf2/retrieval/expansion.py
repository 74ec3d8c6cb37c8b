"""Query expansion: a query is moved towards its best hits and searched again.

A user photo finds one shop photo of the garment, and the mean of both finds the shop's other photos of it. Nothing is
expanded unless the caller asks for it; docs/match_options.md says what it does to the figures on the drawn wardrobe.
"""

from collections.abc import Iterable

import numpy as np
import torch

from mmdf2.ops import pair_topk
from mmdf2.retrieval.gallery import Gallery
from mmdf2.retrieval.similarity import Similarity


def expanded_queries(queries, found, scores, power: float = 1.0) -> np.ndarray:
    """The weighted mean of each query's embedding and those of its best hits.

    The query has weight 1 and a hit ``p ** power``, where p is the probability of 'same' that the match head gives it:
    the logistic function of its score. A hit that the head takes for another garment hardly moves the query.

    Args:
        queries: (M, D).
        found: (M, k, D) embeddings of the hits; k may be 0.
        scores: (M, k) similarities of the hits; -inf where a query has fewer hits, and the embeddings there may hold
            anything.
        power: 0 or more. With 0 each hit weighs as much as the query; larger powers trust only sure hits.

    Returns:
        (M, D) float32.

    Raises:
        ValueError: The shapes do not fit, or the power is below 0.

    Source: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2018, section 3.4, with
    the learned probability in place of a cosine.
    """
    queries, found, scores = (np.asarray(value, dtype=np.float64) for value in (queries, found, scores))
    fitting = found.shape == (*scores.shape, queries.shape[-1]) and scores.shape[:1] == queries.shape[:1]
    if queries.ndim != 2 or scores.ndim != 2 or not fitting:
        raise ValueError(
            'expansion needs queries (M, D), embeddings of hits (M, k, D) and their scores (M, k), got '
            f'{queries.shape}, {found.shape} and {scores.shape}'
        )
    if not power >= 0:
        raise ValueError(f'power must be 0 or more, got {power}')
    real = scores > -np.inf
    # log p = -log(1 + exp(-score)), which overflows for no score.
    weights = np.where(real, np.exp(-power * np.logaddexp(0, -np.where(real, scores, 0))), 0)
    total = np.einsum('mk,mkd->md', weights, np.where(real[..., None], found, 0))
    return ((queries + total) / (1 + weights.sum(axis=1, keepdims=True))).astype(np.float32)


def expand_queries(similarity: Similarity, queries, vectors, hits: int = 3, power: float = 1.0) -> np.ndarray:
    """Queries expanded by their best hits of an exact search.

    Args:
        similarity: The learned similarity.
        queries: (M, D) float32, finite.
        vectors: (N, D) float32, finite: the gallery.
        hits: How many hits a query is averaged with, 0 for none; all of them where the gallery has fewer.
        power: 0 or more. With 0 each hit weighs as much as the query; larger powers trust only sure hits.

    Returns:
        (M, D) float32, to be searched in place of the queries.

    Raises:
        ValueError: ``hits`` or the power is below 0, or embeddings are of another width or not finite.
    """
    check_hits(hits)
    queries, vectors = (np.ascontiguousarray(value, dtype=np.float32) for value in (queries, vectors))
    count = min(int(hits), len(vectors))
    if not count or not len(queries):
        return expanded_queries(queries, np.zeros((len(queries), 0, queries.shape[-1])), np.zeros((len(queries), 0)))
    weight, bias = torch.from_numpy(similarity.weight), torch.from_numpy(similarity.bias)
    found = pair_topk(torch.from_numpy(queries), torch.from_numpy(vectors), weight, bias, k=count)
    scores, rows = (value.numpy() for value in found)
    return expanded_queries(queries, vectors[rows], scores, power)


def expand_by_gallery(
    gallery: Gallery, queries, hits: int = 3, power: float = 1.0, categories: Iterable[int] | None = None
) -> np.ndarray:
    """Queries expanded by their best hits in a gallery, whose search may be approximate.

    Args:
        gallery: The gallery to search.
        queries: (M, D) float32, finite.
        hits: How many hits a query is averaged with, 0 for none; all of them where the gallery has fewer.
        power: 0 or more. With 0 each hit weighs as much as the query; larger powers trust only sure hits.
        categories: category_ids (1 to 13) to search in; None for all.

    Returns:
        (M, D) float32, to be searched in place of the queries.

    Raises:
        ValueError: ``hits`` or the power is below 0, embeddings are of another width or not finite, or a category does
            not exist.
    """
    check_hits(hits)
    if not hits or not len(queries):
        return np.asarray(queries, dtype=np.float32)
    lines = gallery.search(queries, int(hits), categories)
    vectors = gallery.embeddings({hit.id for line in lines for hit in line})
    found = np.zeros((len(queries), int(hits), np.shape(queries)[1]))
    scores = np.full(found.shape[:2], -np.inf)
    for row, line in enumerate(lines):
        # Another thread may have removed an item between the two reads.
        for place, hit in enumerate(hit for hit in line if hit.id in vectors):
            found[row, place], scores[row, place] = vectors[hit.id], hit.score
    return expanded_queries(queries, found, scores, power)


def check_hits(hits) -> None:
    """ValueError when the number of hits that a query is averaged with is not an integer from 0 on."""
    if isinstance(hits, bool) or not isinstance(hits, int | np.integer) or hits < 0:
        raise ValueError(f'hits must be an integer from 0 on, got {hits!r}')

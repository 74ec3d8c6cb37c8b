"""The ways to search and to train that benchmark_ops.py measures side by side.

A contender for the search takes Inputs, prepares what an application would prepare once, and returns a function without
arguments. That function searches and returns ``(scores (M, k), indices (M, k))``, the scores being logit 0 minus logit
1, or None when it only multiplies matrices.
"""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import torch

from mmdf2.ops import pair_similarity, pair_topk

WIDTH, K, CLASSES = 256, 20, 2
SCORES_AT_A_TIME = {'cpu': 1 << 26, 'cuda': 1 << 30}
"""Scores that the contenders of torch operators hold at a time: 256 MB and 4 GB."""


class Inputs(NamedTuple):
    """Queries (M, D), gallery (N, D), weight (2, D), and the number of neighbours wanted."""

    query: torch.Tensor
    gallery: torch.Tensor
    weight: torch.Tensor
    k: int

    @property
    def difference(self):
        return self.weight[0] - self.weight[1]


class Contender(NamedTuple):
    """A way to search.

    Attributes:
        prepare: Makes the search from Inputs.
        pairs: The most pairs that it scores, if it is slow; its time is scaled to all pairs.
        devices: Where it runs.
        negative: Whether it is defined only for weights of which none is positive.
        needs: A module that it imports, if that can be missing.
    """

    prepare: Callable
    pairs: int | None = None
    devices: tuple[str, ...] = ('cpu', 'cuda')
    negative: bool = False
    needs: str | None = None

    def available(self):
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


def make_inputs(rows, columns, device='cpu', negative=False, width=WIDTH, k=K):
    """Normally distributed embeddings with a common offset, as after a ReLU, and weights of either sign."""
    generator = torch.Generator(device).manual_seed(0)
    query = torch.randn(rows, width, generator=generator, device=device).add_(1)
    gallery = torch.randn(columns, width, generator=generator, device=device).add_(1)
    weight = torch.randn(CLASSES, width, generator=generator, device=device)
    if negative:
        weight = torch.stack([-(weight[0] - weight[1]).abs(), torch.zeros_like(weight[0])])
    return Inputs(query, gallery, weight, min(k, columns))


def in_chunks(query, columns, search):
    """Searches as many query rows at a time as SCORES_AT_A_TIME allows."""
    parts = [search(rows) for rows in query.split(max(1, SCORES_AT_A_TIME[query.device.type] // columns))]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def naive_broadcast(inputs):
    query, gallery, difference = inputs.query, inputs.gallery, inputs.difference

    def search_rows(rows):
        tiles = [(rows[:, None] - tile).square() @ difference for tile in gallery.split(4096)]
        return torch.cat(tiles, 1).topk(inputs.k)

    def search():
        parts = [search_rows(rows) for rows in query.split(8)]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    return search


def addmm_topk(inputs, score_rows=None):
    query, gallery, difference = inputs.query, inputs.gallery, inputs.difference
    score_rows = score_rows or best_by_addmm

    def search():
        centre = (query.sum(0) + gallery.sum(0)) / (len(query) + len(gallery))
        a, b = query - centre, gallery - centre
        form = b.square() @ difference
        best = in_chunks(a * (-2 * difference), len(b), lambda rows: score_rows(form, rows, b, inputs.k))
        return best[0] + (a.square() @ difference)[:, None], best[1]

    return search


def best_by_addmm(form, rows, gallery, k):
    return torch.addmm(form, rows, gallery.T).topk(k)


def compiled_addmm_topk(inputs):
    return addmm_topk(inputs, torch.compile(best_by_addmm, dynamic=False))


def cdist_topk(inputs):
    query, gallery, scale = inputs.query, inputs.gallery, inputs.difference.abs().sqrt()

    def search():
        scaled = gallery * scale
        nearest = in_chunks(
            query * scale, len(gallery), lambda rows: torch.cdist(rows, scaled).topk(inputs.k, largest=False)
        )
        return -nearest[0].square(), nearest[1]

    return search


def faiss_flat(inputs):
    # Optional: it is measured where it is installed.
    import faiss

    query, gallery, difference = inputs.query, inputs.gallery, inputs.difference
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(WIDTH + 1)
    # In pieces, so that the augmented gallery exists only once, in the index.
    for tile in gallery.split(4096):
        index.add(torch.cat([tile, (tile.square() @ difference)[:, None]], 1).numpy())

    def search():
        augmented = torch.cat([query * (-2 * difference), torch.ones(len(query), 1)], 1)
        scores, indices = index.search(augmented.numpy(), inputs.k)
        return torch.from_numpy(scores) + (query.square() @ difference)[:, None], torch.from_numpy(indices)

    return search


def matrix_product(inputs):
    """The matrix product alone, which limits all others; its tiles stay in the cache, which is faster."""
    query, gallery = inputs.query, inputs.gallery
    tile = 1 << 20 if query.device.type == 'cpu' else SCORES_AT_A_TIME['cuda']
    rows = min(len(query), 1024 if query.device.type == 'cpu' else tile // len(gallery))
    columns = min(len(gallery), tile // rows)

    def search():
        out = query.new_empty(rows * columns)
        for a in query.split(rows):
            for b in gallery.split(columns):
                torch.mm(a, b.T, out=out[: len(a) * len(b)].view(len(a), len(b)))

    return search


def ours(inputs):
    return lambda: pair_topk(inputs.query, inputs.gallery, inputs.weight, k=inputs.k)


LIMIT, OURS = 'matrix product alone', 'mmdf2.ops.pair_topk'
SEARCHES = {
    LIMIT: Contender(matrix_product),
    OURS: Contender(ours),
    'naive broadcast': Contender(naive_broadcast, pairs=8_000_000),
    'torch addmm + topk': Contender(addmm_topk),
    'the same, torch.compile': Contender(compiled_addmm_topk, devices=('cuda',)),
    'torch.cdist + topk, negative weights': Contender(cdist_topk, negative=True),
    'faiss IndexFlatIP, augmented': Contender(faiss_flat, devices=('cpu',), needs='faiss'),
}


def broadcast_logits(query, gallery, weight, bias):
    return (query[:, None] - gallery).square() @ weight.T + bias


def expanded_logits(query, gallery, weight, bias):
    """The expanded form by plain torch operators: three matrix products, one of them per class."""
    mixed = torch.einsum('md,cd,nd->mnc', query, weight, gallery)
    return (query.square() @ weight.T)[:, None] + gallery.square() @ weight.T - 2 * mixed + bias


TRAINING = {
    'naive broadcast': broadcast_logits,
    'torch, expanded form': expanded_logits,
    'mmdf2.ops.pair_similarity': pair_similarity,
}

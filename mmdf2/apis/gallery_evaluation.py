"""Consumer-to-shop retrieval by the official protocol, measured on a gallery and the user images of a split."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdf2.apis.inferencer import ClothesInferencer
from mmdf2.apis.search import ExtractedItems, extracted_items
from mmdf2.categories import Source
from mmdf2.datasets.store import Store
from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.retrieval import (
    MAX_HITS,
    RetrievalItems,
    RetrievedLists,
    evaluate_lists,
    right_identities,
    select_queries,
    summarize,
)
from mmdf2.evaluation.truth import retrieval_items
from mmdf2.evaluation.verification import verification_figures
from mmdf2.retrieval.calibration import Calibration, calibration_error, fit_calibration
from mmdf2.retrieval.gallery import Gallery, Hit

_CALIBRATION_HITS = 100  # so that 20 others are left without those of the query's garment
_FALSE_ACCEPTS = 0.05


def split_images(store: Store, image_folder, source: int) -> dict[str, int]:
    """Lists the images of a split that come from a source.

    Args:
        store: The store of the split.
        image_folder: The folder with the split's images.
        source: ``Source.USER`` or ``Source.SHOP``.

    Returns:
        Path -> image_id.
    """
    rows = np.flatnonzero(store.sources == source)
    return {str(Path(image_folder) / store.image(row).file_name): int(store.image_ids[row]) for row in rows.tolist()}


def evaluate_gallery(
    gallery: Gallery, inferencer: ClothesInferencer, store: Store, image_folder, progress: Callable | None = None
) -> dict[str, float]:
    """Searches the gallery for the garments, detected on the split's user images, that represent a query item.

    User images that cannot be used are named on standard error and left out of the figures.

    The figures equal those of ``RetrievalMetric`` for detected boxes if the gallery was built from all shop images of
    the split with score threshold 0.

    Args:
        gallery: The gallery; its images are identified by their file names, without folders.
        inferencer: The model that the gallery was built with.
        store: The store of the split.
        image_folder: The folder with the split's images.
        progress: A function without arguments, called after each image.

    Returns:
        The figures of ``evaluation.retrieval.summarize``.

    Raises:
        EvaluationError: The gallery holds an image that is not a shop image of the split, or no user image can be used.
    """
    lists, items, _ = _searched(gallery, inferencer, store, image_folder, MAX_HITS, progress)
    return summarize(evaluate_lists(lists, items, retrieval_items(store, Source.SHOP)))


def calibrate_gallery(
    gallery: Gallery, inferencer: ClothesInferencer, store: Store, image_folder, progress: Callable | None = None
) -> tuple[Calibration, dict[str, float]]:
    """Measures what the scores of a gallery's hits mean, with the garments on a split's user images.

    Each garment is a query twice: with its shop photos in the gallery, and without them.

    Args:
        gallery: The gallery of the split's shop images; its images are identified by their file names, without folders.
        inferencer: The model that the gallery was built with.
        store: The store of the split.
        image_folder: The folder with the split's images.
        progress: A function without arguments, called after each image.

    Returns:
        The calibration, and how good one is that was fitted with half of the identities, measured with the other half:
        'queries'; 'auc', how well the best hit's score tells whether the garment is there; 'calibration_error' of all
        hits and 'calibration_error_top1' of the best ones; 'found', the share of the queries with their garment whose
        best hit is right, and 'kept', the share of these that remain at 5 percent false accepts; 'false_accepts', the
        share of the queries without their garment that are accepted then.

    Raises:
        EvaluationError: The gallery holds an image that is not a shop image of the split, or no user image can be used.
        ValueError: The garments do not suffice, or the model has not learned to match.
    """
    lists, items, scores = _searched(gallery, inferencer, store, image_folder, _CALIBRATION_HITS, progress)
    judged = _judged_queries(lists, scores, items, retrieval_items(store, Source.SHOP))
    half = set(np.unique([query.identity for query in judged])[::2].tolist())
    halves = [[query for query in judged if (query.identity in half) == first] for first in (True, False)]
    measured = [_measure(fit_calibration(*_pooled(own)), other) for own, other in (halves, halves[::-1])]
    figures = {name: float(np.mean([half[name] for half in measured])) for name in measured[0]}
    return fit_calibration(*_pooled(judged)), {'queries': len(judged), **figures}


@dataclass(frozen=True, eq=False)
class _JudgedQuery:
    """A query's identity, its hits' scores, and whether each is the same garment."""

    identity: int
    scores: np.ndarray
    same: np.ndarray

    @property
    def with_garment(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores and truth of the hits that a user sees."""
        return self.scores[:MAX_HITS], self.same[:MAX_HITS]

    @property
    def without_garment(self) -> np.ndarray:
        """Scores of the hits that a user sees when the garment is not in the gallery."""
        return self.scores[~self.same][:MAX_HITS]


def _judged_queries(
    lists: RetrievedLists, scores: np.ndarray, items: RetrievalItems, shop: RetrievalItems
) -> list[_JudgedQuery]:
    """The queries that a detection represents, with their hits and whether these are right."""
    queries, chosen = select_queries(items, lists.image_ids, lists.boxes, lists.labels, lists.scores)
    identity_of = np.full(len(lists.image_ids), -1)
    identity_of[chosen[chosen >= 0]] = items.identities[queries[chosen >= 0]]
    hit, identity = right_identities(shop, lists.hit_images, lists.hit_boxes)
    owner = np.repeat(np.arange(len(lists.hit_counts)), lists.hit_counts)
    same = np.zeros(len(owner), bool)
    same[hit[identity == identity_of[owner[hit]]]] = True
    judged = []
    for row, end in enumerate(np.cumsum(lists.hit_counts).tolist()):
        own = slice(end - int(lists.hit_counts[row]), end)
        # Without a hit of another garment there is no answer to a query whose garment is not there.
        if identity_of[row] >= 0 and not same[own].all():
            judged.append(_JudgedQuery(int(identity_of[row]), scores[own], same[own]))
    return judged


def _pooled(queries: list[_JudgedQuery]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and truth of all hits, with the garments and without them, and the best scores without them."""
    scores, same = [np.zeros(0)], [np.zeros(0, bool)]
    for query in queries:
        shown, right = query.with_garment
        scores += [shown, query.without_garment]
        same += [right, np.zeros(len(query.without_garment), bool)]
    best = np.array([query.without_garment[0] for query in queries])
    return np.concatenate(scores), np.concatenate(same), best


def _measure(calibration: Calibration, queries: list[_JudgedQuery]) -> dict[str, float]:
    scores, same, best_without = _pooled(queries)
    best = np.array([query.with_garment[0][0] for query in queries])
    right = np.array([query.with_garment[1][0] for query in queries])
    least = calibration.threshold(_FALSE_ACCEPTS)
    top1, top1_same = np.concatenate([best, best_without]), np.concatenate([right, np.zeros(len(queries), bool)])
    return {
        'auc': verification_figures(top1, np.arange(len(top1)) < len(queries))['auc'],
        'calibration_error': calibration_error(calibration.probability(scores), same),
        'calibration_error_top1': calibration_error(calibration.probability(top1), top1_same),
        'found': float(right.mean()),
        'kept': float((best[right] >= least).mean()) if right.any() else 0.0,
        'false_accepts': float((best_without >= least).mean()),
    }


def _searched(
    gallery: Gallery, inferencer: ClothesInferencer, store: Store, image_folder, k: int, progress: Callable | None
) -> tuple[RetrievedLists, RetrievalItems, np.ndarray]:
    """Searches for the garments on the user images that represent a query item.

    Returns:
        The lists of k hits, the query items of the images that could be used, and the scores of all hits.
    """
    shops = split_images(store, image_folder, Source.SHOP)
    # Where an image is a link, the gallery knows it by the name of the file that the link leads to.
    shop_ids = {Path(os.path.realpath(path)).name: image_id for path, image_id in shops.items()}
    shop_ids.update((Path(path).name, image_id) for path, image_id in shops.items())
    users = split_images(store, image_folder, Source.USER)
    items = retrieval_items(store, Source.USER)
    rows, hits, failed = [], [], {}
    for (path, image_id), result in zip(users.items(), inferencer.predict(list(users)), strict=True):
        if progress is not None:
            progress()
        if result.error is not None:
            failed[image_id] = result.error
            continue
        garments = extracted_items(result.data_sample.pred_instances, path, 0.0)
        chosen = _representing(items, image_id, garments)
        rows += [
            (image_id, garments.items[row].box, garments.items[row].category_id - 1, garments.scores[row])
            for row in chosen.tolist()
        ]
        hits += gallery.search(garments.embeddings[chosen], k) if len(chosen) else []
    if failed:
        items = _without(items, store, failed, len(users))
    image_ids, boxes, labels, scores = zip(*rows, strict=True) if rows else ((), (), (), ())
    lists = RetrievedLists(
        image_ids=np.array(image_ids, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        scores=np.array(scores, dtype=np.float64),
        hit_counts=np.array([len(line) for line in hits], dtype=np.int64),
        hit_images=np.array([_image_id(hit, shop_ids, store) for line in hits for hit in line], dtype=np.int64),
        hit_boxes=np.array([hit.item.box for line in hits for hit in line], dtype=np.float64).reshape(-1, 4),
    )
    return lists, items, np.array([hit.score for line in hits for hit in line], dtype=np.float64)


def _without(items: RetrievalItems, store: Store, failed: dict[int, str], count: int) -> RetrievalItems:
    """The query items of the user images that did not fail; names the others."""
    reasons = '\n  '.join([f'{len(failed)} of {count} user images are left out of the figures:', *failed.values()])
    if len(failed) == count:
        raise EvaluationError(f'no user image can be used: {reasons}')
    print(reasons, file=sys.stderr)
    used = store.image_ids[(store.sources == Source.USER) & ~np.isin(store.image_ids, list(failed))]
    return retrieval_items(store, Source.USER, used)


def _representing(items: RetrievalItems, image_id: int, garments: ExtractedItems) -> np.ndarray:
    """Rows of those garments of a user image that represent a query item: the figures depend on no others."""
    boxes = np.array([item.box for item in garments.items], dtype=np.float64).reshape(-1, 4)
    labels = np.array([item.category_id - 1 for item in garments.items], dtype=np.int64)
    image_ids = np.full(len(boxes), image_id)
    _, chosen = select_queries(items.of_image(image_id), image_ids, boxes, labels, garments.scores)
    return chosen[chosen >= 0]


def _image_id(hit: Hit, shop_ids: dict[str, int], store: Store) -> int:
    name = Path(hit.item.image).name
    if name not in shop_ids:
        raise EvaluationError(
            f"the gallery's item {hit.id} is of {hit.item.image}, which is not a shop image of {store!r}; build the "
            'gallery from the shop images of this split'
        )
    return shop_ids[name]

"""Consumer-to-shop retrieval by the official protocol, measured on a gallery and the user images of a split."""

import sys
from collections.abc import Callable
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
    select_queries,
    summarize,
)
from mmdf2.evaluation.truth import retrieval_items
from mmdf2.retrieval.gallery import Gallery, Hit


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
    shop_ids = {Path(path).name: image_id for path, image_id in split_images(store, image_folder, Source.SHOP).items()}
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
        hits += gallery.search(garments.embeddings[chosen], MAX_HITS) if len(chosen) else []
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
    return summarize(evaluate_lists(lists, items, retrieval_items(store, Source.SHOP)))


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

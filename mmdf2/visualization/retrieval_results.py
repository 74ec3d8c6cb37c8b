"""Rows of pictures from the official retrieval result file and the store that it was made on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmdf2.categories import Source
from mmdf2.datasets.store import Store
from mmdf2.evaluation.retrieval import RetrievalItems, right_identities, select_queries
from mmdf2.evaluation.truth import retrieval_items
from mmdf2.visualization.retrieval_rows import RetrievalRow


def rows_of_results(
    results: Sequence[dict], store: Store, image_folder, count: int = 8, hits: int = 5
) -> list[RetrievalRow]:
    """Queries spread evenly over all query items, each with its first hits, judged by the official protocol.

    Args:
        results: Entries of a result file, see ``mmdf2.evaluation.files.retrieval.retrieval_result``.
        store: The split's store.
        image_folder: The split's images.
        count: Rows at most.
        hits: Hits a row at most.

    Returns:
        Rows for ``draw_retrieval_rows``; a query item that no detection represents has no hits.
    """
    items, gallery = retrieval_items(store, Source.USER), retrieval_items(store, Source.SHOP)
    queries, chosen = select_queries(
        items,
        np.array([entry['query_image_id'] for entry in results], dtype=np.int64),
        np.array([entry['query_bbox'] for entry in results], dtype=np.float64).reshape(-1, 4),
        np.array([entry['query_cls'] for entry in results], dtype=np.int64) - 1,
        np.array([entry['query_score'] for entry in results], dtype=np.float64),
    )
    names = {int(image_id): index for index, image_id in enumerate(store.image_ids)}

    def path(image_id: int) -> Path:
        return Path(image_folder) / store.image(names[int(image_id)]).file_name

    shown = np.unique(np.linspace(0, len(queries) - 1, min(count, len(queries))).round().astype(int))
    rows = []
    for query, detection in zip(queries[shown], chosen[shown], strict=True):
        entry = results[detection] if detection >= 0 else {'gallery_image_id': [], 'gallery_bbox': []}
        images, boxes = entry['gallery_image_id'][:hits], entry['gallery_bbox'][:hits]
        rows.append(
            RetrievalRow(
                image=path(items.image_ids[query]),
                box=entry.get('query_bbox', items.boxes[query]),
                hit_images=[path(image_id) for image_id in images],
                hit_boxes=boxes,
                correct=_right(gallery, images, boxes, items.identities[query]),
            )
        )
    return rows


def _right(gallery: RetrievalItems, image_ids, boxes, identity: int) -> np.ndarray:
    hit, identities = right_identities(gallery, np.array(image_ids, dtype=np.int64), np.reshape(boxes, (-1, 4)))
    return np.isin(np.arange(len(image_ids)), hit[identities == identity])

"""COCO's greedy matching of detections to ground truth, over all images, thresholds and columns at once.

Source: pycocotools' ``evaluateImg``. A detection takes, in order of falling score, the most similar item that is free;
an item that is not ignored goes before any that is; of equally similar ones the last.
"""

import numpy as np

from mmdf2.evaluation.candidates import Candidates

# COCO's ten thresholds, of IoU or OKS.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# COCO lets a similarity of 1 that rounding has spoilt still pass a threshold of 1.
_THRESHOLD_CEILING = 1 - 1e-10


def match(candidates: Candidates, similarity, ignored, thresholds=IOU_THRESHOLDS, crowds=None) -> np.ndarray:
    """Matches the detections of one category.

    Args:
        candidates: The pairs, d detections and m items.
        similarity: (p,) of each pair.
        ignored: (c, m) bool: items, in the order of ``candidates.truths``, that do not count in each of c columns.
        thresholds: (t,) least similarity of a match.
        crowds: (m,) bool, items that any number of detections may match; None for none.

    Returns:
        (c, t, d) int32: position in ``candidates.truths`` of each detection's match, -1 for none.
    """
    thresholds = np.minimum(thresholds, _THRESHOLD_CEILING)
    shape = (len(ignored), len(thresholds))
    matches = np.full((*shape, len(candidates.detections)), -1, dtype=np.int32)
    taken = np.zeros((*shape, len(candidates.truths)), dtype=bool)
    for rows, count in _steps(candidates):
        pairs = candidates.first_pairs[rows][:, None] + np.arange(count)
        values = similarity[pairs]
        near = values.max(axis=1) >= thresholds.min()
        rows, values = rows[near], values[near]
        truths = candidates.first_truths[rows][:, None] + np.arange(count)
        free = ~taken[:, :, truths] & (values >= thresholds[:, None, None])
        unwanted = ignored[:, None, truths]
        chosen = _most_similar(free & ~unwanted, values)
        chosen = np.where(chosen < 0, _most_similar(free & unwanted, values), chosen)
        found = np.where(chosen < 0, -1, truths[np.arange(len(rows)), chosen])
        matches[:, :, rows] = found
        column, threshold, row = np.nonzero(chosen >= 0)
        taken[column, threshold, found[column, threshold, row]] = True
        if crowds is not None:
            taken[..., crowds] = False
    return matches


def _steps(candidates: Candidates):
    """Rows of detections that can be matched together: at most one an image, images of as many items, best first."""
    order = np.lexsort((candidates.ranks, candidates.num_truths))
    order = order[candidates.num_truths[order] > 0]
    counts, ranks = candidates.num_truths[order], candidates.ranks[order]
    borders = np.flatnonzero((np.diff(counts) != 0) | (np.diff(ranks) != 0)) + 1
    for rows in np.split(order, borders):
        if len(rows):
            yield rows, int(candidates.num_truths[rows[0]])


def _most_similar(eligible, values) -> np.ndarray:
    """(c, t, n) index of the most similar eligible item, the last of equals, -1 for none."""
    reversed_values = np.where(eligible, values, -1.0)[..., ::-1]
    place = reversed_values.argmax(axis=-1)
    return np.where(eligible.any(axis=-1), values.shape[1] - 1 - place, -1)

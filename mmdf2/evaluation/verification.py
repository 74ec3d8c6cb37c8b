"""Verification: do two boxes show the same garment? Figures of a score over positive and negative pairs.

Source: the paper names the task and gives no protocol; these figures are the usual ones of face and person
verification.
"""

import numpy as np
from numpy.typing import ArrayLike

from mmdf2.evaluation.records import EvaluationError

# Shares of negative pairs that may pass as the same.
FALSE_ACCEPT_RATES = (0.1, 0.01, 0.001)


def verification_figures(scores: ArrayLike, same: ArrayLike) -> dict[str, float]:
    """Computes the figures of verification from the scores of pairs.

    Args:
        scores: (p,) finite scores, higher for pairs that look the same.
        same: (p,) bool, whether the pair shows the same garment (a positive pair).

    Returns:
        The figures, from 0 to 1 except for the threshold and the counts:

        - ``auc``: the area under the ROC curve, which is the chance that a positive pair scores above a negative one
          (equal scores count half).
        - ``average_precision``: the mean of the precision at each positive pair; pairs of equal score count together.
        - ``accuracy``: the largest share of pairs on the right side of a threshold; pairs with ``score >= threshold``
          are taken to be the same garment.
        - ``threshold``: the largest threshold that reaches this accuracy; infinite when no pair should pass.
        - ``accuracy_at_far_0.1``, ``recall_at_far_0.1`` and so on for each of ``FALSE_ACCEPT_RATES``: the accuracy, and
          the share of positive pairs that pass, at the lowest threshold that at most this share of the negative pairs
          reaches.
        - ``positives`` and ``negatives``: the number of pairs of each kind.

        A figure is NaN when it needs a kind of pair that is missing.

    Raises:
        EvaluationError: A score is not finite, or scores and same differ in length.
    """
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise EvaluationError(f'scores and same must be of one length, got shapes {scores.shape} and {same.shape}')
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise EvaluationError(f'the score of pair {row} is {scores[row]}; scores must be finite')
    thresholds, accepted, false = _curve(scores, same)
    positives, negatives = int(same.sum()), int((~same).sum())
    figures = {'auc': np.nan, 'average_precision': np.nan, 'accuracy': np.nan, 'threshold': np.nan}
    right = accepted + negatives - false
    if positives and negatives:
        # The sum of trapezoids is kept in whole numbers; it is twice the area.
        area = (np.diff(false) * (accepted[1:] + accepted[:-1])).sum()
        figures['auc'] = float(area / (2 * positives * negatives))
    if positives:
        precision = accepted[1:] / (accepted[1:] + false[1:])
        figures['average_precision'] = float((np.diff(accepted) * precision).sum() / positives)
    if len(scores):
        best = int(right.argmax())
        figures.update(accuracy=float(right[best] / len(scores)), threshold=float(thresholds[best]))
    for rate in FALSE_ACCEPT_RATES:
        place = int(np.flatnonzero(false <= rate * negatives)[-1])
        figures[f'accuracy_at_far_{rate:g}'] = float(right[place] / len(scores)) if negatives else np.nan
        figures[f'recall_at_far_{rate:g}'] = float(accepted[place] / positives) if positives and negatives else np.nan
    return {**figures, 'positives': float(positives), 'negatives': float(negatives)}


def draw_pairs(
    query_identities: np.ndarray, gallery_identities: np.ndarray, negatives: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collects all positive pairs of queries and gallery items, and draws some negative ones.

    Args:
        query_identities: (m,) int, -1 for an item that is not a query.
        gallery_identities: (n,) int, -1 for an item without a known identity, which is in no pair.
        negatives: The number of gallery items of other identities per query, or as many as there are; they are drawn
            without repetition.
        seed: Seed of the drawing.

    Returns:
        (p,) rows of the queries, rising; (p,) rows of the gallery; (p,) bool, whether the pair is positive.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(gallery_identities >= 0)
    queries: list[np.ndarray] = []
    entries: list[np.ndarray] = []
    same: list[np.ndarray] = []
    for query in np.flatnonzero(query_identities >= 0).tolist():
        alike = gallery_identities[known] == query_identities[query]
        positive, others = known[alike], known[~alike]
        drawn = rng.choice(others, min(negatives, len(others)), replace=False) if len(others) else others
        entries += [positive, drawn]
        same += [np.ones(len(positive), dtype=bool), np.zeros(len(drawn), dtype=bool)]
        queries.append(np.full(len(positive) + len(drawn), query))
    return (
        np.concatenate([*queries, np.zeros(0, np.int64)]),
        np.concatenate([*entries, np.zeros(0, np.int64)]),
        np.concatenate([*same, np.zeros(0, bool)]),
    )


def _curve(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from infinity down, each score once; the numbers of positive and of negative pairs that pass each."""
    order = np.argsort(-scores, kind='stable')
    scores, same = scores[order], same[order]
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(scores) else np.zeros(0, np.int64)
    accepted, false = np.cumsum(same)[last], np.cumsum(~same)[last]
    return np.append(np.inf, scores[last]), np.append(0, accepted), np.append(0, false)

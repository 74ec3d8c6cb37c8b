"""Verification: do two boxes show the same garment? Figures of a score over positive and negative pairs.

Source: the paper names the task and gives no protocol; these are the usual ones of face and person verification.
"""

import numpy as np

from mmdf2.evaluation.records import EvaluationError

# Shares of negative pairs that may pass as the same.
FALSE_ACCEPT_RATES = (0.1, 0.01, 0.001)


def verification_figures(scores, same) -> dict[str, float]:
    """Figures of pairs, all from 0 to 1 but for the threshold and the counts.

    Args:
        scores: (p,) finite, higher for pairs that look the same.
        same: (p,) bool.

    Returns:
        ``auc``: the area under the ROC curve, the chance that a positive pair scores above a negative one (ties half).
        ``average_precision``: precision at each positive pair, pairs of equal score taken together.
        ``accuracy``: the largest share of pairs on the right side of a threshold, ``score >= threshold`` being 'same';
        ``threshold``: the largest such threshold, infinite when nothing should pass.
        ``accuracy_at_far_0.01`` ... and ``recall_at_far_0.01`` ...: accuracy, and the share of positive pairs that
        pass, at the lowest threshold that no more than that share of the negative pairs reaches.
        ``positives`` and ``negatives``: the counts. Whatever needs a kind of pair that is missing is NaN.

    Raises:
        EvaluationError: Scores that are not finite, or not one for each pair.
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
        # Trapezoids, as whole numbers: twice the area.
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


def draw_pairs(query_identities, gallery_identities, negatives: int, seed: int):
    """All positive pairs of queries and gallery items, and some negative ones.

    Args:
        query_identities: (m,) int, -1 for an item that is no query.
        gallery_identities: (n,) int, -1 for items of no known identity, which are in no pair.
        negatives: Gallery items of other identities for each query, fewer where there are fewer; drawn without
            repetition.
        seed: Of the drawing.

    Returns:
        (p,) rows of the queries, rising; (p,) rows of the gallery; (p,) bool, positive.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(gallery_identities >= 0)
    queries, entries, same = [], [], []
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


def _curve(scores, same) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from infinity down, each score once; positive and negative pairs that pass each."""
    order = np.argsort(-scores, kind='stable')
    scores, same = scores[order], same[order]
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(scores) else np.zeros(0, np.int64)
    accepted, false = np.cumsum(same)[last], np.cumsum(~same)[last]
    return np.append(np.inf, scores[last]), np.append(0, accepted), np.append(0, false)

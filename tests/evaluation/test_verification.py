"""Verification against brute force over all pairs and all thresholds."""

import numpy as np
import pytest

from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.verification import FALSE_ACCEPT_RATES, draw_pairs, verification_figures


def by_brute_force(scores, same):
    positive, negative = scores[same], scores[~same]
    wins = (positive[:, None] > negative).sum() + (positive[:, None] == negative).sum() / 2
    thresholds = [np.inf, *np.unique(scores)[::-1]]
    accuracies = [np.mean((scores >= threshold) == same) for threshold in thresholds]
    precisions = [same[scores >= score].mean() for score in positive]
    figures = {
        'auc': wins / len(positive) / len(negative),
        'average_precision': np.mean(precisions),
        'accuracy': max(accuracies),
        'threshold': thresholds[int(np.argmax(accuracies))],
        'positives': len(positive),
        'negatives': len(negative),
    }
    for rate in FALSE_ACCEPT_RATES:
        threshold = min(t for t in thresholds if np.mean(negative >= t) <= rate)
        figures[f'accuracy_at_far_{rate:g}'] = np.mean((scores >= threshold) == same)
        figures[f'recall_at_far_{rate:g}'] = np.mean(positive >= threshold)
    return figures


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('decimals', [0, 1, 6])
def test_against_brute_force(seed, decimals):
    rng = np.random.default_rng(seed)
    same = rng.random(300) < rng.choice([0.1, 0.5])
    scores = np.round(rng.normal(same * 1.5), decimals)
    figures = verification_figures(scores, same)
    assert figures == pytest.approx(by_brute_force(scores, same), abs=1e-12)
    assert 0.5 < figures['auc'] < 1 and 0 < figures['recall_at_far_0.1'] < 1


def test_perfect_useless_and_reversed_scores():
    same = np.array([True, True, False, False])
    perfect = verification_figures([4, 3, 2, 1], same)
    assert (perfect['auc'], perfect['average_precision'], perfect['accuracy'], perfect['threshold']) == (1, 1, 1, 3)
    assert verification_figures([1, 1, 1, 1], same)['auc'] == 0.5
    assert verification_figures([1, 2, 3, 4], same)['auc'] == 0
    nothing_should_pass = verification_figures([1, 2, 3], [False, False, False])
    assert (nothing_should_pass['accuracy'], nothing_should_pass['threshold']) == (1, np.inf)


def test_a_kind_of_pair_that_is_missing_leaves_figures_undefined():
    figures = verification_figures([1.0, 2.0], [True, True])
    assert np.isnan(figures['auc']) and np.isnan(figures['recall_at_far_0.1'])
    assert figures['average_precision'] == 1 and figures['negatives'] == 0
    empty = verification_figures([], [])
    assert all(np.isnan(value) for name, value in empty.items() if name not in ('positives', 'negatives'))


def test_refuses_scores_that_are_not_finite_or_of_another_length():
    with pytest.raises(EvaluationError, match='score of pair 1 is nan'):
        verification_figures([0.0, np.nan], [True, False])
    with pytest.raises(EvaluationError, match=r'shapes \(2,\) and \(3,\)'):
        verification_figures([0.0, 1.0], [True, False, True])


def test_pairs_are_all_positive_ones_and_as_many_negative_ones_as_asked():
    queries, gallery = np.array([3, -1, 5, 9]), np.array([5, 3, -1, 3, 7, 8, 5])
    query, entry, same = draw_pairs(queries, gallery, 3, seed=1)
    assert sorted(zip(query[same].tolist(), entry[same].tolist(), strict=True)) == [(0, 1), (0, 3), (2, 0), (2, 6)]
    assert np.bincount(query[~same], minlength=4).tolist() == [3, 0, 3, 3]
    assert not (queries[query] == gallery[entry])[~same].any() and (gallery[entry] >= 0).all()
    assert len(set(zip(query.tolist(), entry.tolist(), strict=True))) == len(query)
    again = draw_pairs(queries, gallery, 3, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip((query, entry, same), again, strict=True))
    assert len(draw_pairs(queries, gallery, 100, seed=1)[0]) == 4 + 4 + 4 + 6

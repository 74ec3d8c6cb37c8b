"""How sure a hit is: the probability that it is the query's garment, and the score below which nothing is like it.

Similarities of one model have no unit, so their meaning is measured: queries of known garments are searched in a
gallery, once with their garment in it and once without. The logit of the probability that a hit is the query's garment
is a line of its score (J. Platt, Probabilistic outputs for support vector machines, 1999), fitted to the hits of both
searches, so that the garment is there for half of the queries. What the best hits score where the garment is not there
gives the threshold for a wanted share of false accepts.
"""

import math
from dataclasses import dataclass

import numpy as np

QUANTILES = 201  # of the best hits' scores without the garment that are kept
_STEPS, _SMALLEST_STEP = 100, 1e-10


@dataclass(frozen=True)
class Calibration:
    """What the scores of a gallery's hits mean.

    Attributes:
        slope: Growth of the logit of the probability with the score, above 0.
        intercept: The logit at a score of 0.
        false_scores: Rising scores: quantiles, from 0 to 1 in equal steps, of the best hits of queries whose garment is
            not in the gallery.
        queries: Number of queries that it was measured with.

    Raises:
        ValueError: A number is not finite, or the slope is not above 0, or the quantiles do not rise.
    """

    slope: float
    intercept: float
    false_scores: tuple[float, ...]
    queries: int

    def __post_init__(self):
        numbers = (self.slope, self.intercept, *self.false_scores)
        if not all(type(number) is float and math.isfinite(number) for number in numbers) or self.slope <= 0:
            raise ValueError(f'a calibration needs finite numbers and a slope above 0, got {self.slope!r}')
        if len(self.false_scores) < 2 or (np.diff(self.false_scores) < 0).any():
            raise ValueError('the scores of a calibration must be at least two, and rise')
        if type(self.queries) is not int or self.queries < 1:
            raise ValueError(f'a calibration needs a number of queries, got {self.queries!r}')

    @classmethod
    def from_json(cls, value) -> 'Calibration':
        """The calibration that ``to_json`` described; ValueError when it is none."""
        if not isinstance(value, dict) or set(value) != set(cls.__dataclass_fields__):
            raise ValueError(f'{str(value)[:80]} is no calibration')
        scores = value['false_scores']
        return cls(**{**value, 'false_scores': tuple(scores) if isinstance(scores, list) else ()})

    def to_json(self) -> dict:
        """The numbers as a JSON object."""
        return {**vars(self), 'false_scores': list(self.false_scores)}

    def probability(self, scores) -> np.ndarray:
        """The probability that hits of these scores are the query's garment, if it is there for half of the queries."""
        return logistic(self.slope * np.asarray(scores, dtype=np.float64) + self.intercept)

    def threshold(self, false_accepts: float) -> float:
        """The score that a share of the queries without a garment in the gallery reach with their best hit.

        Args:
            false_accepts: The wanted share, 0 to 1.

        Raises:
            ValueError: The share is not from 0 to 1.
        """
        if not 0 <= false_accepts <= 1:
            raise ValueError(f'the share of false accepts must be from 0 to 1, got {false_accepts!r}')
        steps = np.linspace(0, 1, len(self.false_scores))
        return float(np.interp(1 - false_accepts, steps, self.false_scores))


def fit_calibration(scores, same, best_false_scores) -> Calibration:
    """Fits a calibration.

    Args:
        scores: (n,) scores of hits.
        same: (n,) bool, whether each is its query's garment.
        best_false_scores: (q,) score of the best hit of each query where its garment is not in the gallery.

    Raises:
        ValueError: There is no query, or no hit that is the same garment, or none that is another one, or the scores of
            the same garment are not the higher ones.
    """
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    if not len(best_false_scores) or same.all() or not same.any():
        raise ValueError(
            f'a calibration needs hits of the same garment and of others, got {same.sum()} and {(~same).sum()} of '
            f'{len(best_false_scores)} queries'
        )
    slope, intercept = _fit_line(scores, same)
    if slope <= 0:
        raise ValueError('the same garments do not have the higher scores: the model has not learned to match')
    quantiles = np.quantile(best_false_scores, np.linspace(0, 1, QUANTILES))
    return Calibration(
        slope=slope, intercept=intercept, false_scores=tuple(quantiles.tolist()), queries=len(best_false_scores)
    )


def _fit_line(scores: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the most likely line, by Newton's method on centred scores."""
    centre, spread = scores.mean(), max(scores.std(), 1e-12)
    columns = np.stack([(scores - centre) / spread, np.ones(len(scores))])
    # Platt's targets, which keep the line finite where the scores separate the two kinds.
    positive, negative = same.sum(), (~same).sum()
    targets = np.where(same, (positive + 1) / (positive + 2), 1 / (negative + 2))
    line = np.array([0.0, math.log((positive + 1) / (negative + 1))])
    for _ in range(_STEPS):
        found = logistic(line @ columns)
        gradient = columns @ (found - targets)
        curvature = (columns * (found * (1 - found))) @ columns.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        # A long step from a flat place can overshoot.
        line = line - step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    return float(line[0] / spread), float(line[1] - line[0] * centre / spread)


def logistic(values) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(values, dtype=np.float64)))


def calibration_error(probabilities, same, bins: int = 15) -> float:
    """Mean difference of the probability and the share of the same garments, over bins of equal numbers of hits.

    Args:
        probabilities: (n,) probabilities, n >= 1.
        same: (n,) bool.
        bins: Number of bins.
    """
    order = np.argsort(np.asarray(probabilities, dtype=np.float64), kind='stable')
    parts = zip(
        np.array_split(np.asarray(probabilities, dtype=np.float64)[order], bins),
        np.array_split(np.asarray(same, dtype=np.float64)[order], bins),
        strict=True,
    )
    return float(sum(abs(part.sum() - right.sum()) for part, right in parts) / len(order))

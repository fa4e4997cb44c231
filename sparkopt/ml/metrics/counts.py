"""Rates that are ratios of counted weights, by class and by score."""

from __future__ import annotations

import numpy as np

from sparkopt.errors import DataError
from sparkopt.ml.metrics.tallies import ClassTally
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["ClassCounts", "ScoreCounts", "area_under"]


@dataclass(frozen=True)
class ClassCounts:
    """Weights of right and wrong answers by class.

    Attributes
    ----------
    labels : ndarray of shape (k,)
        Classes that occur as labels, ascending.
    hits, actual, predicted : ndarray of shape (k,)
        Weight of the rows of each class that are predicted right, that belong to it, and that are predicted so.
    """

    labels: Floats
    hits: Floats
    actual: Floats
    predicted: Floats

    @classmethod
    def of(cls, tally: ClassTally) -> ClassCounts:
        """Take them from a tally.

        Raises
        ------
        DataError
            Where there are no rows.
        """
        weights: dict[float, Floats] = {}
        for (label, answer), weight in tally.pairs.items():
            for place, own in ((label, (weight * (label == answer), weight, 0.0)), (answer, (0.0, 0.0, weight))):
                weights[place] = weights.get(place, np.zeros(3)) + own
        kept = sorted((label, *found) for label, found in weights.items() if found[1] > 0)
        if not kept:
            raise DataError("there are no rows to evaluate: the DataFrame is empty, or every weight is 0.")
        return cls(*np.array(kept, dtype=np.float64).T)

    @property
    def total(self) -> float:
        """Weight of all rows."""
        return float(self.actual.sum())

    @property
    def accuracy(self) -> float:
        """Share of the rows that are predicted right."""
        return float(self.hits.sum()) / self.total

    @property
    def precision(self) -> Floats:
        """Share of the rows predicted as a class that belong to it; 0 for a class that is never predicted."""
        return _ratio(self.hits, self.predicted)

    @property
    def recall(self) -> Floats:
        """Share of a class's rows that are predicted right."""
        return _ratio(self.hits, self.actual)

    @property
    def false_positive_rate(self) -> Floats:
        """Share of the other classes' rows that are predicted as a class."""
        return _ratio(self.predicted - self.hits, self.total - self.actual)

    def f_measure(self, beta: float) -> Floats:
        """Weighted harmonic mean of precision and recall, recall counting ``beta`` times as much."""
        return _f_measure(self.precision, self.recall, beta)

    def weighted(self, by_class: Floats) -> float:
        """Mean over the classes, each by the weight of its rows."""
        return float(by_class @ self.actual) / self.total


@dataclass(frozen=True)
class ScoreCounts:
    """Weights of positive and negative rows at or above each of some thresholds: what ROC curves are drawn from.

    Attributes
    ----------
    thresholds : ndarray of shape (t,)
        Scores, descending; the last is the smallest of all rows.
    positives, negatives : ndarray of shape (t,)
        Weight of the rows of class 1, and of class 0, whose score is at least the threshold.
    """

    thresholds: Floats
    positives: Floats
    negatives: Floats

    @property
    def recall(self) -> Floats:
        """Share of the positive rows at or above each threshold: the true positive rate."""
        return _ratio(self.positives, self.positives[-1])

    @property
    def false_positive_rate(self) -> Floats:
        """Share of the negative rows at or above each threshold."""
        return _ratio(self.negatives, self.negatives[-1])

    @property
    def precision(self) -> Floats:
        """Share of positive rows among those at or above each threshold."""
        return _ratio(self.positives, self.positives + self.negatives)

    def f_measure(self, beta: float) -> Floats:
        """Weighted harmonic mean of precision and recall at each threshold."""
        return _f_measure(self.precision, self.recall, beta)

    @property
    def roc(self) -> Floats:
        """False and true positive rates from (0, 0) to (1, 1), shape (t + 2, 2)."""
        points = np.stack([self.false_positive_rate, self.recall], axis=1)
        return np.concatenate([[[0.0, 0.0]], points, [[1.0, 1.0]]])

    @property
    def pr(self) -> Floats:
        """Recall and precision, shape (t + 1, 2); before them, the first precision at recall 0."""
        points = np.stack([self.recall, self.precision], axis=1)
        return np.concatenate([[[0.0, points[0, 1]]], points])


def area_under(curve: Floats) -> float:
    """Return the area under points (x, y), shape (t, 2), by the trapezoidal rule."""
    x, y = curve.T
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def _ratio(part: Array | float, whole: Array | float) -> Floats:
    """``part / whole``, 0 where the whole is."""
    part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), whole)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def _f_measure(precision: Floats, recall: Floats, beta: float) -> Floats:
    squared = beta * beta
    return _ratio((1 + squared) * precision * recall, squared * precision + recall)

"""What metrics are made of, tallied row by row in any order and in parts: plain NumPy, small, and exact.

A tally takes targets ``y``, row weights and what a model says, all of shape (n,); ``merged`` adds another part's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sparkopt.errors import DataError
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["ClassTally", "LogLossTally", "ResidualTally", "ScoreTally", "Tally", "evenly_by_rank", "merged"]

T = TypeVar("T", bound="Tally")

OF_TWO = (
    "areas under curves are of two classes, 0 and 1. Take MulticlassClassificationEvaluator for more, or number two "
    "classes from 0."
)

BUFFER = 1 << 20
"""Scores that are kept until they are counted."""


class Tally:
    """Sums over rows."""

    @abstractmethod
    def add(self, y: Floats, weight: Floats, found: Array) -> None:
        """Count rows."""

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Count the rows of another part, which come after these."""


def merged(parts: Sequence[T]) -> T:
    """Return the first tally with the others' rows."""
    first, *others = parts
    for other in others:
        first.merge(other)
    return first


@dataclass
class ResidualTally(Tally):
    """Moments of targets, predictions and residuals e = y − prediction; squares are about means.

    Attributes
    ----------
    rows : int
        Number of rows.
    weight, weight_squares : float
        Σ w and Σ w².
    means, spreads : ndarray of shape (2,)
        Means, and Σ w (x − mean)², of targets and of predictions.
    squares, absolutes : float
        Σ w e² and Σ w |e|.
    range : ndarray of shape (2,)
        Smallest and largest √w · e.
    """

    rows: int = 0
    weight: float = 0.0
    weight_squares: float = 0.0
    means: Floats = field(default_factory=lambda: np.zeros(2))
    spreads: Floats = field(default_factory=lambda: np.zeros(2))
    squares: float = 0.0
    absolutes: float = 0.0
    range: Floats = field(default_factory=lambda: np.array([np.inf, -np.inf]))

    def add(self, y: Floats, weight: Floats, found: Array) -> None:
        total = float(weight.sum())
        residual = y - found
        scaled = np.sqrt(weight) * residual
        both = np.stack([y, found])
        means = both @ weight / total if total else np.zeros(2)
        self.merge(
            ResidualTally(
                rows=len(y),
                weight=total,
                weight_squares=float(weight @ weight),
                means=means,
                spreads=np.square(both - means[:, None]) @ weight,
                squares=float(np.square(residual) @ weight),
                absolutes=float(np.abs(residual) @ weight),
                range=np.array([scaled.min(initial=np.inf), scaled.max(initial=-np.inf)]),
            )
        )

    def merge(self, other: Any) -> None:
        weight = self.weight + other.weight
        if other.weight:
            apart = other.means - self.means
            self.spreads = self.spreads + other.spreads + np.square(apart) * (self.weight * other.weight / weight)
            self.means = self.means + apart * (other.weight / weight)
        self.weight = weight
        for name in ("rows", "weight_squares", "squares", "absolutes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.range = np.array([min(self.range[0], other.range[0]), max(self.range[1], other.range[1])])

    @property
    def prediction_spread(self) -> float:
        """Σ w (prediction − mean target)²."""
        apart = self.means[1] - self.means[0]
        return float(self.spreads[1] + self.weight * apart * apart)

    @property
    def label_squares(self) -> float:
        """Σ w y²."""
        return float(self.spreads[0] + self.weight * self.means[0] ** 2)

    @property
    def mse(self) -> float:
        """Mean squared residual."""
        return self.squares / self.weight

    @property
    def rmse(self) -> float:
        """Its square root."""
        return float(np.sqrt(self.mse))

    @property
    def mae(self) -> float:
        """Mean absolute residual."""
        return self.absolutes / self.weight

    def r2(self, *, through_origin: bool = False) -> float:
        """Return pyspark.ml's R²: the squares about the mean are an unbiased variance times Σ w − 1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.float64(self.weight - self.weight_squares / self.weight)
            spread = self.label_squares if through_origin else self.spreads[0] / freedom * (self.weight - 1)
            return float(1.0 - self.squares / spread)


@dataclass
class ClassTally(Tally):
    """Weights of rows by pairs of label and prediction."""

    pairs: dict[tuple[float, float], float] = field(default_factory=dict)

    def add(self, y: Floats, weight: Floats, found: Array) -> None:
        labels, of_label = np.unique(y, return_inverse=True)
        answers, of_answer = np.unique(found, return_inverse=True)
        weights = np.bincount(of_label * len(answers) + of_answer, weight, len(labels) * len(answers))
        rows = np.bincount(of_label * len(answers) + of_answer, minlength=len(weights))
        for code in np.flatnonzero(rows):
            label, answer = divmod(int(code), len(answers))
            self._count((float(labels[label]), float(answers[answer])), float(weights[code]))

    def merge(self, other: Any) -> None:
        for pair, weight in other.pairs.items():
            self._count(pair, weight)

    def _count(self, pair: tuple[float, float], weight: float) -> None:
        self.pairs[pair] = self.pairs.get(pair, 0.0) + weight


@dataclass
class LogLossTally(Tally):
    """Σ w and Σ w · −log p, with p the probability of the row's label, at least ``eps`` and at most 1 − ``eps``.

    What a model says is the probability of each class, shape (n, classes), or that of the row's label, shape (n,).
    """

    eps: float
    weight: float = 0.0
    loss: float = 0.0

    def add(self, y: Floats, weight: Floats, found: Array) -> None:
        share = found if found.ndim == 1 else found[np.arange(len(y)), _places(y, found.shape[1])]
        least, most = -np.log1p(-self.eps), -np.log(self.eps)
        with np.errstate(divide="ignore"):
            loss = np.where(share < self.eps, most, np.where(share > 1 - self.eps, least, -np.log(share)))
        self.weight += float(weight.sum())
        self.loss += float(loss @ weight)

    def merge(self, other: Any) -> None:
        self.weight += other.weight
        self.loss += other.loss

    def mean(self) -> float:
        """Return the mean loss."""
        return self.loss / self.weight


def _places(y: Floats, classes: int) -> Array:
    """Return labels as numbers of classes.

    Raises
    ------
    DataError
        For one that is no class.
    """
    known = (y >= 0) & (y < classes) & (y == np.trunc(y))
    if not known.all():
        raise DataError(
            f"label {y[~known][0]:g} is none of the {classes} classes, 0 to {classes - 1}, that there are "
            f"probabilities of. Leave such rows out, or number labels as they were for training."
        )
    return y.astype(np.intp)


@dataclass
class ScoreTally(Tally):
    """Weights of positive rows (label above ½) and negative ones by score.

    Of few distinct scores each is counted. Of more than ``limit`` there are only ``scores`` to count at, half as
    many, and a second tally ``at`` them counts: each row at the largest that is not above its own. Points of the
    curve are exact either way; fewer scores only leave out points between them.

    Attributes
    ----------
    limit : int
        Most distinct scores that are counted one by one.
    scores : ndarray of shape (s,)
        Distinct scores, ascending.
    positives, negatives : ndarray of shape (s,)
        Weight of the rows of each.
    complete : bool
        Whether the rows are counted.
    fixed : bool
        Whether rows are counted at ``scores``, which are given.
    any_class : bool
        Whether labels of more than two classes pass: who tallies looks at them.
    """

    limit: int
    scores: Floats = field(default_factory=lambda: np.zeros(0))
    positives: Floats = field(default_factory=lambda: np.zeros(0))
    negatives: Floats = field(default_factory=lambda: np.zeros(0))
    complete: bool = True
    fixed: bool = False
    any_class: bool = False
    _waiting: list[tuple[Floats, Floats, Floats]] = field(default_factory=list)

    def at(self) -> ScoreTally:
        """Return an empty tally that counts at this one's scores; whatever is below them is counted at the first."""
        scores = evenly_by_rank(self.scores, self.limit // 2 + 1)
        return ScoreTally(
            self.limit, scores, np.zeros(len(scores)), np.zeros(len(scores)), True, True, self.any_class
        )

    def add(self, y: Floats, weight: Floats, found: Array) -> None:
        self._require_two(y)
        if self.fixed:
            self._count_at(np.searchsorted(self.scores, found, side="right"), y, weight)
            return
        positive = np.where(y > 0.5, weight, 0.0)
        self._waiting.append((np.asarray(found, np.float64), positive, weight - positive))
        if sum(len(scores) for scores, _, _ in self._waiting) > BUFFER:
            self.settle()

    def add_near(
        self, y: Floats, weight: Floats, near: Floats, within: Floats, exact: Callable[[NDArray[np.intp]], Floats]
    ) -> None:
        """Count rows at scores that are given, as ``add`` does, where only some of their own need to be exact.

        Parameters
        ----------
        y, weight : ndarray of shape (n,)
            Targets and weights.
        near, within : ndarray of shape (n,)
            Scores, and how far they are from the exact ones at most.
        exact : callable
            Returns the exact scores of some rows, given their numbers.
        """
        self._require_two(y)
        places = np.searchsorted(self.scores, near, side="right")
        ends = np.concatenate([[-np.inf], self.scores, [np.inf]])
        with np.errstate(invalid="ignore"):  # ∞ − ∞
            unsure = (near - ends[places] <= within) | (ends[places + 1] - near <= within)
        rows = np.flatnonzero(unsure)
        if len(rows):
            places[rows] = np.searchsorted(self.scores, exact(rows), side="right")
        self._count_at(places, y, weight)

    def _count_at(self, places: NDArray[np.intp], y: Floats, weight: Floats) -> None:
        at, positive = np.maximum(places - 1, 0), np.where(y > 0.5, weight, 0.0)
        self.positives = self.positives + np.bincount(at, positive, len(self.scores))
        self.negatives = self.negatives + np.bincount(at, weight - positive, len(self.scores))

    def settle(self) -> ScoreTally:
        """Count the rows that wait, and return the tally."""
        if self._waiting:
            parts = [(self.scores, self.positives, self.negatives), *self._waiting]
            self._waiting = []
            scores, positives, negatives = (np.concatenate(column) for column in zip(*parts, strict=True))
            self.scores, place = np.unique(scores, return_inverse=True)
            self.positives = np.bincount(place, positives, len(self.scores)).astype(np.float64)
            self.negatives = np.bincount(place, negatives, len(self.scores)).astype(np.float64)
            self._bound()
        return self

    def merge(self, other: Any) -> None:
        if self.fixed:
            self.positives, self.negatives = self.positives + other.positives, self.negatives + other.negatives
            return
        self.settle()
        other.settle()
        self.complete = self.complete and other.complete
        self._waiting = [(other.scores, other.positives, other.negatives)]
        self.settle()

    def _require_two(self, y: Floats) -> None:
        """Refuse labels of more than two classes."""
        if not self.any_class and y.max(initial=0) > 1:
            raise DataError(f"label {y.max():g}: {OF_TWO}")

    def _bound(self) -> None:
        if len(self.scores) > self.limit:
            self.complete = False
        if not self.complete:  # the counts of other parts at these scores are not known
            self.scores = evenly_by_rank(self.scores, 2 * self.limit)
            self.positives = self.negatives = np.zeros(len(self.scores))

    def cumulative(self) -> tuple[Floats, Floats, Floats]:
        """Return scores, descending, and the weight of positive and negative rows at or above each."""
        kept = (self.positives > 0) | (self.negatives > 0) if self.fixed else np.ones(len(self.scores), bool)
        scores, positives, negatives = (a[kept][::-1] for a in (self.scores, self.positives, self.negatives))
        return scores, positives.cumsum(), negatives.cumsum()


def evenly_by_rank(scores: Floats, most: int) -> Floats:
    """Return at most so many of the scores, evenly by rank, the smallest included."""
    if len(scores) <= most:
        return scores
    return scores[np.linspace(0, len(scores) - 1, most).astype(np.intp)]

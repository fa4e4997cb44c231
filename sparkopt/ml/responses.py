"""What models make of raw predictions: data that is sent to whoever scores, without the model.

Nothing here needs pyspark.ml, which takes a Python worker longer to import than a hundred thousand rows to score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sparkopt.losses import Loss
from sparkopt.ml.arithmetic import exp, sigmoid, softmax
from sparkopt.ml.expressions import LARGEST
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = [
    "MEANS",
    "CalibratedShares",
    "ClassShares",
    "Counts",
    "Margins",
    "Means",
    "OneNumber",
    "OppositeShares",
    "OrderedShares",
    "Response",
    "SeveralLabels",
    "SurvivalTimes",
    "TwoShares",
]

Response: TypeAlias = Callable[[Array], dict[str, Array]]
"""Output columns of raw predictions (n, outputs): (n,) for numbers, (n, k) for vectors."""

MEANS = {"log": exp, "logit": sigmoid}
"""The mean of a linear prediction, to the bit what Spark makes of it, by the link; others are the loss's."""


@dataclass(frozen=True)
class OneNumber:
    """The raw prediction is the prediction."""

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        return {"prediction": raw[:, 0]}


@dataclass(frozen=True)
class Margins:
    """Two classes by the sign of a margin, without probabilities.

    Parameters
    ----------
    least : float
        The margin above which class 1 is predicted.
    """

    least: float

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        margin = raw[:, 0]
        return {
            "rawPrediction": np.stack([-margin, margin], axis=1),
            "prediction": (margin > self.least).astype(np.float64),
        }


@dataclass(frozen=True)
class TwoShares(Margins):
    """Two classes by their probabilities: the margin is the log-odds of class 1."""

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        margin = raw[:, 0]
        return super().__call__(raw) | {"probability": np.stack([sigmoid(-margin), sigmoid(margin)], axis=1)}

    def one(self, key: str, raw: Array) -> Array | None:
        """Return one column, None where it takes all."""
        return None if key == "probability" else super().__call__(raw)[key]


@dataclass(frozen=True)
class ClassShares:
    """Several classes by their probabilities.

    Parameters
    ----------
    thresholds : tuple of float or None
        Units in which the probabilities are compared, one for each class.
    """

    thresholds: tuple[float, ...] | None

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        probability = self._probability(raw)
        return {"rawPrediction": raw, "probability": probability, "prediction": self._choose(probability, raw)}

    def _probability(self, raw: Array) -> Floats:
        return softmax(np.clip(raw, -LARGEST, LARGEST))  # ∞ − ∞ is no number

    def _choose(self, probability: Array, raw: Array) -> Floats:
        """Return the class of the largest probability in units of its threshold."""
        if self.thresholds is None:
            return np.asarray(raw.argmax(axis=1), np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.nan_to_num(probability / np.array(self.thresholds), nan=0.0, posinf=np.inf)  # 0 / 0: no vote
        return np.asarray(share.argmax(axis=1), np.float64)


@dataclass(frozen=True)
class OppositeShares(ClassShares):
    """Two classes by their probabilities: each raw prediction is the log-odds of its class."""

    def _probability(self, raw: Array) -> Floats:
        return np.stack([sigmoid(raw[:, 0]), sigmoid(raw[:, 1])], axis=1)


@dataclass(frozen=True)
class SeveralLabels:
    """Labels, any number of which a row may have.

    Parameters
    ----------
    least : float
        The margin above which a label is predicted.
    """

    least: float

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        return {
            "rawPrediction": raw,
            "probability": np.stack([sigmoid(column) for column in raw.T], axis=1),
            "prediction": (raw > self.least).astype(np.float64),
        }


@dataclass(frozen=True)
class Means:
    """The mean of a distribution by a link, and the linear prediction.

    Parameters
    ----------
    link : str
        The link's name.
    loss : Loss
        Knows the mean where ``MEANS`` does not.
    """

    link: str
    loss: Loss

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        linear = raw[:, 0]
        mean = MEANS.get(self.link, self.loss.predict)
        return {"prediction": mean(linear), "linkPrediction": linear}


@dataclass(frozen=True)
class Counts:
    """The mean of counts, whose logarithm the raw prediction is."""

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        return {"prediction": exp(raw[:, 0])}


@dataclass(frozen=True)
class SurvivalTimes:
    """Times, whose logarithms the raw predictions are, and their quantiles.

    Parameters
    ----------
    factors : ndarray of shape (quantiles,)
        Quantiles of a time whose logarithm is predicted as 0.
    """

    factors: Floats

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        time = exp(raw[:, 0])
        return {"prediction": time, "quantiles": time[:, None] * self.factors}


@dataclass(frozen=True)
class OrderedShares:
    """Classes in an order, by cut points of a score.

    Parameters
    ----------
    thresholds : ndarray of shape (classes − 1,)
        The log-odds of a class up to j are ``thresholds[j]`` − the raw prediction.
    """

    thresholds: Floats

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        below = [sigmoid(threshold - raw[:, 0]) for threshold in self.thresholds]
        edges = np.stack([np.zeros(len(raw)), *below, np.ones(len(raw))], axis=1)
        probability = np.diff(edges, axis=1)
        return {"probability": probability, "prediction": probability.argmax(axis=1).astype(np.float64)}


@dataclass(frozen=True)
class CalibratedShares:
    """Probabilities of a classifier's score.

    Parameters
    ----------
    points : ndarray of shape (2, points)
        Scores and probabilities between which an ascending line runs; empty for a sigmoid of the raw prediction.
    """

    points: Floats

    def __call__(self, raw: Array) -> dict[str, Array]:
        """Return the columns."""
        score = raw[:, 0]
        share = np.interp(score, *self.points) if self.points.size else sigmoid(score)
        return {
            "probability": np.stack([1 - share, share], axis=1),
            "prediction": (share > 0.5).astype(np.float64),
        }

"""Parameters of classifiers: their output columns, and the thresholds by which a class is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from pyspark.ml.param import Param, Params
from pyspark.ml.param.shared import HasProbabilityCol, HasRawPredictionCol, HasThreshold, HasThresholds

from sparkopt.errors import ParameterError
from sparkopt.ml.bounds import BoundParams
from sparkopt.ml.class_weights import HasClassWeights
from sparkopt.ml.params import LinearParams, lower_case
from sparkopt.validation import Constraint, Interval, OneOf

__all__ = ["LogisticRegressionParams", "ProbabilityParams", "RawPredictionParams"]

L = TypeVar("L", bound="LogisticRegressionParams")
P = TypeVar("P", bound="ProbabilityParams")


class RawPredictionParams(HasRawPredictionCol):
    """The output column of raw predictions, of any classifier."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(rawPredictionCol="rawPrediction")

    def setRawPredictionCol(self: R, value: str) -> R:
        """Set the column of raw predictions; "" leaves it out."""
        return self._set(rawPredictionCol=value)


R = TypeVar("R", bound=RawPredictionParams)


class ProbabilityParams(LinearParams, RawPredictionParams, HasProbabilityCol, HasThresholds, HasClassWeights):
    """Parameters of classifiers that pyspark.ml calls probabilistic, and of their models."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(probabilityCol="probability")

    def setProbabilityCol(self: P, value: str) -> P:
        """Set the column of class probabilities; "" leaves it out."""
        return self._set(probabilityCol=value)

    def setThresholds(self: P, value: list[float]) -> P:
        """Set one number for each class: the class of the largest probability / threshold is predicted."""
        return self._set(thresholds=value)

    def _thresholds_of(self, classes: int) -> tuple[float, ...] | None:
        """Return thresholds, one for each class; None where none are set."""
        if not self.isSet(self.thresholds):
            return None
        thresholds = self.getThresholds()
        if len(thresholds) != classes:
            raise ParameterError(
                f"thresholds must have one entry for each class, {classes}. Got {len(thresholds)} instead."
            )
        return tuple(thresholds)

    def _check_params(self) -> None:
        super()._check_params()
        if not self.isSet(self.thresholds):
            return
        values = self.getOrDefault(self.thresholds)
        if min(values) < 0 or sum(value == 0 for value in values) > 1:
            raise ParameterError(f"thresholds must be >= 0, and at most one of them 0. Got {values} instead.")


class LogisticRegressionParams(ProbabilityParams, HasThreshold, BoundParams):
    """What LogisticRegression and its model share."""

    family: Param[str] = Param(
        Params._dummy(), "family", "auto, binomial or multinomial, in any case", typeConverter=lower_case
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(family="auto", threshold=0.5)

    def getFamily(self) -> str:
        """Return family."""
        return self.getOrDefault(self.family)

    def setThreshold(self: L, value: float) -> L:
        """Set the probability above which class 1 is predicted; clears thresholds."""
        self.clear(self.thresholds)
        return self._set(threshold=value)

    def setThresholds(self: L, value: list[float]) -> L:
        """Set one number for each class: the largest probability / threshold is predicted; clears threshold."""
        self.clear(self.threshold)
        return self._set(thresholds=value)

    def getThresholds(self) -> list[float]:
        """Return thresholds, or the two that are equivalent to a threshold that was set."""
        if not self.isSet(self.thresholds) and self.isSet(self.threshold):
            return [1.0 - self.getOrDefault(self.threshold), self.getOrDefault(self.threshold)]
        return self.getOrDefault(self.thresholds)

    def getThreshold(self) -> float:
        """Return threshold, or the equivalent of two thresholds."""
        if not self.isSet(self.thresholds):
            return self.getOrDefault(self.threshold)
        thresholds = self.getOrDefault(self.thresholds)
        if len(thresholds) != 2:
            raise ParameterError(
                f"thresholds must have 2 entries to be equivalent to one threshold. Got {thresholds} instead."
            )
        return 1.0 / (1.0 + thresholds[0] / thresholds[1])

    def _domains(self) -> Mapping[str, Constraint]:
        families = OneOf(["auto", "binomial", "multinomial"])
        return {**super()._domains(), "family": families, "threshold": Interval(0, 1)}

    def _check_params(self) -> None:
        super()._check_params()
        self._check_thresholds()

    def _check_thresholds(self) -> None:
        """Refuse a threshold and thresholds that contradict each other."""
        if not (self.isSet(self.threshold) and self.isSet(self.thresholds)):
            return
        values = self.getOrDefault(self.thresholds)
        if len(values) != 2:
            raise ParameterError(f"threshold is of two classes, and thresholds={values} of others. Set one of them.")
        if not np.isclose(self.getThreshold(), self.getOrDefault(self.threshold), rtol=0, atol=1e-5):
            raise ParameterError(
                f"threshold={self.getOrDefault(self.threshold):g} contradicts thresholds={values}, equivalent to "
                f"threshold={self.getThreshold():g}. Set one of them."
            )

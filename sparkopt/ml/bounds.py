"""Bounds on coefficients and intercepts, as parameters under pyspark.ml's names."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from pyspark.ml.linalg import DenseMatrix, DenseVector
from pyspark.ml.param import Param, Params, TypeConverters

from sparkopt.errors import ParameterError
from sparkopt.penalties import Box, Penalty

__all__ = ["BoundParams", "BoundSetters"]

B = TypeVar("B", bound="BoundSetters")
COEFFICIENTS = ("lowerBoundsOnCoefficients", "upperBoundsOnCoefficients")
INTERCEPTS = ("lowerBoundsOnIntercepts", "upperBoundsOnIntercepts")


def to_rows(value: Any) -> list[list[float]]:
    """Return a Matrix, ndarray or list of rows as a list of rows: plain data, which can be saved."""
    rows = np.asarray(value.toArray() if hasattr(value, "toArray") else value, dtype=np.float64)
    if rows.ndim != 2:
        raise TypeError(f"bounds on coefficients must be a matrix. Got {value!r} instead.")
    return [[float(value) for value in row] for row in rows]


def _rows(name: str) -> Param[list[list[float]]]:
    doc = f"{name}: a matrix of 1 (binomial) or classes x features, in the features' units"
    return Param(Params._dummy(), name, doc, typeConverter=to_rows)


def _entries(name: str) -> Param[list[float]]:
    doc = f"{name}: a vector of 1 (binomial) or classes"
    return Param(Params._dummy(), name, doc, typeConverter=TypeConverters.toListFloat)


class BoundParams(Params):
    """Bounds on the coefficients and intercepts of a classifier."""

    lowerBoundsOnCoefficients = _rows("lowerBoundsOnCoefficients")
    upperBoundsOnCoefficients = _rows("upperBoundsOnCoefficients")
    lowerBoundsOnIntercepts = _entries("lowerBoundsOnIntercepts")
    upperBoundsOnIntercepts = _entries("upperBoundsOnIntercepts")

    def getLowerBoundsOnCoefficients(self) -> DenseMatrix:
        """Return lowerBoundsOnCoefficients."""
        return self._matrix_of(self.lowerBoundsOnCoefficients)

    def getUpperBoundsOnCoefficients(self) -> DenseMatrix:
        """Return upperBoundsOnCoefficients."""
        return self._matrix_of(self.upperBoundsOnCoefficients)

    def getLowerBoundsOnIntercepts(self) -> DenseVector:
        """Return lowerBoundsOnIntercepts."""
        return DenseVector(self.getOrDefault(self.lowerBoundsOnIntercepts))

    def getUpperBoundsOnIntercepts(self) -> DenseVector:
        """Return upperBoundsOnIntercepts."""
        return DenseVector(self.getOrDefault(self.upperBoundsOnIntercepts))

    def _matrix_of(self, param: Param[list[list[float]]]) -> DenseMatrix:
        rows = np.array(self.getOrDefault(param))
        return DenseMatrix(rows.shape[0], rows.shape[1], rows.ravel(order="F"))

    @property
    def _has_bounds(self) -> bool:
        return any(self.isSet(self.getParam(name)) for name in (*COEFFICIENTS, *INTERCEPTS))

    def _bounded(self, penalty: Penalty) -> Penalty:
        """Return the penalty inside the bounds that are set."""
        if not self._has_bounds:
            return penalty
        if any(self.isSet(self.getParam(name)) for name in INTERCEPTS) and not self.getOrDefault("fitIntercept"):
            raise ParameterError("bounds on intercepts need fitIntercept=True: there is no intercept to bound.")
        lower, upper = (self._bounds(name, end) for name, end in zip(COEFFICIENTS, (-np.inf, np.inf), strict=True))
        low, high = (self._bounds(name, end) for name, end in zip(INTERCEPTS, (-np.inf, np.inf), strict=True))
        return Box(lower, upper, low, high, penalty)

    def _bounds(self, name: str, default: float) -> Any:
        param = self.getParam(name)
        return np.array(self.getOrDefault(param)).T if self.isSet(param) else default


class BoundSetters(BoundParams):
    """Setters of bounds, which estimators have and models do not."""

    def setLowerBoundsOnCoefficients(self: B, value: Any) -> B:
        """Set lower bounds on the coefficients, one row for two classes, else one for each."""
        return self._set(lowerBoundsOnCoefficients=value)

    def setUpperBoundsOnCoefficients(self: B, value: Any) -> B:
        """Set upper bounds on the coefficients, one row for two classes, else one for each."""
        return self._set(upperBoundsOnCoefficients=value)

    def setLowerBoundsOnIntercepts(self: B, value: Any) -> B:
        """Set lower bounds on the intercepts."""
        return self._set(lowerBoundsOnIntercepts=value)

    def setUpperBoundsOnIntercepts(self: B, value: Any) -> B:
        """Set upper bounds on the intercepts."""
        return self._set(upperBoundsOnIntercepts=value)

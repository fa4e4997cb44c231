"""Scores of rows, the numbers of a model without the model: data that is sent to whoever scores.

Nothing here needs pyspark.ml, which takes a Python worker longer to import than a hundred thousand rows to score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from sparkopt.errors import DataError
from sparkopt.ml.arithmetic import products, sigmoid, sums_in_order
from sparkopt.ml.responses import Response
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["FactorScores", "LayerScores", "LinearScores", "Scores"]


@dataclass(frozen=True)
class Scores(ABC):
    """Scores of rows.

    Parameters
    ----------
    matrix : ndarray of shape (projections, features)
        Coefficients.
    outputs : Response
        What the raw predictions are turned into.
    """

    matrix: Floats
    outputs: Response

    @property
    @abstractmethod
    def width(self) -> int:
        """Raw predictions of a row."""

    @abstractmethod
    def _raw(self, X: Any) -> Array:
        """Return raw predictions of rows that have the model's features."""

    def raw(self, X: Any) -> Array:
        """Return raw predictions (n, width), to the bit the same in any batch.

        Parameters
        ----------
        X : ndarray or csr_array of shape (n, features)
            Rows.

        Raises
        ------
        DataError
            Where they have another number of features.
        """
        features = self.matrix.shape[1]
        if X.shape[1] == features:
            return self._raw(X)
        if not X.shape[0]:  # no row of a batch is valid: lists without entries have no width
            return np.zeros((0, self.width))
        raise DataError(f"a row has {X.shape[1]} features; the model was trained on {features}.")

    def output(self, key: str, raw: Array) -> Array:
        """Return one of the output columns of raw predictions, and compute no other where that is cheaper."""
        one: Callable[[str, Array], Array | None] | None = getattr(self.outputs, "one", None)
        found = None if one is None else one(key, raw)
        return self.outputs(raw)[key] if found is None else found


@dataclass(frozen=True)
class LinearScores(Scores):
    """Those of a linear model.

    Parameters
    ----------
    intercept : ndarray of shape (projections,)
        Intercepts.
    """

    intercept: Floats

    @property
    def width(self) -> int:
        return len(self.matrix)

    def _raw(self, X: Any) -> Array:
        return products(X, self.matrix) + self.intercept


@dataclass(frozen=True)
class FactorScores(Scores):
    """Those of a factorisation machine: the first projection is of the linear terms, the others of the factors.

    Parameters
    ----------
    intercept : float
        Intercept.
    has_classes : bool
        Whether there is a raw prediction of each of two classes.
    """

    intercept: float
    has_classes: bool

    @property
    def width(self) -> int:
        return 2 if self.has_classes else 1

    def _raw(self, X: Any) -> Array:
        X = X.astype(np.float64)
        projections, vectors = products(X, self.matrix), self.matrix[1:]
        squares = products(X * X, np.square(vectors).sum(axis=0)[None])[:, 0]
        pairs = 0.5 * (sums_in_order(np.square(projections[:, 1:])) - squares)
        margin = np.asarray(self.intercept + projections[:, 0] + pairs)
        return np.stack([-margin, margin], axis=1) if self.has_classes else margin[:, None]


@dataclass(frozen=True)
class LayerScores(Scores):
    """Those of a network with sigmoid hidden layers, the first of which the projections are of.

    Parameters
    ----------
    bias : ndarray of shape (projections,)
        Biases of the first layer.
    others : list of (ndarray, ndarray)
        Weights (units, inputs) and biases (units,) of the layers after it.
    """

    bias: Floats
    others: list[tuple[Floats, Floats]]

    @property
    def width(self) -> int:
        return len([self.bias, *(bias for _, bias in self.others)][-1])

    def _raw(self, X: Any) -> Array:
        sums = products(X, self.matrix) + self.bias
        for matrix, bias in self.others:
            sums = products(sigmoid(sums), matrix) + bias
        return sums

"""Standard errors of coefficients, and the tests that follow from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from scipy import special

from sparkopt.blocks.columns import feature_matrix
from sparkopt.errors import DataError, IncompatibleError
from sparkopt.io.worker import spare_modules
from sparkopt.ml.summary.sums import as_list
from sparkopt.typing import Floats

__all__ = ["CoefficientTests", "HasCoefficientTests", "gram_matrix"]


@dataclass(frozen=True)
class CoefficientTests:
    """Estimates and their standard errors, shape (d,) each; the intercept, where there is one, is last.

    Attributes
    ----------
    estimates, errors : ndarray of shape (d,)
        Coefficients and their standard errors.
    degrees : int or None
        Degrees of freedom of Student's t distribution; None is the normal distribution.
    """

    estimates: Floats
    errors: Floats
    degrees: int | None

    @classmethod
    def of(cls, estimates: Floats, information: Floats, dispersion: float, degrees: int | None) -> CoefficientTests:
        """Take the errors from the inverse of Σ w x xᵀ.

        Raises
        ------
        DataError
            Where features are linearly dependent.
        """
        scale = np.sqrt(np.diagonal(information))
        if not scale.all() or np.linalg.matrix_rank(scaled := information / np.outer(scale, scale)) < len(scale):
            raise DataError(
                "the features are constant or linearly dependent, so their coefficients have no standard errors. "
                "Leave the superfluous ones out."
            )
        return cls(estimates, np.sqrt(np.diagonal(np.linalg.inv(scaled)) * dispersion) / scale, degrees)

    @property
    def t_values(self) -> Floats:
        """Estimates in units of their errors."""
        return self.estimates / self.errors

    @property
    def p_values(self) -> Floats:
        """Two-sided probability of a t value as large, were the coefficient 0."""
        size = np.abs(self.t_values)
        found: Floats = 2 * (special.ndtr(-size) if self.degrees is None else special.stdtr(self.degrees, -size))
        return found


class HasCoefficientTests:
    """Statistics of a model's coefficients, the intercept last, under pyspark.ml's names."""

    model: Any

    @abstractmethod
    def _test_coefficients(self) -> CoefficientTests:
        """Compute the tests."""

    @cached_property
    def _tests(self) -> CoefficientTests:
        if self.model.getRegParam() > 0:
            raise IncompatibleError(
                f"standard errors are defined for models without a penalty; this one has "
                f"regParam={self.model.getRegParam():g}. Fit with regParam=0."
            )
        return self._test_coefficients()

    @property
    def _estimates(self) -> Floats:
        matrix, intercept = self.model.arrays
        return np.append(matrix[0], intercept) if self.model.getFitIntercept() else matrix[0]

    @property
    def coefficientStandardErrors(self) -> list[float]:
        """Standard errors of the coefficients, and of the intercept."""
        return as_list(self._tests.errors)

    @property
    def tValues(self) -> list[float]:
        """Coefficients, and intercept, in units of their standard errors."""
        return as_list(self._tests.t_values)

    @property
    def pValues(self) -> list[float]:
        """Two-sided p-values of the coefficients, and of the intercept."""
        return as_list(self._tests.p_values)


def gram_matrix(df: DataFrame, features: Column, weight: Column, *, intercept: bool) -> Floats:
    """Return Σ w x xᵀ, shape (d, d); with ``intercept``, x has a last entry of 1.

    Partitions send their sums row by row, so no task and no message holds more than a few matrices.
    """
    rows = df.select(features.alias("features"), weight.alias("weight"))
    partial = rows.mapInArrow(_Gram(intercept), "row int, sums array<double>")
    added = partial.groupBy("row").applyInArrow(_add_rows, "row int, sums array<double>")
    return np.array([row["sums"] for row in sorted(added.collect())], dtype=np.float64)


@dataclass(frozen=True)
class _Gram:
    """The task of ``gram_matrix``: one partition's sum, a row of the matrix a record."""

    intercept: bool

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        spare_modules()
        total: Any = 0.0
        for batch in batches:
            if batch.num_rows:
                X = feature_matrix(batch.column("features"))
                X = X if isinstance(X, np.ndarray) else X.toarray()
                X = X.astype(np.float64, copy=False)
                if self.intercept:
                    X = np.column_stack([X, np.ones(len(X))])
                total = total + (X * batch.column("weight").to_numpy()[:, None]).T @ X
        if np.ndim(total):
            rows = pa.array(range(len(total)), pa.int32())
            yield pa.RecordBatch.from_arrays([rows, pa.array(list(total))], ["row", "sums"])


def _add_rows(records: pa.Table) -> pa.Table:
    spare_modules()
    sums = np.stack([values.values.to_numpy() for values in records.column("sums")]).sum(axis=0)
    return pa.table({"row": records.column("row")[:1], "sums": pa.array([sums])})

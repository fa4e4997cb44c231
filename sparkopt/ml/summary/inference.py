"""Standard errors of coefficients, and the tests that follow from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import scipy  # loads scipy.special where it is used
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.columns import FEATURES, feature_matrix, features_column
from sparkopt.blocks.names import column_text, quoted
from sparkopt.blocks.parquet import ParquetReader
from sparkopt.blocks.tables import named_table, number_of, scoring_reader, spark_schema
from sparkopt.errors import DataError, IncompatibleError
from sparkopt.io.worker import spare_modules
from sparkopt.machine import Table, TablePart
from sparkopt.ml.summary.base import as_list
from sparkopt.ml.table_tasks import for_each_part
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

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
        found: Floats = 2 * (
            scipy.special.ndtr(-size) if self.degrees is None else scipy.special.stdtr(self.degrees, -size)
        )
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


def gram_matrix(
    rows: DataFrame | Table,
    features: str | list[str],
    weight: str | None,
    *,
    intercept: bool,
    factor: Factor | None = None,
) -> Floats:
    """Return Σ w x xᵀ, shape (d, d); with ``intercept``, x has a last entry of 1.

    On Spark partitions send their sums row by row, so no task and no message holds more than a few matrices.

    Parameters
    ----------
    rows : DataFrame or Table
        The rows.
    features : str or list of str
        Columns of the features.
    weight : str or None
        Column of row weights; None is a weight of 1.
    intercept : bool
        Whether x has a last entry of 1.
    factor : tuple of (callable, str), optional
        Weights are multiplied by this function of a column.
    """
    task = _Gram(intercept, None if factor is None else factor[0])
    if isinstance(rows, Table):
        rows = named_table(rows, [*([features] if isinstance(features, str) else features), weight])
        reader = scoring_reader(spark_schema(rows.schema), features)
        part = _GramPart(task, reader, weight, None if factor is None else factor[1])
        sums = [found for found in for_each_part(part, rows) if np.ndim(found)]
        return np.asarray(sum(sums[1:], sums[0]))
    weights = F.lit(1.0)
    if weight is not None:
        weights = F.col(column_text(rows.schema, weight, "weight")).cast("double")
    columns = [features_column(rows.schema, features).alias("features"), weights.alias("weight")]
    if factor is not None:
        columns.append(F.col(quoted(factor[1])).alias("value"))
    partial = rows.select(*columns).mapInArrow(task, "row int, sums array<double>")
    added = partial.groupBy("row").applyInArrow(_add_rows, "row int, sums array<double>")
    return np.array([row["sums"] for row in sorted(added.collect())], dtype=np.float64)


Factor: TypeAlias = tuple[Callable[[Array], Array], str]
"""A function, and the column it is of."""


@dataclass(frozen=True)
class _Gram:
    """The task of ``gram_matrix``: one partition's sum, a row of the matrix a record."""

    intercept: bool
    factor: Callable[[Array], Array] | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        spare_modules()
        total: Any = 0.0
        for batch in batches:
            if batch.num_rows:
                weight = batch.column("weight").to_numpy()
                value = None if self.factor is None else batch.column("value").to_numpy()
                total = total + self.sums(feature_matrix(batch.column("features")), weight, value)
        if np.ndim(total):
            rows = pa.array(range(len(total)), pa.int32())
            yield pa.RecordBatch.from_arrays([rows, pa.array(list(total))], ["row", "sums"])

    def sums(self, X: Any, weight: Array, value: Array | None) -> Floats:
        """Return the sum of some rows."""
        X = X if isinstance(X, np.ndarray) else X.toarray()
        X = X.astype(np.float64, copy=False)
        if self.intercept:
            X = np.column_stack([X, np.ones(len(X))])
        if self.factor is not None and value is not None:
            weight = weight * self.factor(value)
        return np.asarray((X * weight[:, None]).T @ X)


@dataclass(frozen=True)
class _GramPart:
    """The same for a part of a table."""

    task: _Gram
    reader: ParquetReader
    weight: str | None
    value: str | None

    def __call__(self, part: TablePart) -> Any:
        names = [name for source in self.reader.every_source for name in source.names]
        names += [name for name in (self.weight, self.value) if name]
        total: Any = 0.0
        for batch in part.batches(list(dict.fromkeys(names))):
            if batch.num_rows:
                weight = np.ones(batch.num_rows) if self.weight is None else number_of(batch, self.weight)
                value = None if self.value is None else number_of(batch, self.value)
                X = feature_matrix(self.reader.made(batch, {}).column(FEATURES))
                total = total + self.task.sums(X, weight, value)
        return total


def _add_rows(records: pa.Table) -> pa.Table:
    spare_modules()
    sums = np.stack([values.values.to_numpy() for values in records.column("sums")]).sum(axis=0)
    return pa.table({"row": records.column("row")[:1], "sums": pa.array([sums])})

"""Summaries of models under pyspark.ml's names: how training went, and how good the predictions are on some rows.

Every metric is computed when it is first used, by one pass or a few, and kept. ``model.summary`` is of the rows
that the model was trained on, ``model.evaluate(df)`` of any others. All metrics are weighted by the row weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from sparkopt.blocks.columns import Columns, number_type
from sparkopt.blocks.names import column_text
from sparkopt.blocks.rows import rows_of, schema_of
from sparkopt.blocks.validity import valid_rows
from sparkopt.io.worker import spare_modules
from sparkopt.machine import Table
from sparkopt.ml.metrics.judged import Judged, tallied
from sparkopt.ml.table_scoring import numbered, of_each_row, scored_table
from sparkopt.report import Receipt
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["Summary", "TrainingSummary", "as_list"]

OUTPUTS = ("predictionCol", "rawPredictionCol", "probabilityCol", "linkPredictionCol")


@dataclass(frozen=True, eq=False)
class Summary:
    """A model's predictions on some rows.

    Parameters
    ----------
    model : LinearModel
        The model.
    dataset : DataFrame, or what `sparkopt.Table.of` takes
        Rows with features, label and, where the model was trained with them, weights.
    """

    model: Any = field(repr=False)
    dataset: Any = field(repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.dataset, pa.RecordBatchReader):  # which is read once
            object.__setattr__(self, "dataset", Table.of(self.dataset))
        elif isinstance(self.dataset, (str, os.PathLike)) or not Table.accepts(self.dataset):
            rows_of(self.dataset)  # refuses what is no table, before a metric is asked for

    @cached_property
    def predictions(self) -> Any:
        """The rows with the model's output columns; those that the model leaves out get names of their own."""
        return self._scorer.transform(self.dataset)

    @property
    def predictionCol(self) -> str:
        """Column of predictions in ``predictions``."""
        return str(self._scorer.getPredictionCol())

    @property
    def labelCol(self) -> str:
        """Column of targets."""
        return str(self.model.getLabelCol())

    @property
    def featuresCol(self) -> str | list[str]:
        """Column or columns of features."""
        features: str | list[str] = self.model._features()
        return features

    @property
    def weightCol(self) -> str | None:
        """Column of row weights; None where every row weighs 1."""
        columns: Columns = self.model._columns()
        return columns.weight

    @cached_property
    def _scorer(self) -> Any:
        scorer = self.model.copy()
        for name in OUTPUTS:
            if scorer.hasParam(name) and not (scorer.isDefined(name) and scorer.getOrDefault(name)):
                scorer._set(**{name: f"{name.removesuffix('Col')}_{scorer.uid}"})
        return scorer

    @cached_property
    def _rows(self) -> Any:
        """The scored rows that are tallied: a DataFrame, or a Table that scores them as it is read."""
        is_table = Table.accepts(self.dataset)
        rows = numbered(self.dataset) if is_table else self.dataset
        if self.model.getHandleInvalid() != "error":
            columns: Columns = self.model._columns()
            rows = valid_rows(
                rows, columns.features, [columns.label, *columns.more_labels, columns.weight, columns.offset]
            )
        elif not is_table:
            return self.predictions
        return scored_table(self._scorer, rows) if is_table else self._scorer.transform(rows)

    def _tallied(self, judged: Mapping[str, Judged]) -> dict[str, Any]:
        """Return tallies of these columns, taken in one pass."""
        number_type(schema_of(self._rows), self.labelCol, "label")
        return tallied(self._rows, self.labelCol, self.weightCol, judged)

    def _of_each_row(self, name: str, function: Callable[..., Array], columns: Sequence[str]) -> Any:
        """Return a column: a function of arrays, applied to columns of numbers of ``predictions``."""
        if Table.is_one(self._rows):
            return of_each_row(self.dataset, name, function, columns, self._rows)
        schema = self.predictions.schema
        each = [F.col(column_text(schema, column, "input")).cast("double") for column in columns]
        return self.predictions.select(_vectorised(function)(F.array(*each)).alias(name))


def as_list(values: Floats) -> list[float]:
    """Return an array (n,) as a list of floats."""
    return [float(value) for value in values]


def _vectorised(function: Callable[..., Array]) -> Any:
    """Return an Arrow UDF from an array of doubles to a double, for a function of as many NumPy arrays."""

    def apply(values: pa.Array) -> pa.Array:
        spare_modules()
        if not len(values):
            return pa.array([], pa.float64())
        table: Floats = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
        return pa.array(np.asarray(function(*table.T), dtype=np.float64))

    apply.__annotations__ = {"values": pa.Array, "return": pa.Array}
    return arrow_udf(apply, "double")  # type: ignore[call-overload]  # its stubs lack type strings


@dataclass(frozen=True, eq=False)
class TrainingSummary(Summary):
    """How the training went.

    Attributes
    ----------
    objectiveHistory : list of float
        Objective after each step, the start included; mean loss plus penalty, as pyspark.ml reports it.
    validationHistory : list of float or None
        Mean loss of the validation rows after each step, without penalty; None where it was not evaluated. The
        model is the step with the lowest.
    totalIterations : int
        Steps taken.
    converged : bool
        Whether a tolerance was met before maxIter.
    receipt : Receipt
        What it cost.
    """

    objectiveHistory: list[float]
    validationHistory: list[float | None]
    totalIterations: int
    converged: bool
    receipt: Receipt

    @property
    def namedCoefficients(self) -> list[Any]:
        """The model's coefficients with the names of their features, the largest first."""
        found: list[Any] = self.model.namedCoefficients
        return found

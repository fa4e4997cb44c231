"""Aggregates of a DataFrame's numbers; each takes one or two Spark jobs with a small result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.jobs.runtimes.values import Pair, RowValues
from sparkopt.ml.metrics.rows import tallies_of

__all__ = ["SparkValues", "scored_values"]


class SparkValues(RowValues):
    """Columns of numbers of a DataFrame.

    Parameters
    ----------
    df : DataFrame
        The rows.
    columns : mapping of str to Column
        The numbers, by name.
    """

    def __init__(self, df: DataFrame, columns: Mapping[str, Column]) -> None:
        self._df, self._columns = df, dict(columns)

    @property
    def names(self) -> Iterable[str]:
        return self._columns

    def _select(self, *names: str) -> DataFrame:
        return self._df.select(*[self._columns[name].alias(name) for name in names])

    def present(self, name: str) -> tuple[int, int]:
        rows, found = self._select(name).agg(F.count("*"), F.count(name)).collect()[0]
        return rows, found

    def tallies(self, label: str, weight: str | None, judged: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
        weights = F.lit(1.0) if weight is None else self._columns[weight]
        of_columns = {name: (self._columns[column], tally) for name, (column, tally) in judged.items()}
        return tallies_of(self._df, self._columns[label], weights, of_columns)

    def counts(self, *names: str, limit: int) -> dict[tuple[float, ...], float]:
        grouped = self._select(*names).groupBy(*names).count().orderBy(F.desc("count"), *names)
        return {_pair(row, names): float(row["count"]) for row in grouped.limit(limit).collect()}

    def sample(self, *names: str, count: int) -> list[tuple[float, ...]]:
        chosen = self._select(*names).orderBy(F.xxhash64(*names)).limit(count)
        return [_pair(row, names) for row in chosen.collect()]

    def _finite(self, name: str) -> DataFrame:
        # false for NaN, Spark's greatest number
        return self._df.select(self._columns[name].alias("value")).where("abs(value) < double('inf')")

    def extent(self, name: str) -> tuple[float, float, int]:
        low, high, rows = self._finite(name).agg(F.min("value"), F.max("value"), F.count("value")).collect()[0]
        return (low, high, rows) if rows else (0.0, 0.0, 0)

    def bins(self, name: str, low: float, width: float, count: int) -> dict[int, float]:
        index = F.least(F.floor((F.col("value") - low) / width), F.lit(count - 1)).alias("bin")
        found = self._finite(name).groupBy(index).count().collect()
        return {row["bin"]: float(row["count"]) for row in found}

    def quantiles(self, name: str, shares: Sequence[float]) -> list[float]:
        found = self._select(name).agg(F.percentile_approx(name, list(shares))).collect()[0][0]
        return list(found or [])

    def above(self, name: str, label: str, edges: Sequence[float]) -> list[tuple[float, float]]:
        rows = self._select(name, label)
        count = F.size(F.filter(F.lit(list(edges)), lambda edge: edge < F.col(name))) if edges else F.lit(0)
        grouped = rows.groupBy(count.alias("above")).agg(F.sum(label).alias("positive"), F.count("*").alias("rows"))
        found = sorted(grouped.collect(), key=lambda row: -row["above"])
        return [(float(row["positive"]), float(row["rows"])) for row in found]


def scored_values(table: DataFrame, *, is_classifier: bool) -> SparkValues:
    """Return what ``ScoredRows`` takes.

    Parameters
    ----------
    table : DataFrame
        label, weight, prediction, probability and rawPrediction, where these columns exist.
    is_classifier : bool
        Whether predictions are classes.
    """
    label, prediction = F.col("label"), F.col("prediction").cast("double")
    columns = {"label": label, "prediction": prediction, "residual": prediction - label}
    if "weight" in table.columns:
        columns["weight"] = F.col("weight")
    if is_classifier:
        entries = {name: _entries(table, name) for name in ("probability", "rawPrediction") if name in table.columns}
        if "probability" in entries:
            columns["share"] = entries["probability"][label.cast("int")]
        if entries:
            columns["score"] = next(iter(entries.values()))[1]
        if "rawPrediction" in entries:
            first = table.first()
            if first is not None and len(first["rawPrediction"]) == 2:
                columns["margin"] = entries["rawPrediction"][1]
    return SparkValues(table, columns)


def _entries(table: DataFrame, name: str) -> Column:
    """Return a column of Vectors or arrays as arrays."""
    column = F.col(name)
    is_vector = isinstance(table.schema[name].dataType, VectorUDT)
    return F.when(column.isNotNull(), vector_to_array(column)) if is_vector else column  # it refuses null


def _pair(row: Any, names: Sequence[str]) -> Pair:
    return tuple(math.nan if row[name] is None else row[name] for name in names)

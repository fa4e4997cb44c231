"""What the metrics are made of: a few weighted sums over scored rows, each taken in one pass.

Only DataFrames are used, so all of it works on Spark Connect too. What reaches the driver is bounded by the number of
classes or of thresholds, never by the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from sparkopt.errors import DataError
from sparkopt.io.worker import spare_modules
from sparkopt.typing import Array, Floats

__all__ = ["ClassCounts", "ResidualSums", "ScoreCounts", "area_under", "as_list", "totals"]

BINS = 1000
"""Thresholds that a curve is reduced to, as in pyspark.ml's summaries."""
FEW = 2 * BINS
"""Distinct scores up to which a curve keeps them all."""


def totals(df: DataFrame, **sums: Column) -> dict[str, float]:
    """Return aggregates over all rows by name, in one pass.

    Raises
    ------
    DataError
        Where there are no rows.
    """
    row = df.agg(F.count(F.lit(1)).alias("rows"), *[column.alias(name) for name, column in sums.items()]).collect()[0]
    if row["rows"] == 0:
        raise DataError("there are no rows to evaluate: the DataFrame is empty.")
    return {name: row[name] for name in ("rows", *sums)}


@dataclass(frozen=True)
class ResidualSums:
    """Weighted sums of a regression's rows, with residual e = y − prediction.

    Attributes
    ----------
    rows : int
        Number of rows.
    weight, label : float
        Σ w, and the mean Σ w y / Σ w.
    squares, absolutes : float
        Σ w e² and Σ w |e|.
    label_squares : float
        Σ w y².
    smallest, largest : float
        Range of √w · e.
    """

    rows: int
    weight: float
    label: float
    squares: float
    absolutes: float
    label_squares: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, df: DataFrame, label: Column, prediction: Column, weight: Column) -> ResidualSums:
        """Take the sums in one pass."""
        residual = label - prediction
        found = totals(
            df,
            weight=F.sum(weight),
            label=F.sum(weight * label) / F.sum(weight),
            squares=F.sum(weight * residual * residual),
            absolutes=F.sum(weight * F.abs(residual)),
            label_squares=F.sum(weight * label * label),
            smallest=F.min(F.sqrt(weight) * residual),
            largest=F.max(F.sqrt(weight) * residual),
        )
        return cls(**found)  # type: ignore[arg-type]  # rows is whole


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
    def of(cls, df: DataFrame, label: Column, prediction: Column, weight: Column) -> ClassCounts:
        """Count in one pass; one row a class reaches the driver."""
        pairs = df.groupBy(label.alias("y"), prediction.alias("p")).agg(F.sum(weight).alias("w"))
        none, w = F.lit(0.0), F.col("w")
        hit = F.when(F.col("y") == F.col("p"), w).otherwise(none)
        as_label = F.struct(F.col("y").alias("k"), hit.alias("hits"), w.alias("actual"), none.alias("predicted"))
        as_answer = F.struct(F.col("p").alias("k"), none.alias("hits"), none.alias("actual"), w.alias("predicted"))
        each = pairs.select(F.inline(F.array(as_label, as_answer)))
        rows = each.groupBy("k").agg(*[F.sum(name).alias(name) for name in ("hits", "actual", "predicted")]).collect()
        kept = sorted(row for row in rows if row["actual"] > 0)
        if not kept:
            raise DataError("there are no rows to evaluate: the DataFrame is empty, or every weight is 0.")
        return cls(*[np.array(column, dtype=np.float64) for column in zip(*kept, strict=True)])

    @property
    def total(self) -> float:
        """Weight of all rows."""
        return float(self.actual.sum())

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

    @classmethod
    def of(cls, df: DataFrame, score: Column, label: Column, weight: Column) -> ScoreCounts:
        """Count at every score, or, where there are more than a few thousand, at quantiles of the scores.

        Either way each point is exact; fewer thresholds only mean that points between them are left out.
        """
        rows = df.select(score.alias("score"), label.alias("label"), weight.alias("weight"))
        shares = [i / BINS for i in range(BINS + 1)]
        found = totals(
            rows, distinct=F.approx_count_distinct("score"), edges=F.percentile_approx("score", shares, 10 * BINS)
        )
        bins = F.col("score")
        if found["distinct"] > FEW:
            bins = _floor_of(np.unique(found["edges"]))(bins)
        positive = F.when(F.col("label") > 0.5, F.col("weight")).otherwise(0.0)
        counts = rows.groupBy(bins.alias("bin")).agg(
            F.sum(positive).alias("positives"), (F.sum("weight") - F.sum(positive)).alias("negatives")
        )
        ordered = sorted(counts.collect(), reverse=True)
        thresholds, positives, negatives = np.array(ordered, dtype=np.float64).T
        return cls(thresholds, positives.cumsum(), negatives.cumsum())

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


def as_list(values: Floats) -> list[float]:
    """Return an array (n,) as a list of floats."""
    return [float(value) for value in values]


def _floor_of(edges: Floats) -> Any:
    """Return an Arrow UDF from a score to the largest edge that is not above it."""

    def floor(score: pa.Array) -> pa.Array:
        spare_modules()
        values: Array = score.to_numpy(zero_copy_only=False)
        return pa.array(edges[np.maximum(np.searchsorted(edges, values, side="right") - 1, 0)])

    floor.__annotations__ = {"score": pa.Array, "return": pa.Array}
    return arrow_udf(floor, "double")  # type: ignore[call-overload]  # its stubs lack type strings


def _ratio(part: Array | float, whole: Array | float) -> Floats:
    """``part / whole``, 0 where the whole is."""
    part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), whole)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def _f_measure(precision: Floats, recall: Floats, beta: float) -> Floats:
    squared = beta * beta
    return _ratio((1 + squared) * precision * recall, squared * precision + recall)

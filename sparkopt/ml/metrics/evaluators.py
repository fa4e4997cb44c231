"""The metrics of pyspark.ml's evaluators, computed from tallies: what to tally, and what it is worth."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    Evaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.sql.types import StructType

from sparkopt.blocks.columns import Columns, column_type, number_type
from sparkopt.blocks.tables import spark_schema
from sparkopt.errors import DataError, IncompatibleError, ParameterError
from sparkopt.machine import Table
from sparkopt.ml.metrics.counts import ClassCounts, ScoreCounts, area_under
from sparkopt.ml.metrics.judged import Judged, completed, tallied
from sparkopt.ml.metrics.tallies import OF_TWO, ClassTally, LogLossTally, ResidualTally, ScoreTally, Tally
from sparkopt.values import dataclass

__all__ = ["Measure", "check_two_classes", "measure_of", "measure_on"]


@dataclass(frozen=True)
class Measure:
    """How a metric is computed.

    Attributes
    ----------
    column : str
        The output column of a model that is judged.
    weighs : bool
        Whether rows count by their weights.
    tally : callable
        Returns an empty tally.
    value : callable from a tally to float or None
        The metric; None where only the evaluator itself can tell.
    """

    column: str
    weighs: bool
    tally: Callable[[], Tally]
    value: Callable[[Any], float | None]


def measure_of(evaluator: Evaluator, columns: Columns) -> Measure | None:
    """Return how to compute a pyspark.ml evaluator's metric on the rows of a store; None where it cannot be.

    Parameters
    ----------
    evaluator : Evaluator
        Any; a subclass of pyspark.ml's may measure something else, so it is another evaluator.
    columns : Columns
        What the rows were read from.
    """
    make = _MEASURES.get(_kind(evaluator))
    if make is None:
        return None
    own: Any = evaluator
    weight = _weight(own)
    if own.getLabelCol() != columns.label:
        return None
    if weight and (weight != columns.weight or columns.class_weights is not None):
        return None
    if make is _binary and own.getNumBins() == 0:  # every score counts, and they may be as many as the rows
        return None
    return make(own, weight is not None)


def measure_on(evaluator: Evaluator, rows: Table) -> float:
    """Return the metric of one of pyspark.ml's evaluators on a table's scored rows.

    Raises
    ------
    SchemaError
        Where a column is missing.
    DataError
        Where there are no rows, a value is null, or no row has the label of the metric.
    """
    own: Any = evaluator
    weight, label = _weight(own), own.getLabelCol()
    measure = _MEASURES[_kind(evaluator)](own, weight is not None)
    if measure is None:
        raise _unknown(own)
    schema = spark_schema(rows.schema)
    for role, name in (("label", label), ("weight", weight), ("evaluated", measure.column)):
        if name is not None:
            (column_type if role == "evaluated" else number_type)(schema, name, role)
    tally = measure.tally()
    first = Judged(tally, measure.column, 1 if isinstance(tally, ScoreTally) else None)
    found = tallied(rows, label, weight, {"evaluated": first})["evaluated"]
    if isinstance(found, ScoreTally):
        found = completed(rows, label, weight, replace(first, tally=found))
    value = measure.value(found)
    if value is None and own.getMetricName() in _BY_LABEL:
        raise DataError(f"no row has the label {own.getMetricLabel():g} of metricName={own.getMetricName()!r}.")
    if value is None:
        raise _unknown(own)
    return value


def check_two_classes(evaluator: Evaluator, schema: StructType) -> None:
    """Refuse curves of a label that is known to have more than two classes, as StringIndexer notes it.

    Raises
    ------
    IncompatibleError
        Naming the column.
    """
    own: Any = evaluator
    if _MEASURES.get(_kind(evaluator)) is not _binary or own.getLabelCol() not in schema.names:
        return
    known = schema[own.getLabelCol()].metadata.get("ml_attr", {})
    classes = known.get("num_vals") or len(known.get("vals", ()))
    if classes > 2:
        raise IncompatibleError(f"label column {own.getLabelCol()!r} has {classes} classes: {OF_TWO}")


def _unknown(evaluator: Any) -> ParameterError:
    return ParameterError(f"metricName={evaluator.getMetricName()!r} is not known to {_kind(evaluator).__name__}.")


def _kind(evaluator: Evaluator) -> type:
    """Return pyspark.ml's class of an evaluator, also where sparkopt's stands in place of it."""
    kind: type = vars(type(evaluator)).get("in_place_of", type(evaluator))
    return kind


def _weight(evaluator: Any) -> str | None:
    return (evaluator.getWeightCol() or None) if evaluator.isDefined(evaluator.weightCol) else None


def _binary(evaluator: BinaryClassificationEvaluator, weighs: bool) -> Measure | None:
    bins, draw = evaluator.getNumBins(), _CURVES.get(evaluator.getMetricName())
    if draw is None:
        return None
    # pyspark.ml counts every score where there are fewer than two for each bin
    return Measure(
        evaluator.getRawPredictionCol(),
        weighs,
        lambda: ScoreTally(2 * bins if bins else sys.maxsize),
        lambda tally: area_under(draw(ScoreCounts(*tally.cumulative()))),
    )


_CURVES: Mapping[str, Callable[[ScoreCounts], Any]] = {
    "areaUnderROC": lambda counts: counts.roc,
    "areaUnderPR": lambda counts: counts.pr,
}


def _multiclass(evaluator: MulticlassClassificationEvaluator, weighs: bool) -> Measure | None:
    name: str = evaluator.getMetricName()
    beta, label = evaluator.getBeta(), evaluator.getMetricLabel()
    if name == "logLoss":
        eps = evaluator.getEps()
        return Measure(evaluator.getProbabilityCol(), weighs, lambda: LogLossTally(eps), LogLossTally.mean)
    over_all, by_label = _OVER_ALL.get(name), _BY_LABEL.get(name)

    def value(tally: ClassTally) -> float | None:
        counts = ClassCounts.of(tally)
        if over_all is not None:
            return over_all(counts, beta)
        at = np.flatnonzero(counts.labels == label)
        return float(by_label(counts, beta)[at[0]]) if by_label is not None and len(at) else None

    return Measure(evaluator.getPredictionCol(), weighs, ClassTally, value)


_OVER_ALL: Mapping[str, Callable[[ClassCounts, float], float]] = {
    "f1": lambda counts, _: counts.weighted(counts.f_measure(1.0)),
    "accuracy": lambda counts, _: counts.accuracy,
    "hammingLoss": lambda counts, _: 1.0 - counts.accuracy,
    "weightedPrecision": lambda counts, _: counts.weighted(counts.precision),
    "weightedRecall": lambda counts, _: counts.weighted(counts.recall),
    "weightedTruePositiveRate": lambda counts, _: counts.weighted(counts.recall),
    "weightedFalsePositiveRate": lambda counts, _: counts.weighted(counts.false_positive_rate),
    "weightedFMeasure": lambda counts, beta: counts.weighted(counts.f_measure(beta)),
}
_BY_LABEL: Mapping[str, Callable[[ClassCounts, float], Any]] = {
    "truePositiveRateByLabel": lambda counts, _: counts.recall,
    "falsePositiveRateByLabel": lambda counts, _: counts.false_positive_rate,
    "precisionByLabel": lambda counts, _: counts.precision,
    "recallByLabel": lambda counts, _: counts.recall,
    "fMeasureByLabel": lambda counts, beta: counts.f_measure(beta),
}


def _regression(evaluator: RegressionEvaluator, weighs: bool) -> Measure | None:
    name: str = evaluator.getMetricName()
    through_origin = bool(evaluator.getThroughOrigin())

    def value(tally: ResidualTally) -> float | None:
        if name == "r2":
            return tally.r2(through_origin=through_origin)
        if name == "var":
            return tally.prediction_spread / tally.weight
        return {"rmse": tally.rmse, "mse": tally.mse, "mae": tally.mae}.get(name)

    return Measure(evaluator.getPredictionCol(), weighs, ResidualTally, value)


_MEASURES: Mapping[type, Callable[[Any, bool], Measure | None]] = {
    BinaryClassificationEvaluator: _binary,
    MulticlassClassificationEvaluator: _multiclass,
    RegressionEvaluator: _regression,
}

"""Metrics of a model on rows, those of pyspark.ml's evaluators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyspark.ml import Model
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.columns import column_type, quoted
from sparkopt.errors import DataError, SchemaError
from sparkopt.ml.metrics.counts import ClassCounts, ScoreCounts, area_under
from sparkopt.ml.metrics.rows import tallies_of, tally_scores
from sparkopt.ml.metrics.tallies import ClassTally, LogLossTally, ResidualTally, ScoreTally, Tally
from sparkopt.report.facts import Measure

__all__ = [
    "LOWER_IS_BETTER",
    "NAMES",
    "ScoredRows",
    "default_metric",
    "is_classifier",
    "measures",
    "metrics_of",
    "scored",
]

NAMES = ("accuracy", "f1", "logLoss", "areaUnderROC", "rmse", "r2", "mae")
LOWER_IS_BETTER = ("logLoss", "rmse", "mae")
BINS, EPS = 1000, 1e-15
"""As in pyspark.ml's evaluators: thresholds of a curve, and the least probability that counts."""


def is_classifier(model: Model) -> bool:
    """Whether the model predicts classes."""
    task = getattr(model, "task", None)  # networks have every column parameter; their task says what the output means
    return task in ("classes", "binary") if task is not None else model.hasParam("rawPredictionCol")


def default_metric(model: Model) -> str:
    """Return the metric that a gate compares where none is named."""
    return "accuracy" if is_classifier(model) else "rmse"


@dataclass(frozen=True)
class ScoredRows:
    """Rows with a model's predictions.

    Attributes
    ----------
    table : DataFrame
        label, weight, prediction, probability and rawPrediction, where these columns exist; cached.
    is_classifier : bool
        Whether predictions are classes.
    """

    table: DataFrame
    is_classifier: bool

    def metrics(self) -> dict[str, float]:
        """Return the number of ``rows`` and the metrics.

        Returns
        -------
        dict
            For a classifier accuracy, f1 (weighted by class), logLoss where it predicts probabilities, and
            areaUnderROC where it has two classes; otherwise rmse, r2 and mae.

        Raises
        ------
        DataError
            Where there are no rows, or a row has no label.
        """
        table = self.table
        count, labelled = table.agg(F.count("*"), F.count("label")).collect()[0]
        if count == 0:
            raise DataError("there are no rows to evaluate on.")
        if labelled < count:
            raise DataError(f"{count - labelled} of {count} rows have no label. Filter or repair such rows.")
        weight = F.col("weight") if "weight" in table.columns else F.lit(1.0)
        judged = self._judged()
        found: dict[str, Any] = dict(tallies_of(table, F.col("label"), weight, judged))
        metrics: dict[str, float] = {"rows": count}
        if not self.is_classifier:
            residuals: ResidualTally = found["residuals"]
            return {**metrics, "rmse": residuals.rmse, "r2": residuals.r2(), "mae": residuals.mae}
        counts = ClassCounts.of(found["classes"])
        metrics |= {"accuracy": counts.accuracy, "f1": counts.weighted(counts.f_measure(1.0))}
        if "shares" in found:
            metrics["logLoss"] = found["shares"].mean()
        if "scores" in found:
            scores = tally_scores(table, F.col("label"), weight, judged["scores"][0], found["scores"])
            metrics["areaUnderROC"] = area_under(ScoreCounts(*scores.cumulative()).roc)
        return metrics

    def _judged(self) -> dict[str, tuple[Column, Tally]]:
        """Return the columns that metrics are computed from, with empty tallies."""
        columns, prediction = self.table.columns, F.col("prediction")
        if not self.is_classifier:
            return {"residuals": (prediction, ResidualTally())}
        judged: dict[str, tuple[Column, Tally]] = {"classes": (prediction, ClassTally())}
        if "probability" in columns:
            judged["shares"] = (vector_to_array(F.col("probability"))[F.col("label").cast("int")], LogLossTally(EPS))
        if "rawPrediction" in columns and len(self.table.first()["rawPrediction"]) == 2:  # type: ignore[index]
            judged["scores"] = (vector_to_array(F.col("rawPrediction"))[1], ScoreTally(2 * BINS))
        return judged


@contextmanager
def scored(model: Model, rows: DataFrame, label: str, weight: str | None = None) -> Iterator[ScoredRows]:
    """Yield rows with a model's predictions, computed once and cached.

    Parameters
    ----------
    model : Model
        The model.
    rows : DataFrame
        Rows with the model's features.
    label : str
        Target column.
    weight : str or None, default None
        Column of row weights.

    Raises
    ------
    SchemaError
        For a missing column.
    """
    column_type(rows.schema, label, "label")
    wanted = [F.col(quoted(label)).cast("double").alias("label")]
    if weight is not None:
        column_type(rows.schema, weight, "weight")
        wanted.append(F.col(quoted(weight)).cast("double").alias("weight"))
    found = model.transform(rows)
    outputs = [name for name in ("prediction", "probability", "rawPrediction") if model.hasParam(f"{name}Col")]
    columns = {name: model.getOrDefault(f"{name}Col") for name in outputs}
    present = [F.col(quoted(column)).alias(name) for name, column in columns.items() if column in found.columns]
    if "prediction" not in columns or columns["prediction"] not in found.columns:
        raise SchemaError("the model's predictionCol is empty: there is nothing to evaluate.")
    table = found.select(*wanted, *present).cache()
    try:
        yield ScoredRows(table, is_classifier(model))
    finally:
        table.unpersist()


def metrics_of(model: Model, rows: DataFrame, label: str, weight: str | None = None) -> dict[str, float]:
    """Return the number of rows and the metrics of a model, as ``ScoredRows.metrics`` does."""
    with scored(model, rows, label, weight) as outcome:
        return outcome.metrics()


def measures(
    metrics: Mapping[str, float], *, where: str = "", baselines: Mapping[str, float] | None = None
) -> tuple[Measure, ...]:
    """Return metrics for a page; the number of rows comes last.

    Parameters
    ----------
    metrics : mapping
        The metrics, with ``rows``.
    where : str, default ""
        Prefix of their names.
    baselines : mapping or None, default None
        Metrics of the baseline.
    """
    found = [
        Measure(f"{where}{name}", value, "number", _comparison(name, baselines))
        for name, value in metrics.items()
        if name != "rows"
    ]
    return (*found, Measure(f"{where}rows", metrics["rows"], "count"))


def _comparison(name: str, baselines: Mapping[str, float] | None) -> str:
    return f"baseline {baselines[name]:.6g}" if baselines and name in baselines else ""

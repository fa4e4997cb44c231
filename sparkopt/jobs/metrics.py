"""Metrics of a model on rows, by pyspark.ml's own evaluators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.ml import Model
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.columns import column_type, quoted
from sparkopt.errors import DataError, SchemaError
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

CLASSIFICATION, REGRESSION = ("accuracy", "f1", "logLoss", "areaUnderROC"), ("rmse", "r2", "mae")
NAMES = (*CLASSIFICATION, *REGRESSION)
LOWER_IS_BETTER = ("logLoss", "rmse", "mae")


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
        weighted = {"weightCol": "weight"} if "weight" in table.columns else {}
        metrics: dict[str, float] = {"rows": count}
        if not self.is_classifier:
            for name in REGRESSION:
                metrics[name] = RegressionEvaluator(metricName=name, **weighted).evaluate(table)  # type: ignore[arg-type]
            return metrics
        for name in ("accuracy", "f1"):
            metrics[name] = MulticlassClassificationEvaluator(metricName=name, **weighted).evaluate(table)  # type: ignore[arg-type]
        if "probability" in table.columns:
            evaluator = MulticlassClassificationEvaluator(metricName="logLoss", **weighted)  # type: ignore[arg-type]
            metrics["logLoss"] = evaluator.evaluate(table)
        if "rawPrediction" in table.columns and len(table.first()["rawPrediction"]) == 2:  # type: ignore[index]
            metrics["areaUnderROC"] = BinaryClassificationEvaluator(**weighted).evaluate(table)  # type: ignore[arg-type]
        return metrics


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

"""Metrics of a model on rows, by pyspark.ml's own evaluators."""

from __future__ import annotations

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

__all__ = ["LOWER_IS_BETTER", "NAMES", "default_metric", "is_classifier", "metrics_of"]

CLASSIFICATION, REGRESSION = ("accuracy", "f1", "logLoss", "areaUnderROC"), ("rmse", "r2", "mae")
NAMES = (*CLASSIFICATION, *REGRESSION)
LOWER_IS_BETTER = ("logLoss", "rmse", "mae")


def is_classifier(model: Model) -> bool:
    """Whether the model predicts classes."""
    task = getattr(model, "task", None)  # a network has all columns' parameters, and says what its output means
    return task in ("classes", "binary") if task is not None else model.hasParam("rawPredictionCol")


def default_metric(model: Model) -> str:
    """Return the metric that a gate looks at where none is named."""
    return "accuracy" if is_classifier(model) else "rmse"


def metrics_of(model: Model, rows: DataFrame, label: str, weight: str | None = None) -> dict[str, float]:
    """Return rows and metrics of a model.

    Parameters
    ----------
    model : Model
        The model.
    rows : DataFrame
        With its features.
    label : str
        The target.
    weight : str or None, default None
        Row weights.

    Returns
    -------
    dict
        ``rows``; of a classifier accuracy, f1 (weighted by class), logLoss where it gives probabilities, and
        areaUnderROC where it has two classes; else rmse, r2 and mae.

    Raises
    ------
    SchemaError
        For a missing column.
    DataError
        Where there are no rows, or a row has no label.
    """
    column_type(rows.schema, label, "label")
    wanted = [F.col(quoted(label)).cast("double").alias("label")]
    if weight is not None:
        column_type(rows.schema, weight, "weight")
        wanted.append(F.col(quoted(weight)).cast("double").alias("weight"))
    scored = model.transform(rows)
    outputs = [name for name in ("prediction", "probability", "rawPrediction") if model.hasParam(f"{name}Col")]
    found = {name: model.getOrDefault(f"{name}Col") for name in outputs}
    present = [F.col(quoted(column)).alias(name) for name, column in found.items() if column in scored.columns]
    if "prediction" not in found or found["prediction"] not in scored.columns:
        raise SchemaError("the model's predictionCol is empty: there is nothing to evaluate.")
    table = scored.select(*wanted, *present).cache()
    try:
        return _measure(table, is_classifier=is_classifier(model), weight=weight)
    finally:
        table.unpersist()


def _measure(table: DataFrame, *, is_classifier: bool, weight: str | None) -> dict[str, float]:
    count, labelled = table.agg(F.count("*"), F.count("label")).collect()[0]
    if count == 0:
        raise DataError("there are no rows to evaluate on.")
    if labelled < count:
        raise DataError(f"{count - labelled} of {count} rows have no label. Filter or repair such rows.")
    weighted = {} if weight is None else {"weightCol": "weight"}
    metrics: dict[str, float] = {"rows": count}
    if not is_classifier:
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

"""Charts of predictions for a job's page; each takes one or two Spark jobs with a small result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.columns import quoted
from sparkopt.report.facts import Bars, Chart, Lines, Matrix, Series

__all__ = ["class_charts", "histogram", "number_charts", "prediction_charts", "shortened"]

MOST_CLASSES = 20
"""Largest confusion matrix; with more classes the most frequent mistakes are shown instead."""
MOST_BARS = 12
ROC_POINTS = 200
SCATTERED = 400
LONGEST = 13
"""Longest label of a bar, in characters."""
DIAGONAL = Series("chance", (0.0, 1.0), (0.0, 1.0))


def class_charts(table: DataFrame, names: Sequence[str]) -> tuple[Chart, ...]:
    """Return the charts of a classifier's evaluation: a confusion matrix, and the ROC curve of two classes.

    Parameters
    ----------
    table : DataFrame
        Columns label and prediction, and probability or rawPrediction where the model has them.
    names : sequence of str
        Names of the classes 0, 1, …; empty where they have none.
    """
    grouped = table.groupBy("label", "prediction").count().orderBy(F.desc("count"), "label", "prediction")
    found = grouped.limit(MOST_CLASSES**2 + 1).collect()
    counts = {(row["label"], row["prediction"]): float(row["count"]) for row in found}
    classes = sorted({each for pair in counts for each in pair})
    charts: list[Chart] = [
        _confusion(counts, classes, names)
        if len(classes) <= MOST_CLASSES and len(found) <= MOST_CLASSES**2
        else _mistakes(counts, names)
    ]
    curve = _roc(table) if set(classes) <= {0.0, 1.0} else None
    return tuple(charts if curve is None else [*charts, curve])


def number_charts(table: DataFrame) -> tuple[Chart, ...]:
    """Return the charts of a regression's evaluation: predictions over true values, and a histogram of residuals.

    Parameters
    ----------
    table : DataFrame
        Columns label and prediction.
    """
    chosen = table.select("label", "prediction").orderBy(F.xxhash64("label", "prediction")).limit(SCATTERED).collect()
    true, predicted = [row["label"] for row in chosen], [row["prediction"] for row in chosen]
    ends = (min(true), max(true))
    title = "Predicted over true values" + (f" ({SCATTERED} rows)" if len(chosen) == SCATTERED else "")
    scatter = Lines(
        title,
        "true value",
        "number",
        (
            Series.of("rows", true, predicted, dots=True, joined=False),
            Series.of("perfect prediction", ends, ends),
        ),
    )
    spread = histogram(table, F.col("prediction") - F.col("label"), "Residuals: predicted less true value")
    return (scatter, *spread)


def prediction_charts(
    table: DataFrame, column: str, names: Sequence[str], *, is_classifier: bool
) -> tuple[Chart, ...]:
    """Return the charts of scoring: rows by predicted class, or a histogram of predictions.

    Parameters
    ----------
    table : DataFrame
        The predictions.
    column : str
        The column of predictions.
    names : sequence of str
        Names of the classes 0, 1, …; empty where they have none.
    is_classifier : bool
        Whether predictions are classes.
    """
    number = F.col(quoted(column)).cast("double")
    if not is_classifier:
        return histogram(table, number, "Predictions")
    found = table.groupBy(number.alias("class")).count().orderBy(F.desc("count"), "class").limit(MOST_BARS).collect()
    labels = tuple(_name(row["class"], names) for row in found)
    title = "Rows by predicted class" + (f", the {MOST_BARS} most frequent" if len(found) == MOST_BARS else "")
    return (Bars(title, "count", labels, (("", tuple(float(row["count"]) for row in found)),)),)


def histogram(table: DataFrame, column: Column, title: str) -> tuple[Bars, ...]:
    """Return a histogram with bins of equal width; none where no value is finite."""
    values = table.select(column.cast("double").alias("value"))
    finite = values.where("abs(value) < double('inf')")  # false for NaN, Spark's greatest number
    low, high, rows = finite.agg(F.min("value"), F.max("value"), F.count("value")).collect()[0]
    if not rows:
        return ()
    if low == high:
        return (Bars(title, "count", (f"{low:.5g}",), (("", (float(rows),)),)),)
    width = (high - low) / MOST_BARS
    index = F.least(F.floor((F.col("value") - low) / width), F.lit(MOST_BARS - 1)).alias("bin")
    counts = {row["bin"]: float(row["count"]) for row in finite.groupBy(index).count().collect()}
    digits = max(0, 1 - math.floor(math.log10(width)))
    labels = tuple(f"from {_number(low + i * width, digits)}" for i in range(MOST_BARS))
    return (Bars(title, "count", labels, (("", tuple(counts.get(i, 0.0) for i in range(MOST_BARS))),)),)


def _confusion(counts: Mapping[tuple[float, float], float], classes: Sequence[float], names: Sequence[str]) -> Matrix:
    shown = tuple(_name(each, names, 6) for each in classes)
    values = tuple(tuple(counts.get((true, predicted), 0.0) for predicted in classes) for true in classes)
    return Matrix("Rows by true and predicted class", "true", "predicted", shown, shown, values)


def _mistakes(counts: Mapping[tuple[float, float], float], names: Sequence[str]) -> Bars:
    wrong = [(pair, count) for pair, count in counts.items() if pair[0] != pair[1]][:MOST_BARS]
    labels = tuple(f"{_name(true, names, 5)} → {_name(predicted, names, 5)}" for (true, predicted), _ in wrong)
    return Bars("Most frequent mistakes", "count", labels, (("", tuple(count for _, count in wrong)),))


def _roc(table: DataFrame) -> Lines | None:
    """Return the true over the false positive rate at quantiles of the score; None where a class has no rows."""
    column = next((name for name in ("probability", "rawPrediction") if name in table.columns), None)
    if column is None:
        return None
    is_vector = isinstance(table.schema[column].dataType, VectorUDT)
    score = (vector_to_array(F.col(column)) if is_vector else F.col(column))[1]
    scored = table.select("label", score.alias("score"))
    shares = [i / ROC_POINTS for i in range(1, ROC_POINTS)]
    edges = sorted(set(scored.agg(F.percentile_approx("score", shares)).collect()[0][0] or []))
    above = F.size(F.filter(F.lit(edges), lambda edge: edge < F.col("score"))) if edges else F.lit(0)
    grouped = scored.groupBy(above.alias("above")).agg(F.sum("label").alias("positive"), F.count("*").alias("rows"))
    found = sorted(grouped.collect(), key=lambda row: -row["above"])
    positive = [0.0, *accumulate(row["positive"] for row in found)]
    negative = [0.0, *accumulate(row["rows"] - row["positive"] for row in found)]
    if not positive[-1] or not negative[-1]:
        return None
    rates = [[value / side[-1] for value in side] for side in (negative, positive)]
    curve = Series.of("the model", *rates)
    return Lines("ROC: true over false positive rate", "false positive rate", "number", (curve, DIAGONAL))


def _name(number: float | None, names: Sequence[str], longest: int = LONGEST) -> str:
    """Return a class's name, shortened to ``longest`` characters."""
    if number is None or math.isnan(number):
        return "none"
    known = number >= 0 and number.is_integer() and number < len(names)
    return shortened(names[int(number)] if known else f"{number:g}", longest)


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a label, shortened to ``longest`` characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _number(value: float, digits: int) -> str:
    """Return a number with so many digits after the point; in scientific notation where there would be many."""
    value = round(value, digits) + 0.0  # removes the sign of zero
    return f"{value:.{digits}f}" if digits <= 4 and abs(value) < 1e6 else f"{value:.2g}"

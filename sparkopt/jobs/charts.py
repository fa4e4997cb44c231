"""Charts of predictions for a job's page, of aggregates with a small result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from sparkopt.jobs.runtimes.values import Pair, RowValues
from sparkopt.report.facts import Bars, Chart, Lines, Listing, Matrix, Series

__all__ = [
    "class_balance",
    "class_charts",
    "coefficients",
    "evaluation_charts",
    "histogram",
    "number_charts",
    "prediction_charts",
    "shortened",
]

MOST_CLASSES = 20
"""Largest confusion matrix; with more classes the most frequent mistakes are shown instead."""
MOST_BARS = 12
MOST_COEFFICIENTS = 20
ROC_POINTS = 200
SCATTERED = 400
LONGEST = 13
"""Longest label of a bar, in characters."""
DIAGONAL = Series("chance", (0.0, 1.0), (0.0, 1.0))


def class_balance(rows: RowValues, names: Sequence[str], title: str = "Rows by class") -> Bars:
    """Return how many rows have each class, the most frequent ones first.

    Parameters
    ----------
    rows : RowValues
        label.
    names : sequence of str
        Names of the classes 0, 1, …; empty where they have none.
    title : str, default "Rows by class"
        Its title.
    """
    found = rows.counts("label", limit=MOST_BARS)
    more = f", the {MOST_BARS} most frequent" if len(found) == MOST_BARS else ""
    return Bars(
        title + more, "count", tuple(_name(number, names) for (number,) in found), (("", tuple(found.values())),)
    )


def coefficients(model: Any, names: Sequence[str]) -> Listing:
    """Return a linear model's largest coefficients, with the names of their features.

    Parameters
    ----------
    model : LinearModel
        The model.
    names : sequence of str
        Names of the classes 0, 1, …; empty where they have none.
    """
    matrix, intercept = model.arrays
    intercepts = [f"{value:.6g}" for value in intercept[:MOST_CLASSES]]
    several = len(intercepts) > 1
    rows = [
        (one.feature, *([_name(float(one.output), names)] if several else []), f"{one.value:.6g}")
        for one in model._largest(MOST_COEFFICIENTS)  # a wide model has millions
    ]
    zeros = matrix.size - np.count_nonzero(matrix)
    title = "Coefficients" + (", the largest of them" if matrix.size > len(rows) else ", the largest first")
    plural = "intercepts" if several else "intercept"
    note = f"{matrix.size:,} coefficients, {zeros:,} of them 0; {plural} {', '.join(intercepts)}"
    return Listing(title, ("feature", *(["class"] if several else []), "coefficient"), tuple(rows), note)


def evaluation_charts(
    rows: RowValues, names: Sequence[str], *, is_classifier: bool, balance: str = "Rows by class"
) -> tuple[Chart, ...]:
    """Return the charts of an evaluation: `class_balance` and `class_charts`, or `number_charts`.

    Parameters
    ----------
    rows : RowValues
        What these charts need.
    names : sequence of str
        Names of the classes 0, 1, …; empty where they have none.
    is_classifier : bool
        Whether predictions are classes.
    balance : str, default "Rows by class"
        Title of the class balance.
    """
    if not is_classifier:
        return number_charts(rows)
    return (class_balance(rows, names, balance), *class_charts(rows, names))


def class_charts(rows: RowValues, names: Sequence[str]) -> tuple[Chart, ...]:
    """Return the charts of a classifier's evaluation: a confusion matrix, and the ROC curve of two classes.

    Parameters
    ----------
    rows : RowValues
        label and prediction, and score where the model has probabilities or raw predictions.
    names : sequence of str
        Names of the classes 0, 1, …; empty where they have none.
    """
    counts = rows.counts("label", "prediction", limit=MOST_CLASSES**2 + 1)
    classes = sorted({each for pair in counts for each in pair})
    charts: list[Chart] = [
        _confusion(counts, classes, names)
        if len(classes) <= MOST_CLASSES and len(counts) <= MOST_CLASSES**2
        else _mistakes(counts, names)
    ]
    curve = _roc(rows) if set(classes) <= {0.0, 1.0} else None
    return tuple(charts if curve is None else [*charts, curve])


def number_charts(rows: RowValues) -> tuple[Chart, ...]:
    """Return the charts of a regression's evaluation: predictions over true values, and a histogram of residuals.

    Parameters
    ----------
    rows : RowValues
        label, prediction and residual.
    """
    chosen = rows.sample("label", "prediction", count=SCATTERED)
    true, predicted = [row[0] for row in chosen], [row[1] for row in chosen]
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
    spread = histogram(rows, "residual", "Residuals: predicted less true value")
    return (scatter, *spread)


def prediction_charts(rows: RowValues, names: Sequence[str], *, is_classifier: bool) -> tuple[Chart, ...]:
    """Return the charts of scoring: rows by predicted class, or a histogram of predictions.

    Parameters
    ----------
    rows : RowValues
        prediction.
    names : sequence of str
        Names of the classes 0, 1, …; empty where they have none.
    is_classifier : bool
        Whether predictions are classes.
    """
    if not is_classifier:
        return histogram(rows, "prediction", "Predictions")
    found = rows.counts("prediction", limit=MOST_BARS)
    labels = tuple(_name(number, names) for (number,) in found)
    title = "Rows by predicted class" + (f", the {MOST_BARS} most frequent" if len(found) == MOST_BARS else "")
    return (Bars(title, "count", labels, (("", tuple(found.values())),)),)


def histogram(rows: RowValues, name: str, title: str) -> tuple[Bars, ...]:
    """Return a histogram with bins of equal width; none where no value is finite."""
    low, high, count = rows.extent(name)
    if not count:
        return ()
    if low == high:
        return (Bars(title, "count", (f"{low:.5g}",), (("", (float(count),)),)),)
    width = (high - low) / MOST_BARS
    counts = rows.bins(name, low, width, MOST_BARS)
    digits = max(0, 1 - math.floor(math.log10(width)))
    labels = tuple(f"from {_number(low + i * width, digits)}" for i in range(MOST_BARS))
    return (Bars(title, "count", labels, (("", tuple(counts.get(i, 0.0) for i in range(MOST_BARS))),)),)


def _confusion(counts: Mapping[Pair, float], classes: Sequence[float], names: Sequence[str]) -> Matrix:
    shown = tuple(_name(each, names, 6) for each in classes)
    values = tuple(tuple(counts.get((true, predicted), 0.0) for predicted in classes) for true in classes)
    return Matrix("Rows by true and predicted class", "true", "predicted", shown, shown, values)


def _mistakes(counts: Mapping[Pair, float], names: Sequence[str]) -> Bars:
    wrong = [(pair, count) for pair, count in counts.items() if pair[0] != pair[1]][:MOST_BARS]
    labels = tuple(f"{_name(true, names, 5)} → {_name(predicted, names, 5)}" for (true, predicted), _ in wrong)
    return Bars("Most frequent mistakes", "count", labels, (("", tuple(count for _, count in wrong)),))


def _roc(rows: RowValues) -> Lines | None:
    """Return the true over the false positive rate at quantiles of the score; None where a class has no rows."""
    if "score" not in rows.names:
        return None
    edges = sorted(set(rows.quantiles("score", [i / ROC_POINTS for i in range(1, ROC_POINTS)])))
    found = rows.above("score", "label", edges)
    positive = [0.0, *accumulate(sum_ for sum_, _ in found)]
    negative = [0.0, *accumulate(count - sum_ for sum_, count in found)]
    if not positive[-1] or not negative[-1]:
        return None
    rates = [[value / side[-1] for value in side] for side in (negative, positive)]
    curve = Series.of("the model", *rates)
    return Lines("ROC: true over false positive rate", "false positive rate", "number", (curve, DIAGONAL))


def _name(number: float, names: Sequence[str], longest: int = LONGEST) -> str:
    """Return a class's name, shortened to ``longest`` characters."""
    if math.isnan(number):
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

"""Charts of predictions agree with other libraries on the same rows; Spark and this machine give the same figures."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import auc, confusion_matrix, roc_auc_score

from sparkopt.jobs.charts import (
    MOST_BARS,
    class_balance,
    class_charts,
    coefficients,
    histogram,
    number_charts,
    prediction_charts,
)
from sparkopt.jobs.metrics import ScoredRows
from sparkopt.jobs.runtimes.values import ArrayValues
from sparkopt.ml import LinearRegressionModel, LogisticRegressionModel
from sparkopt.ml.metrics.tallies import ClassTally, LogLossTally, ResidualTally, ScoreTally
from sparkopt.report.facts import Bars, Matrix

ROWS = 3000


@pytest.fixture(scope="module")
def columns():
    """Scores of two overlapping classes, a third class, and numbers."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, ROWS).astype(float)
    score = 1 / (1 + np.exp(-(rng.normal(size=ROWS) + 2 * label - 1)))
    other = np.where(rng.random(ROWS) < 0.2, 2.0, label)
    number = rng.normal(3, 5, ROWS)
    return {"label": label, "score": score, "prediction": (score > 0.5) + 0.0, "other": other, "number": number}


def test_two_classes(columns):
    """As in scikit-learn: every count of the matrix, and the area under the curve but for its 199 quantiles."""
    matrix, curve = class_charts(ArrayValues(columns), ["no", "a name that is long"])
    assert matrix.rows == matrix.columns == ("no", "a nam…")
    np.testing.assert_array_equal(matrix.values, confusion_matrix(columns["label"], columns["prediction"]))
    model, chance = curve.series
    assert (model.x[0], model.y[0], model.x[-1], model.y[-1]) == (0, 0, 1, 1)
    assert auc(model.x, model.y) == pytest.approx(roc_auc_score(columns["label"], columns["score"]), abs=1e-3)
    assert chance.x == chance.y == (0, 1)


def test_more_classes_and_only_one(columns):
    three = ArrayValues({"label": columns["other"], "prediction": columns["prediction"]})
    (matrix,) = class_charts(three, [])
    assert matrix.rows == ("0", "1", "2")
    np.testing.assert_array_equal(matrix.values, confusion_matrix(columns["other"], columns["prediction"]))
    chosen = (columns["label"] == 1) & (columns["prediction"] == 1)
    (matrix,) = class_charts(ArrayValues({name: values[chosen] for name, values in columns.items()}), [])
    assert isinstance(matrix, Matrix)  # no curve: there is only one class


def test_the_balance_of_classes(columns):
    bars = class_balance(ArrayValues({"label": columns["other"]}), ["no", "yes"])
    found = {name: int(sum(columns["other"] == number)) for number, name in enumerate(["no", "yes", "2"])}
    assert dict(zip(bars.labels, bars.groups[0][1], strict=True)) == found
    assert list(bars.groups[0][1]) == sorted(found.values(), reverse=True)


def test_the_largest_coefficients_come_first():
    model = LinearRegressionModel(np.array([[0.5, 0.0, -3.0]]), np.array([1.5]))
    assert coefficients(model, []).rows == (("feature 2", "-3"), ("feature 0", "0.5"), ("feature 1", "0"))
    model._names = ("age", "town=Bonn", "size")
    listing = coefficients(model, [])
    assert [name for name, _ in listing.rows] == ["size", "age", "town=Bonn"]
    assert listing.note == "3 coefficients, 1 of them 0; intercept 1.5"
    several = LogisticRegressionModel(np.array([[1.0, -2.0], [0.0, 0.25]]), np.array([0.0, 1.0]))
    assert coefficients(several, ["no", "yes"]).rows[:2] == (("feature 1", "no", "-2"), ("feature 0", "no", "1"))
    wide = coefficients(LinearRegressionModel(np.arange(50.0)[None], np.zeros(1)), [])
    assert (len(wide.rows), wide.title) == (20, "Coefficients, the largest of them")


def test_of_many_classes_the_mistakes():
    pairs = np.array([(i % 30, (i % 30 + (i % 30 < 3)) % 30) for i in range(300)], float)
    rows = ArrayValues({"label": pairs[:, 0], "prediction": pairs[:, 1]})
    (bars,) = class_charts(rows, [f"class {i}" for i in range(30)])
    assert bars.labels == ("clas… → clas…",) * 3
    assert bars.groups == (("", (10.0, 10.0, 10.0)),)
    assert class_charts(rows, [])[0].labels == ("0 → 1", "1 → 2", "2 → 3")


def test_numbers(columns):
    number = columns["number"]
    scatter, bars = number_charts(ArrayValues({"label": number, "prediction": 2 * number, "residual": number}))
    points, line = scatter.series
    np.testing.assert_allclose(points.y, 2 * np.array(points.x))
    assert set(points.x) <= set(number)
    assert line.x == line.y == (min(points.x), max(points.x))
    np.testing.assert_array_equal(bars.groups[0][1], np.histogram(number, MOST_BARS)[0])


@pytest.mark.parametrize(
    ("values", "labels", "counts"),
    [
        ([0.0, 1.2, math.nan, math.inf, 0.05], "from 0.00", [2, *[0] * 10, 1]),
        ([7.25, 7.25], "7.25", [2]),
        ([math.nan, math.nan], None, None),
    ],
)
def test_a_histogram_is_of_finite_values(values, labels, counts):
    found = histogram(ArrayValues({"x": np.array(values)}), "x", "Values")
    assert [list(chart.groups[0][1]) for chart in found] == ([counts] if counts else [])
    assert [chart.labels[0] for chart in found] == ([labels] if labels else [])


def test_predicted_classes(columns):
    (bars,) = prediction_charts(ArrayValues({"prediction": columns["other"]}), ["a", "b"], is_classifier=True)
    values, counts = np.unique(columns["other"], return_counts=True)
    expected = sorted(zip(-counts, values, strict=True))
    assert isinstance(bars, Bars)
    assert bars.labels == tuple(["a", "b", "2"][int(value)] for _, value in expected)
    assert bars.groups[0][1] == tuple(float(-count) for count, _ in expected)


def test_spark_gives_the_same_figures(spark, columns):
    """Every aggregate of a DataFrame is that of its arrays; of null, NaN and infinity too."""
    from pyspark.sql import functions as F

    from sparkopt.jobs.runtimes.spark_values import SparkValues

    odd = columns["number"].copy()
    odd[:3] = (math.nan, math.inf, -math.inf)
    arrays = {**columns, "odd": odd}
    df = spark.createDataFrame([tuple(map(float, row)) for row in zip(*arrays.values(), strict=True)], list(arrays))
    here, there = ArrayValues(arrays), SparkValues(df, {name: F.col(name) for name in arrays})
    assert here.present("label") == there.present("label") == (ROWS, ROWS)
    assert here.counts("other", "prediction", limit=4) == there.counts("other", "prediction", limit=4)
    assert here.sample("label", "number", count=50) == there.sample("label", "number", count=50)
    low, high, rows = here.extent("odd")
    assert (low, high, rows) == there.extent("odd")
    assert rows == ROWS - 3
    width = (high - low) / 7
    assert here.bins("odd", low, width, 7) == there.bins("odd", low, width, 7)
    edges = here.quantiles("score", [0.25, 0.5, 0.75])
    assert edges == pytest.approx(there.quantiles("score", [0.25, 0.5, 0.75]), abs=2e-3)
    assert here.above("score", "label", edges) == there.above("score", "label", edges)

    def judged():
        return {
            "classes": ("prediction", ClassTally()),
            "shares": ("score", LogLossTally(1e-15)),
            "scores": ("score", ScoreTally(2 * ROWS)),
            "residuals": ("number", ResidualTally()),
        }

    one, other = here.tallies("label", None, judged()), there.tallies("label", None, judged())
    assert one["classes"].pairs == other["classes"].pairs
    assert one["shares"].mean() == pytest.approx(other["shares"].mean(), rel=1e-12)
    assert one["residuals"].rmse == pytest.approx(other["residuals"].rmse, rel=1e-12)
    for found, expected in zip(one["scores"].cumulative(), other["scores"].cumulative(), strict=True):
        np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("predicted", "said"),
    [
        (
            [0, 0, 0, 0],
            "always predicting class no, which 75.0% of the rows have: its accuracy is 75.0%",
        ),
        ([0, 0, 0, 1], ""),
        ([1, 1, 1, 1], "its accuracy is 25.0%"),
    ],
)
def test_a_classifier_of_no_use_is_named(predicted, said):
    label = np.array([0.0, 0.0, 0.0, 1.0])
    rows = ScoredRows(ArrayValues({"label": label, "prediction": np.array(predicted, float)}), is_classifier=True)
    found = rows.warnings(rows.metrics(), ["no", "yes"])
    assert (said in found[0]) if said else not found


@pytest.mark.parametrize(("predicted", "is_useless"), [([2.0, 2.0, 2.0], True), ([1.0, 2.0, 3.0], False)])
def test_a_regression_of_no_use_is_named(predicted, is_useless):
    label = np.array([1.0, 2.0, 3.0])
    rows = ScoredRows(ArrayValues({"label": label, "prediction": np.array(predicted)}), is_classifier=False)
    assert bool(rows.warnings(rows.metrics())) is is_useless


COUNTED = {
    "classes": [[0, 1, 1, 2, 1, -0.0], [3, 0, 0, 3, 1, 3]],
    "numbers": [[0.5, 1, 1, 0.5, 1, 0.5], [3, 0, 0, 3, 1, 3]],
    "negative numbers": [[-1, 1, 1, -1, 1, -1], [3, 0, 0, 3, 1, 3]],
    "large numbers": [[1e15, 1, 1, 1e15, 1, 1e15], [3, 0, 0, 3, 1, 3]],
    "nothing": [[], []],
}


@pytest.mark.parametrize("kind", COUNTED)
def test_tuples_of_values_are_counted(kind):
    one, other = (np.array(values, np.float64) for values in COUNTED[kind])
    expected = Counter(zip(one.tolist(), other.tolist(), strict=True))
    found = ArrayValues({"one": one, "other": other}).counts("one", "other", limit=9)
    assert found == expected
    assert list(found.values()) == sorted(expected.values(), reverse=True)

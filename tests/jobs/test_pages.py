"""The page of every job: its charts agree with other libraries on the same rows, and a browser shows all of it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from pyspark.ml.functions import array_to_vector
from pyspark.sql import functions as F
from sklearn.metrics import auc, confusion_matrix, roc_auc_score

from sparkopt.jobs import cli
from sparkopt.jobs.charts import MOST_BARS, class_charts, histogram, number_charts, prediction_charts
from sparkopt.ml import LinearRegression
from sparkopt.report.facts import Bars, Matrix
from tests.report import browser

ROWS = 3000


@pytest.fixture(scope="module")
def scores(spark):
    """Scores of two overlapping classes, a third class, and numbers; in memory and as a DataFrame."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, ROWS).astype(float)
    score = 1 / (1 + np.exp(-(rng.normal(size=ROWS) + 2 * label - 1)))
    other = np.where(rng.random(ROWS) < 0.2, 2.0, label)
    number = rng.normal(3, 5, ROWS)
    columns = {"label": label, "score": score, "prediction": (score > 0.5) + 0.0, "other": other, "number": number}
    names = list(columns)
    rows = spark.createDataFrame([tuple(map(float, row)) for row in zip(*columns.values(), strict=True)], names)
    both = F.array(1 - F.col("score"), "score")
    yield columns, rows.withColumn("probability", array_to_vector(both)).cache()
    spark.catalog.clearCache()


def test_two_classes(scores):
    columns, rows = scores
    matrix, curve = class_charts(rows, ["no", "a name that is long"])
    assert matrix.rows == matrix.columns == ("no", "a nam…")
    np.testing.assert_array_equal(matrix.values, confusion_matrix(columns["label"], columns["prediction"]))
    model, chance = curve.series
    assert (model.x[0], model.y[0], model.x[-1], model.y[-1]) == (0, 0, 1, 1)
    assert auc(model.x, model.y) == pytest.approx(roc_auc_score(columns["label"], columns["score"]), abs=1e-3)
    assert chance.x == chance.y == (0, 1)


def test_more_classes_and_only_one(scores):
    columns, rows = scores
    (matrix,) = class_charts(rows.drop("probability").withColumn("label", F.col("other")), [])
    assert matrix.rows == ("0", "1", "2")
    np.testing.assert_array_equal(matrix.values, confusion_matrix(columns["other"], columns["prediction"]))
    (matrix,) = class_charts(rows.where("label = 1 and prediction = 1"), [])
    assert isinstance(matrix, Matrix)  # no curve: there is only one class


def test_of_many_classes_the_mistakes(spark):
    pairs = [(i % 30, (i % 30 + (i % 30 < 3)) % 30) for i in range(300)]
    rows = spark.createDataFrame([(float(a), float(b)) for a, b in pairs], ["label", "prediction"])
    (bars,) = class_charts(rows, [f"class {i}" for i in range(30)])
    assert bars.labels == ("clas… → clas…",) * 3
    assert bars.groups == (("", (10.0, 10.0, 10.0)),)
    assert class_charts(rows, [])[0].labels == ("0 → 1", "1 → 2", "2 → 3")


def test_numbers(scores):
    columns, rows = scores
    scatter, bars = number_charts(
        rows.withColumn("prediction", F.col("number") * 2).withColumn("label", F.col("number"))
    )
    points, line = scatter.series
    np.testing.assert_allclose(points.y, 2 * np.array(points.x))
    assert set(points.x) <= set(columns["number"])
    assert line.x == line.y == (min(points.x), max(points.x))
    np.testing.assert_array_equal(bars.groups[0][1], np.histogram(columns["number"], MOST_BARS)[0])


@pytest.mark.parametrize(
    ("values", "labels", "counts"),
    [
        ([0.0, 1.2, float("nan"), float("inf"), None, 0.05], "from 0.00", [2, *[0] * 10, 1]),
        ([7.25, 7.25], "7.25", [2]),
        ([float("nan"), None], None, None),
    ],
)
def test_a_histogram_is_of_finite_values(spark, values, labels, counts):
    rows = spark.createDataFrame([(value,) for value in values], "x double")
    found = histogram(rows, F.col("x"), "Values")
    assert [list(chart.groups[0][1]) for chart in found] == ([counts] if counts else [])
    assert [chart.labels[0] for chart in found] == ([labels] if labels else [])


def test_predicted_classes(scores):
    columns, rows = scores
    (bars,) = prediction_charts(rows, "other", ["a", "b"], is_classifier=True)
    values, counts = np.unique(columns["other"], return_counts=True)
    expected = sorted(zip(-counts, values, strict=True))
    assert isinstance(bars, Bars)
    assert bars.labels == tuple(["a", "b", "2"][int(value)] for _, value in expected)
    assert bars.groups[0][1] == tuple(float(-count) for count, _ in expected)


TRAIN = ["--features", "a,b", "--label", "c", "--loss", "logistic", "--reg-param", "0.05", "--tol", "1e-2"]
PAGES = {  # output: (charts, pictures, text of the page)
    "train": (3, 0, "held-out accuracy"),
    "gate": (2, 0, "Gate not met: accuracy"),
    "numbers": (2, 0, "baseline 100"),
    "scored": (1, 0, "rows a second"),
    "values": (1, 0, "400"),
    "images": (1, 1, "First"),
}


@pytest.fixture(scope="module")
def outputs(spark, table, digits, tmp_path_factory):
    """What each job leaves."""
    folder = tmp_path_factory.mktemp("outputs")

    def call(code: int, job: str, *flags: object) -> None:
        assert cli.main([job, *map(str, flags)]) == code

    rows = spark.read.parquet(table)
    LinearRegression(featuresCols=["a", "b"], labelCol="y", regParam=0.5).fit(rows).save(str(folder / "model"))
    (folder / "accepted.json").write_text('{"rmse": 100.0, "r2": 0.5}')
    (folder / "in").mkdir()
    for path in sorted((digits / "3").iterdir())[:7]:
        (folder / "in" / path.name).write_bytes(path.read_bytes())
    (folder / "in" / "odd {a} [b].png").write_bytes(path.read_bytes())
    (folder / "in" / "bad.png").write_bytes(b"no image")
    data = ["--parquet", table]
    call(0, "train", *data, *TRAIN, "--output", folder / "train")
    call(3, "evaluate", "--model", folder / "train", *data, "--min-value", "2", "--output", folder / "gate")
    accepted = ["--baseline", folder / "accepted.json"]
    call(0, "evaluate", "--model", folder / "model", *data, *accepted, "--output", folder / "numbers")
    call(0, "score", "--model", folder / "train", *data, "--output", folder / "scored")
    csv = ["--output-format", "csv"]
    call(0, "score", "--model", folder / "model", *data, *csv, "--output", folder / "values")
    small = ["--size", "16", "--parts", "1", "--encoding", "png"]
    call(0, "preprocess-images", "--input", folder / "in", *small, "--output", folder / "images")
    return folder


def page_of(folder):
    return next(path for path in folder.iterdir() if path.name in ("report.html", "_report.html"))


@pytest.mark.parametrize(("name", "expected"), PAGES.items(), ids=PAGES)
def test_every_job_leaves_a_page(outputs, name, expected):
    page = page_of(outputs / name)
    manifest = json.loads((outputs / name / page.name.replace("report.html", "manifest.json")).read_text())
    assert page.name in manifest["outputs"]
    text = page.read_text(encoding="utf-8")
    assert expected[2] in text
    assert re.search(rf"<pre>.*\nsparkopt {manifest['job']}\n.*  output .*{name}\n.*</pre>", text, re.DOTALL)
    assert text.count('<svg role="img"') == expected[0]
    assert text.count("<img ") == expected[1]


def test_samples_are_found_whatever_their_names_are(outputs):
    """Characters that are patterns elsewhere are only themselves."""
    report = json.loads((outputs / "images-report.json").read_text())
    assert (report["good"], sum(report["failures"].values())) == (8, 1)


@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it(tab, outputs, name):
    charts, pictures, _ = PAGES[name]
    browser.look(tab, page_of(outputs / name), charts, pictures)

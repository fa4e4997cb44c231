"""What comes after training: the gate, and predictions of any saved model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pyarrow.dataset import dataset
from pyspark.ml.evaluation import BinaryClassificationEvaluator, MulticlassClassificationEvaluator
from pyspark.ml.linalg import Vectors
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score

from sparkopt.errors import DataError
from sparkopt.jobs import cli
from sparkopt.jobs.evaluate import JOB, judge
from sparkopt.jobs.metrics import ScoredRows
from sparkopt.jobs.models import KINDS, load_model
from sparkopt.ml import LinearRegression, LogisticRegression


def call(*arguments: str) -> int:
    return cli.main([str(part) for part in arguments])


@pytest.fixture(scope="module")
def models(table, tmp_path_factory):
    """A classifier as the job leaves it, and a regression as ``save`` leaves it; on Spark where a session runs."""
    folder = tmp_path_factory.mktemp("models")
    flags = ["--features", "a,b", "--label", "c", "--loss", "logistic", "--reg-param", "0.05", "--tol", "1e-3"]
    assert call("train", "--parquet", table, *flags, "--output", folder / "classes") == 0
    LinearRegression(featuresCols=["a", "b"], labelCol="y", regParam=0.5).fit(table).save(str(folder / "numbers"))
    return folder


def test_metrics_are_those_of_scikit_learn(models, table, spark, tmp_path):
    assert call("evaluate", "--model", models / "classes", "--parquet", table, "--output", tmp_path / "c") == 0
    found = json.loads((tmp_path / "c" / "metrics.json").read_text())
    scored = load_model(spark, str(models / "classes")).transform(spark.read.parquet(table)).toPandas()
    second = np.array([vector[1] for vector in scored["probability"]])
    expected = {
        "rows": 400,
        "accuracy": (scored["prediction"] == scored["c"]).mean(),
        "logLoss": log_loss(scored["c"], second),
        "areaUnderROC": roc_auc_score(scored["c"], second),
    }
    assert {name: found["metrics"][name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert found["gate"]["metric"] == "accuracy"
    assert call("evaluate", "--model", models / "numbers", "--parquet", table, "--output", tmp_path / "n") == 0
    found = json.loads((tmp_path / "n" / "metrics.json").read_text())
    scored = load_model(spark, str(models / "numbers")).transform(spark.read.parquet(table)).toPandas()
    assert found["metrics"]["mae"] == pytest.approx(mean_absolute_error(scored["y"], scored["prediction"]))
    assert found["gate"]["metric"] == "rmse"


GATES = {
    "reached": ({"accuracy": 0.5}, [], 0, "gate met: accuracy"),
    "worse": ({"accuracy": 1.1}, [], 3, "is worse than the baseline's 1.1."),
    "within tolerance": ({"accuracy": 1.1}, ["--tolerance", "0.5"], 0, "gate met"),
    "beyond tolerance": ({"accuracy": 3.0}, ["--tolerance", "0.5"], 3, "with a tolerance of 0.5"),
    "lower is better": ({"logLoss": 1e-9}, ["--metric", "logLoss"], 3, "is worse than the baseline's 1e-09"),
    "lower is reached": ({"logLoss": 9.0}, ["--metric", "logLoss"], 0, "gate met: logLoss"),
    "too low": ({"accuracy": 0.1}, ["--min-value", "1.5"], 3, "is below --min-value 1.5"),
    "too high": ({"accuracy": 0.1}, ["--max-value", "0.1"], 3, "is above --max-value 0.1"),
    "no such metric": ({"accuracy": 0.1}, ["--metric", "rmse"], 1, "the model has no rmse. It has accuracy, f1"),
    "no such baseline": ({"f1": 0.1}, [], 1, "has no accuracy. It has f1."),
    "no baseline": (None, [], 1, "there is no baseline at"),
    "first run": (None, ["--baseline-optional"], 0, "there is no baseline yet"),
}


@pytest.fixture(scope="module")
def measured(models, table, tmp_path_factory):
    """The classifier's metrics, of one evaluation."""
    output = tmp_path_factory.mktemp("measured") / "out"
    assert call("evaluate", "--model", models / "classes", "--parquet", table, "--output", output) == 0
    return json.loads((output / "metrics.json").read_text())["metrics"]


MEASURED_AGAIN = ("reached", "worse")
"""The others judge the same figures, which needs no Spark job."""


@pytest.mark.parametrize("case", GATES)
def test_the_gate(models, table, measured, tmp_path, capsys, monkeypatch, case):
    """Exit code, one line with both numbers, and a verdict in metrics.json, met or not."""
    baseline, flags, code, message = GATES[case]
    if case not in MEASURED_AGAIN:
        monkeypatch.setattr(ScoredRows, "metrics", lambda self: dict(measured))
        monkeypatch.setattr("sparkopt.jobs.evaluate.evaluation_charts", lambda values, names, *, is_classifier: ())
    if baseline is not None:
        (tmp_path / "accepted").mkdir()
        (tmp_path / "accepted" / "metrics.json").write_text(json.dumps({"held_out": baseline}))
    where = ["--baseline", tmp_path / "accepted", "--output", tmp_path / "out"]
    assert call("evaluate", "--model", models / "classes", "--parquet", table, *where, *flags) == code
    captured = capsys.readouterr()
    assert message in (captured.err if code else captured.out)
    assert len(captured.err.splitlines()) == (1 if code else 0)
    if code == 1:
        assert not (tmp_path / "out").exists()
        return
    verdict = json.loads((tmp_path / "out" / "metrics.json").read_text())["gate"]
    assert verdict["passed"] is (code == 0)
    name = verdict["metric"]
    assert verdict["baseline"] == (baseline[name] if baseline else None)
    assert f"{verdict['value']:.6g}" in (captured.err if code else captured.out)
    status = json.loads((tmp_path / "out" / "manifest.json").read_text())["status"]
    assert status == ("complete" if code == 0 else "gate not met")


def test_a_metric_that_is_no_number_meets_no_gate():
    args = JOB.parser().read(["--parquet", "x"])
    gate = judge(args, "rmse", {"rows": 3, "rmse": float("nan")}, None)
    assert (gate.passed, gate.reason) == (False, "gate not met: rmse is not a number.")


def test_a_gate_that_was_not_met_stays_so(models, table, tmp_path, capsys):
    """A second run does not pass for one that is done already."""
    flags = ["--min-value", "1.5", "--output", tmp_path / "out"]
    for _ in range(2):
        assert call("evaluate", "--model", models / "classes", "--parquet", table, *flags) == 3
        assert "gate not met" in capsys.readouterr().err


def test_a_model_is_its_own_baseline(models, table, tmp_path):
    """Of a file, and of the output of an evaluation."""
    flags = ["--model", models / "classes", "--parquet", table]
    assert call("evaluate", *flags, "--output", tmp_path / "one") == 0
    baseline = ["--baseline", tmp_path / "one" / "metrics.json"]
    assert call("evaluate", *flags, *baseline, "--output", tmp_path / "two") == 0
    gate = json.loads((tmp_path / "two" / "metrics.json").read_text())["gate"]
    assert gate["value"] == gate["baseline"]


FORMATS = {"parquet": {}, "json": {}, "csv": {"header": True, "inferSchema": True}}


@pytest.mark.parametrize("form", FORMATS)
def test_predictions_are_the_models_own(models, table, spark, tmp_path, form):
    output = tmp_path / "scored"
    flags = ["--model", models / "classes", "--parquet", table, "--keep", "id,c", "--output-format", form]
    assert call("score", *flags, "--output", output) == 0
    rows = spark.read.format(form).options(**FORMATS[form]).load(str(output))
    assert rows.columns[:2] == ["id", "c"] or form == "json"
    found = rows.orderBy("id").toPandas()
    model = load_model(spark, str(models / "classes" / "model"))
    expected = model.transform(spark.read.parquet(table)).orderBy("id").toPandas()
    np.testing.assert_array_equal(found["prediction"], expected["prediction"])
    read = json.loads if form == "csv" else list
    probability = np.array([read(value) for value in found["probability"]])
    np.testing.assert_allclose(probability, [vector.toArray() for vector in expected["probability"]], rtol=1e-12)
    assert json.loads((output / "_manifest.json").read_text())["metrics"] == {"rows": 400}


def test_scores_replace_only_what_they_may(models, table, tmp_path, capsys):
    """The same again is done; another table is refused, or replaced where that is wanted; other folders never."""
    base = ["--parquet", table, "--model", models / "classes", "--output", tmp_path / "out"]
    assert call("score", *base) == 0
    assert "400 rows scored by a LogisticRegressionModel" in capsys.readouterr().out
    assert call("score", *base) == 0
    assert capsys.readouterr().out.startswith("nothing to do")
    assert call("score", *base, "--keep", "id") == 1
    assert "exists. Give another --output, or --output-mode overwrite" in capsys.readouterr().err
    assert call("score", *base, "--keep", "id", "--output-mode", "overwrite") == 0
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.txt").write_text("stays")
    assert call("score", *base[:-1], tmp_path / "home", "--output-mode", "overwrite") == 1
    assert "is not replaced: it holds something other than a table, such as mine.txt" in capsys.readouterr().err
    assert (tmp_path / "home" / "mine.txt").read_text() == "stays"
    assert call("score", *base, "--keep", "nothing", "--force") == 1
    assert "--keep column 'nothing' does not exist" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


def test_a_second_training_starts_from_the_first(models, table, tmp_path, capsys):
    """From its optimum, no step is left to take; a model of another kind is refused."""
    flags = ["train", "--parquet", table, "--features", "a,b", "--label", "c", "--loss", "logistic"]
    flags += ["--reg-param", "0.05", "--max-iter", "200"]
    assert call(*flags, "--output", tmp_path / "cold") == 0
    assert call(*flags, "--initial-model", tmp_path / "cold", "--output", tmp_path / "warm") == 0
    cold, warm = (json.loads((tmp_path / name / "receipt.json").read_text()) for name in ("cold", "warm"))
    assert warm["steps"] < cold["steps"] / 2
    assert warm["objective"][0] == pytest.approx(cold["objective"][-1], rel=1e-6)
    capsys.readouterr()
    assert call(*flags, "--initial-model", models / "numbers", "--output", tmp_path / "other") == 1
    assert "initialModel must be a LogisticRegressionModel" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_images_are_scored_with_the_classes_that_the_model_knows(digits, tmp_path):
    """A folder with three of the ten classes: their numbers are the model's, not the folder's."""
    some = tmp_path / "some"
    for name in ("3", "7", "9"):
        (some / name).mkdir(parents=True)
        for path in sorted((digits / name).iterdir())[:20]:
            (some / name / path.name).write_bytes(path.read_bytes())
    flags = ["--image-size", "8", "--tol", "1e-2", "--reg-param", "0.001", "--test-fraction", "0.7"]
    assert call("train", "--images", digits, *flags, "--output", tmp_path / "model") == 0
    known = ["--model", tmp_path / "model", "--images", some, "--image-size", "8"]
    assert call("evaluate", *known, "--min-value", "0.85", "--output", tmp_path / "gate") == 0
    assert call("score", *known, "--output", tmp_path / "scored") == 0
    scored = dataset(tmp_path / "scored", format="parquet").to_table()
    assert set(scored["label"].to_pylist()) == {3, 7, 9}
    assert {"label", "path", "prediction", "probability"} <= set(scored.column_names)


def test_only_models_of_the_table_are_loaded(spark, tmp_path):
    """Each class of it is one, of the name that the metadata have; nothing else that they may name is imported."""
    for kind, (module, name) in KINDS.items():
        loaded = getattr(__import__(module, fromlist=[name]), name)
        assert loaded.__name__ == kind.rpartition(".")[2]
        assert not kind.startswith("sparkopt.") or f"{loaded.__module__}.{name}" == kind
    rows = spark.createDataFrame([(Vectors.dense(0.0), 0.0), (Vectors.dense(1.0), 1.0)], ["features", "label"])
    LogisticRegression(maxIter=1, tol=0.0).fit(rows).save(str(tmp_path / "model"))
    (part,) = (tmp_path / "model" / "metadata").glob("part-*")
    metadata = json.loads(part.read_text())
    (tmp_path / "model" / "metadata" / f".{part.name}.crc").unlink(missing_ok=True)
    part.write_text(json.dumps({**metadata, "class": "os.system"}))
    with pytest.raises(DataError, match="holds a os.system; jobs load LogisticRegressionModel"):
        load_model(spark, str(tmp_path))


def test_weights_count(spark, tmp_path):
    """Against pyspark.ml's own evaluators on the same weighted rows."""
    data = [(float(i % 3), float(i % 3 > 1), float(1 + i % 4)) for i in range(60)]
    rows = spark.createDataFrame(data, ["x", "y", "w"])
    rows.write.parquet(str(tmp_path / "rows"))
    LogisticRegression(featuresCols=["x"], labelCol="y", maxIter=3, tol=0.0).fit(rows).save(str(tmp_path / "model"))
    flags = ["--model", tmp_path / "model", "--parquet", tmp_path / "rows", "--weight", "w"]
    assert call("evaluate", *flags, "--output", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    scored = load_model(spark, str(tmp_path)).transform(rows)
    f1 = MulticlassClassificationEvaluator(labelCol="y", weightCol="w", metricName="f1").evaluate(scored)
    area = BinaryClassificationEvaluator(labelCol="y", weightCol="w").evaluate(scored)
    assert (found["f1"], found["areaUnderROC"]) == (pytest.approx(f1), pytest.approx(area))

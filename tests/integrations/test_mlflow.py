"""MLflow: what a real one reads back is what the fit reports, and its models predict what Spark's do."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vectors
from pyspark.sql import Row
from pyspark.sql import functions as F

import sparkopt
from sparkopt import images
from sparkopt.deep import TorchEstimator, TorchModel
from sparkopt.deep.networks import ConvNet
from sparkopt.errors import DataError, MissingDependencyError, ParameterError, SchemaError
from sparkopt.integrations import log_fit, pyfunc, save_model
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    LogisticRegressionModel,
    QuantileRegression,
)
from sparkopt.report import load_receipt
from sparkopt.solver.callbacks import MLflowLogger
from tests.deep.networks import Mlp

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow.*", "ignore::FutureWarning")

MODELS = {
    "binomial": LogisticRegression(validationIndicatorCol="held", threshold=0.3),
    "multinomial": LogisticRegression(labelCol="kind", probabilityCol="", thresholds=[0.5, 1.0, 1.0]),
    "sparse": LogisticRegression(featuresCol="sparse", regParam=0.1),
    "svm": LinearSVC(regParam=0.1),
    "columns": LinearRegression(featuresCols=["x1", "x2"], labelCol="minutes"),
    "one column": QuantileRegression(featuresCols=["x1"], labelCol="minutes", quantile=0.8),
    "offset": GeneralizedLinearRegression(
        family="poisson", labelCol="count", offsetCol="x2", linkPredictionCol="link"
    ),
}


@pytest.fixture(scope="module")
def rows(spark):
    """Features as a Vector, as columns and as sparse Vectors; labels of every kind."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 2))
    frame = pd.DataFrame(x, columns=["x1", "x2"])
    frame["label"] = (x.sum(axis=1) + rng.logistic(size=150) > 0).astype(float)
    frame["kind"] = rng.integers(0, 3, 150).astype(float)
    frame["minutes"] = 3 + x[:, 0] + rng.normal(size=150)
    frame["count"] = rng.poisson(np.exp(x[:, 0] / 2)).astype(float)
    frame["held"] = rng.random(150) < 0.2
    frame["png"] = [
        bytearray(images.functional.encode(rng.integers(0, 256, (8, 8, 1)).astype(np.uint8), "png"))
        for _ in range(150)
    ]
    frame["features"] = [Vectors.dense(row) for row in x]
    frame["sparse"] = [Vectors.sparse(50, {i % 50: 1.0, 49: float(row[0])}) for i, row in enumerate(x, 1)]
    return spark.createDataFrame([Row(**row) for row in frame.to_dict("records")]).coalesce(1).cache()


def spark_scores(model, rows):
    """What ``transform`` adds, as one array for each column."""
    scored = model.transform(rows)
    added = [name for name in scored.columns if name not in rows.columns]
    vectors = [name for name in added if scored.schema[name].dataType.typeName() == "vector"]
    plain = scored.select(*[vector_to_array(name).alias(name) if name in vectors else F.col(name) for name in added])
    return {name: np.stack(list(values)) for name, values in plain.toPandas().items()}


def assert_same(found: pd.DataFrame, expected: dict[str, np.ndarray], rtol: float = 0.0) -> None:
    assert list(found.columns) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(np.stack(list(found[name])), values, rtol=rtol, err_msg=name)


@pytest.fixture(scope="module")
def fitted(rows):
    return {name: estimator.fit(rows) for name, estimator in MODELS.items()}


@pytest.fixture(scope="module")
def network(rows):
    estimator = TorchEstimator(
        module=functools.partial(ConvNet, classes=2),
        loss="multinomial",
        featuresCol="png",
        imagePipeline=images.Compose([images.Decode("gray"), images.Rescale(1 / 255)]),
        launcher="local",
        epochs=2,
        validationFraction=0.2,
        metrics={"accuracy": "accuracy"},
    )
    return estimator.fit(rows)


@pytest.mark.parametrize("name", MODELS)
def test_linear_models_score_pandas_as_spark_does(name, fitted, rows, tmp_path):
    pyfunc.write(fitted[name], tmp_path / "model")
    scorer = pyfunc._load_pyfunc(str(tmp_path / "model"))
    frame = rows.toPandas()
    expected = spark_scores(fitted[name], rows)
    assert_same(scorer.predict(frame), expected, rtol=1e-14)
    as_lists = frame.assign(features=[row.toArray().tolist() for row in frame["features"]])
    assert_same(scorer.predict(as_lists), expected, rtol=1e-14)


def test_the_network_scores_pandas_as_spark_does(network, rows, tmp_path):
    pyfunc.write(network, tmp_path / "model")
    scorer = pyfunc._load_pyfunc(str(tmp_path / "model"))
    assert_same(scorer.predict(rows.toPandas()), spark_scores(network, rows), rtol=1e-6)
    assert scorer.predict(rows.toPandas().head(0)).empty


@pytest.mark.parametrize("columns", [{"featuresCols": ["x1", "x2"]}, {"featuresCol": "features"}], ids=str)
def test_a_network_takes_columns_and_vectors(columns, rows, tmp_path):
    build = functools.partial(Mlp, features=2, classes=2)
    model = TorchEstimator(module=build, loss="multinomial", launcher="local", epochs=1, **columns).fit(rows)
    pyfunc.write(model, tmp_path / "model")
    scorer = pyfunc._load_pyfunc(str(tmp_path / "model"))
    assert_same(scorer.predict(rows.toPandas()), spark_scores(model, rows), rtol=1e-6)


def test_spark_and_this_machine_read_each_others_folders(fitted, network, rows, tmp_path):
    model = fitted["binomial"]
    pyfunc.write(model, tmp_path / "here")
    model.write().save(str(tmp_path / "spark"))
    loaded = LogisticRegressionModel.load(str(tmp_path / "here"))
    assert (loaded.coefficients, loaded.uid) == (model.coefficients, model.uid)
    assert loaded.getThreshold() == 0.3
    frame = rows.toPandas()
    read = pyfunc._load_pyfunc(str(tmp_path / "spark"))
    assert_same(read.predict(frame), spark_scores(model, rows), rtol=1e-14)
    pyfunc.write(network, tmp_path / "network")
    assert TorchModel.load(str(tmp_path / "network")).weights == network.weights


def test_what_cannot_be_scored_is_refused(fitted, network, tmp_path):
    scorer = pyfunc.scorer_of(fitted["binomial"])
    with pytest.raises(SchemaError, match="features column 'features' does not exist. Columns: x"):
        scorer.predict(pd.DataFrame({"x": [1.0]}))
    with pytest.raises(DataError, match="row 1 has 3 entries where the rows before it have 2"):
        scorer.predict(pd.DataFrame({"features": [[1.0, 2.0], [1.0, 2.0, 3.0]]}))
    with pytest.raises(DataError, match="features column 'features', .*row 0 is null"):
        scorer.predict(pd.DataFrame({"features": [None]}))
    with pytest.raises(SchemaError, match="features column 'png' holds text. A served model takes the bytes"):
        pyfunc.scorer_of(network).predict(pd.DataFrame({"png": ["path.png"]}))
    with pytest.raises(DataError, match="holds no saved model"):
        pyfunc._load_pyfunc(str(tmp_path))
    pyfunc.write(fitted["svm"], tmp_path / "other")
    part = tmp_path / "other" / "metadata" / "part-00000.txt"
    part.write_text(part.read_text().replace("sparkopt.ml.svm.LinearSVCModel", "subprocess.Popen"))
    with pytest.raises(DataError, match="subprocess.Popen, which is no linear model"):
        pyfunc._load_pyfunc(str(tmp_path / "other"))


def test_without_mlflow_one_sentence_says_what_to_do(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match=r"extra 'mlflow': pip install 'mlflow-skinny[<>=]"):
        log_fit(fitted["binomial"])


def history(client, run, name):
    """A metric's values by step; MLflow repeats those that it links to a model."""
    return {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}


def test_a_linear_fit_is_logged(mlflow, fitted, rows, tmp_path):
    model = fitted["binomial"]
    example = pd.DataFrame({"features": [[0.5, 1.0], [0.0, -1.0]]})
    with mlflow.start_run() as run:
        info = log_fit(model, example=example)
    client = mlflow.MlflowClient()
    data = client.get_run(run.info.run_id).data
    assert (data.params["model"], data.params["threshold"]) == ("LogisticRegressionModel", "0.3")
    receipt = model.summary.receipt
    for name, values in (("objective", receipt.objective), ("validation_loss", receipt.validation)):
        assert history(client, run, name) == {step: value for step, value in enumerate(values) if value is not None}
    assert data.metrics["receipt.bytes_sent"] == receipt.bytes["sent"]
    folder = client.download_artifacts(run.info.run_id, "", str(tmp_path))
    assert load_receipt(f"{folder}/receipt.json") == receipt
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} >= {"receipt.txt", "report.html"}
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    frame = pd.DataFrame({"features": [row.toArray().tolist() for row in rows.toPandas()["features"]]})
    assert_same(loaded.predict(frame), spark_scores(model, rows), rtol=1e-14)
    assert loaded.metadata.signature.inputs.input_names() == ["features"]
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".py")]


def test_what_a_logger_has_logged_stays(mlflow, rows):
    with mlflow.start_run() as run:
        model = LogisticRegression(maxIter=5, tol=0.0).setCallbacks([MLflowLogger()]).fit(rows)
        log_fit(model)
    logged = history(mlflow.MlflowClient(), run, "objective")
    assert list(logged.values()) == model.summary.objectiveHistory


def test_a_network_is_logged(mlflow, network, rows):
    with mlflow.start_run() as run:
        info = log_fit(network)
    client = mlflow.MlflowClient()
    ends = [network.summary.totalIterations // 2, network.summary.totalIterations]
    for name in ("loss", "validation", "accuracy", "rate"):
        expected = [record[name] for record in network.summary.history]
        assert history(client, run, name) == pytest.approx(dict(zip(ends, expected, strict=True))), name
    found = mlflow.pyfunc.load_model(info.model_uri).predict(rows.toPandas())
    assert_same(found, spark_scores(network, rows), rtol=1e-6)


def test_a_run_must_be_active(mlflow, fitted):
    with pytest.raises(ParameterError, match="no MLflow run is active"):
        log_fit(fitted["binomial"])


def test_a_model_of_an_earlier_version_loads(mlflow, fitted, rows, tmp_path):
    """It names the loader's path of that time, sparkopt.pyfunc."""
    save_model(fitted["columns"], tmp_path / "model")
    description = tmp_path / "model" / "MLmodel"
    description.write_text(description.read_text().replace("sparkopt.integrations.pyfunc", "sparkopt.pyfunc"))
    assert "loader_module: sparkopt.pyfunc\n" in description.read_text()
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(rows.select("x1", "x2").toPandas())
    assert_same(found, spark_scores(fitted["columns"], rows), rtol=1e-14)


def test_a_saved_model_scores_where_there_is_no_java(mlflow, fitted, rows, tmp_path):
    save_model(fitted["columns"], tmp_path / "model")
    frame = rows.select("x1", "x2").toPandas()
    frame.to_json(tmp_path / "rows.json", orient="split", double_precision=15)
    code = (
        "import json, sys, warnings; warnings.simplefilter('ignore')\n"
        "import mlflow, pandas\n"
        f"rows = pandas.read_json({str(tmp_path / 'rows.json')!r}, orient='split')\n"
        f"found = mlflow.pyfunc.load_model({str(tmp_path / 'model')!r}).predict(rows)\n"
        "from pyspark import SparkContext\n"
        "assert SparkContext._gateway is None and 'torch' not in sys.modules\n"
        "print(json.dumps(found['prediction'].tolist()))"
    )
    nowhere = {"PATH": "/nonexistent", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    predicted = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(predicted, spark_scores(fitted["columns"], rows)["prediction"], rtol=1e-12)


def requirements(folder: Path) -> list[str]:
    return (folder / "requirements.txt").read_text().splitlines()


def test_requirements_name_the_wheel_that_the_model_carries(mlflow, fitted, network, tmp_path):
    for name, model, extras in (("linear", fitted["columns"], "[spark]"), ("network", network, "[spark,deep]")):
        save_model(model, tmp_path / name)
        (wheel,) = (tmp_path / name / "code").iterdir()
        assert requirements(tmp_path / name) == [f"mlflow-skinny=={mlflow.__version__}", f"code/{wheel.name}{extras}"]
        assert f"- code/{wheel.name}{extras}" in (tmp_path / name / "conda.yaml").read_text()


def test_a_package_that_is_not_installed_is_named(mlflow, fitted, tmp_path, monkeypatch, caplog):
    """A checkout on PYTHONPATH has no metadata, and so no wheel."""
    monkeypatch.setattr("sparkopt.integrations.wheel.distributions", lambda name: iter(()))
    save_model(fitted["columns"], tmp_path / "model")
    assert f"sparkopt[spark]=={sparkopt.__version__}" in requirements(tmp_path / "model")
    assert not (tmp_path / "model" / "code").exists()
    assert "cannot carry it" in caplog.text


def test_the_environment_of_a_model_is_restored_without_an_index(mlflow, fitted, rows, tmp_path, installs):
    """As MLflow restores it: pip in the model's folder. What sparkopt depends on is borrowed from here."""
    save_model(fitted["columns"], tmp_path / "model")
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "sparkopt" not in path.name:
            (borrowed / path.name).symlink_to(path)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYSPARK", "PIP_"))}
    run = functools.partial(subprocess.run, env=clean, cwd=tmp_path / "model", text=True, check=True)
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"])
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    assert (
        run([python, "-c", "import importlib.util as u; print(u.find_spec('sparkopt'))"], stdout=-1).stdout
        == "None\n"
    )
    run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "-r", "requirements.txt"])
    rows.select("x1", "x2").toPandas().to_json(tmp_path / "rows.json", orient="split", double_precision=15)
    code = (
        "import mlflow, pandas, sparkopt\n"
        "found = mlflow.pyfunc.load_model('.').predict(pandas.read_json('../rows.json', orient='split'))\n"
        "print(sparkopt.__file__, *found['prediction'])"
    )
    home, *predicted = run([python, "-c", code], stdout=-1).stdout.split()
    assert home == str(site / "sparkopt" / "__init__.py")
    expected = spark_scores(fitted["columns"], rows)["prediction"]
    np.testing.assert_allclose(np.array(predicted, float), expected, rtol=1e-12)


@pytest.mark.usefixtures("minutes")
def test_stages_of_pyspark_are_logged_with_spark(mlflow, rows):
    """A pipeline with one, and a model of pyspark.ml, are MLflow's flavor "spark", which loads them on Spark."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression as Theirs
    from pyspark.ml.feature import VectorAssembler

    assembler = VectorAssembler(inputCols=["x1", "x2"], outputCol="both")
    mixed = Pipeline(stages=[assembler, LogisticRegression(featuresCol="both")]).fit(rows)
    theirs = Theirs(featuresCol="features", maxIter=5).fit(rows)
    with mlflow.start_run() as run:
        infos = [log_fit(mixed, held_out={"f1": 0.5}), log_fit(theirs, "theirs")]
    data = mlflow.get_run(run.info.run_id).data
    assert (data.params["stages"], data.params["theirs.maxIter"]) == ("VectorAssembler, LogisticRegressionModel", "5")
    assert data.metrics["held_out.f1"] == 0.5
    assert data.metrics["objective"] == mixed.stages[-1].summary.objectiveHistory[-1]
    for info, model in zip(infos, (mixed, theirs), strict=True):
        loaded = mlflow.spark.load_model(info.model_uri)
        expected = [row.prediction for row in model.transform(rows).select("prediction").collect()]
        assert [row.prediction for row in loaded.transform(rows).select("prediction").collect()] == expected

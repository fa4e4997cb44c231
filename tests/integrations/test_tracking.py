"""MLflow on one machine: pipelines, searches, several models in a run, signatures, autolog, and commands."""

from __future__ import annotations

import functools
import json
import re
import sys
from multiprocessing.pool import ThreadPool

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.ml import Estimator
from torch import nn

import sparkopt
from sparkopt import images, ml
from sparkopt.deep import TorchEstimator
from sparkopt.errors import DataError, MissingDependencyError, ParameterError
from sparkopt.integrations import autolog, log_fit, pyfunc, save_model
from sparkopt.integrations.runs import log_input
from sparkopt.ml import (
    BinaryClassificationEvaluator,
    CrossValidator,
    LinearRegression,
    LogisticRegression,
    Pipeline,
    PipelineModel,
    TableFeatures,
)
from tests.jobs.test_machine import call

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow.*", "ignore::FutureWarning", "ignore::UserWarning")

N = 120


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, N).astype(float)
    town = rng.choice(["Bonn", "Rome", "Oslo"], N)
    label = (age / 20 + (town == "Rome") + rng.logistic(size=N) > 3).astype(float)
    ages = pa.array(age, mask=rng.random(N) < 0.1)
    return pa.table({"age": ages, "town": town, "zip": rng.integers(0, 3, N), "label": label})


@pytest.fixture(scope="module")
def models(people):
    """A pipeline from raw columns, a search, and a model of columns."""
    stages = [
        TableFeatures(categorical=["zip"], outputCol="made"),
        LogisticRegression(featuresCol="made", regParam=0.1),
    ]
    plain = LogisticRegression(featuresCols=["x1", "x2"])
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, 2))
    rows = pa.table({"x1": X[:, 0], "x2": X[:, 1], "label": (X.sum(1) + rng.logistic(size=N) > 0).astype(float)})
    grid = [{plain.regParam: strength} for strength in (0.01, 0.1, 1.0)]
    search = CrossValidator(
        estimator=plain, estimatorParamMaps=grid, evaluator=BinaryClassificationEvaluator(), numFolds=2
    )
    return {
        "pipeline": (Pipeline(stages=stages).fit(people), people),
        "search": (search.fit(rows), rows),
        "columns": (LinearRegression(featuresCols=["x1", "x2"]).fit(rows), rows),
    }


class Flat(nn.Module):
    """A layer over all pixels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 1)

    def forward(self, x):
        return self.layer(x.flatten(1))


def run_of(mlflow, run):
    return mlflow.get_run(run.info.run_id)


SIGNATURES = {
    "pipeline": [("age", "double"), ("town", "string"), ("zip", "any")],
    "search": [("x1", "double"), ("x2", "double")],
    "columns": [("x1", "double"), ("x2", "double")],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_model_is_logged_with_its_signature_and_scores_pandas(name, mlflow, models):
    model, rows = models[name]
    with mlflow.start_run() as run:
        info = log_fit(model, held_out={"accuracy": 0.75})
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    signature = loaded.metadata.signature
    assert [(column.name, getattr(column.type, "name", "any")) for column in signature.inputs] == SIGNATURES[name]
    frame = rows.drop_columns(["label"]).to_pandas()
    found = loaded.predict(frame)
    assert signature.outputs.input_names() == list(found.columns)
    best = getattr(model, "bestModel", model)
    expected = best.transform(frame)
    np.testing.assert_array_equal(found["prediction"], expected["prediction"])
    assert len(found) == N
    data = run_of(mlflow, run)
    assert data.data.metrics["held_out.accuracy"] == 0.75
    assert data.data.tags["sparkopt.version"] == sparkopt.__version__
    (dataset,) = data.inputs.dataset_inputs
    assert json.loads(dataset.dataset.profile)["rows"] == N
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "training")]


def test_a_pipelines_parameters_are_those_of_its_stages(mlflow, models):
    with mlflow.start_run() as run:
        log_fit(models["pipeline"][0])
    params = run_of(mlflow, run).data.params
    assert params["stages"] == "TableFeaturesModel, LogisticRegressionModel"
    assert (params["TableFeaturesModel.categorical"], params["regParam"]) == ('["zip"]', "0.1")


def test_a_searchs_candidates_are_logged(mlflow, models):
    with mlflow.start_run() as run:
        log_fit(models["search"][0])
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, "avgMetrics")
    assert [one.value for one in sorted(found, key=lambda one: one.step)] == models["search"][0].avgMetrics


@pytest.mark.parametrize("uri", ["s3://key:hidden@bucket", "s3://bucket/rows?access_key=key&secret_key=hidden"])
def test_no_run_shows_a_key(uri, mlflow, models):
    model = models["search"][0].bestModel.copy()
    model.set(model.getParam("checkpointDir"), uri)
    with mlflow.start_run() as run:
        log_fit(model, dataset=False)
        log_input(mlflow, mlflow.MlflowClient(), run.info.run_id, uri, "abc", {"rows": 1})
    found = mlflow.get_run(run.info.run_id).to_dictionary()
    assert "***" in found["data"]["params"]["checkpointDir"]
    assert "***" in str(found["inputs"])
    assert "hidden" not in str(found)


def test_several_models_in_one_run_have_names(mlflow, models):
    """Without names, the second one is refused before anything is logged of it."""
    first, second = models["search"][0], models["columns"][0]
    with mlflow.start_run() as run:
        log_fit(first)
        with pytest.raises(ParameterError, match=r"A run takes several models by other names than 'model'"):
            log_fit(second)
        log_fit(second, "minutes")
        log_fit(models["pipeline"][0], "churn", held_out={"f1": 0.5})
    data = run_of(mlflow, run).data
    kinds = {key: value for key, value in data.params.items() if key.split(".")[-1] == "model"}
    assert kinds == {
        "model": "LogisticRegressionModel",
        "minutes.model": "LinearRegressionModel",
        "churn.model": "PipelineModel",
    }
    assert data.metrics["minutes.objective"] == second.summary.objectiveHistory[-1]
    assert data.metrics["churn.held_out.f1"] == 0.5
    artifacts = {each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id, "receipts")}
    assert artifacts == {"receipts/minutes", "receipts/churn"}


def test_a_pipeline_that_names_another_library_is_not_loaded(models, tmp_path):
    pyfunc.write(models["pipeline"][0], tmp_path / "model")
    assert len(pyfunc._load_pyfunc(str(tmp_path / "model")).predict(models["pipeline"][1].to_pandas())) == N
    (part,) = (tmp_path / "model" / "stages").glob("0_*/metadata/part-*")
    part.write_text(part.read_text().replace("sparkopt.ml.table_features.TableFeaturesModel", "subprocess.Popen"))
    with pytest.raises(DataError, match="subprocess.Popen, which is no linear model"):
        pyfunc._load_pyfunc(str(tmp_path / "model"))


def test_rows_that_a_model_leaves_out_get_null(models):
    model, rows = models["pipeline"]
    frame = rows.to_pandas().head(3).assign(age=[1.0, np.inf, 2.0])
    model = model.copy()
    model.stages[-1].set(model.stages[-1].getParam("handleInvalid"), "skip")
    assert pyfunc.scorer_of(model).predict(frame)["prediction"].isna().tolist() == [False, True, False]


def test_requirements_of_a_pipeline_are_those_of_a_model(mlflow, models, tmp_path):
    for name in ("pipeline", "columns"):
        save_model(models[name][0], tmp_path / name)
    both = [(tmp_path / name / "requirements.txt").read_text() for name in ("pipeline", "columns")]
    assert both[0] == both[1]
    assert "sparkopt" in both[0]


def test_autolog_logs_each_fit_once(mlflow, people):
    stages = [TableFeatures(outputCol="made"), LogisticRegression(featuresCol="made")]
    rows = pa.table({"x": np.arange(20.0), "label": np.arange(20.0) % 2})
    before = LogisticRegression.fit
    autolog()
    try:
        autolog()  # twice is once
        with mlflow.start_run() as run:
            Pipeline(stages=stages).fit(people)
            LogisticRegression(featuresCols=["x"]).fit(rows)
            LinearRegression(featuresCols=["x"]).fit(rows)
        LinearRegression(featuresCols=["x"], regParam=0.5).fit(rows)
    finally:
        autolog(disable=True)
    assert LogisticRegression.fit is before
    LinearRegression(featuresCols=["x"]).fit(rows)
    params = run_of(mlflow, run).data.params
    kinds = [params[name] for name in ("model", "model_2.model", "model_3.model")]
    assert kinds == ["PipelineModel", "LogisticRegressionModel", "LinearRegressionModel"]
    assert "model_4.model" not in params
    runs = mlflow.search_runs()
    assert sorted(runs["params.model"]) == ["LinearRegressionModel", "PipelineModel"]


ALONE = {
    "LogisticRegression": lambda: LogisticRegression(featuresCols=["x"]),
    "LinearSVC": lambda: ml.LinearSVC(featuresCols=["x"]),
    "LinearRegression": lambda: LinearRegression(featuresCols=["x"]),
    "QuantileRegression": lambda: ml.QuantileRegression(featuresCols=["x"]),
    "GeneralizedLinearRegression": lambda: ml.GeneralizedLinearRegression(featuresCols=["x"]),
    "AFTSurvivalRegression": lambda: ml.AFTSurvivalRegression(featuresCols=["x"], labelCol="time", censorCol="label"),
    "OrdinalRegression": lambda: ml.OrdinalRegression(featuresCols=["x"]),
    "NegativeBinomialRegression": lambda: ml.NegativeBinomialRegression(featuresCols=["x"]),
    "MultiLabelLogisticRegression": lambda: ml.MultiLabelLogisticRegression(
        featuresCols=["x"], labelCols=["label", "late"]
    ),
    "FMRegressor": lambda: ml.FMRegressor(featuresCols=["x"]),
    "FMClassifier": lambda: ml.FMClassifier(featuresCols=["x"]),
    "MultilayerPerceptronClassifier": lambda: ml.MultilayerPerceptronClassifier(featuresCols=["x"], layers=[1, 2, 2]),
    "MultilayerPerceptronRegressor": lambda: ml.MultilayerPerceptronRegressor(featuresCols=["x"], layers=[1, 2, 1]),
    "ProbabilityCalibration": lambda: ml.ProbabilityCalibration(featuresCols=["x"]),
    "OneVsRest": lambda: ml.OneVsRest(classifier=ml.LinearSVC(regParam=0.1), featuresCol="list"),
    "Pipeline": lambda: Pipeline(stages=[LinearRegression(featuresCols=["x"])]),
    "CrossValidator": lambda: CrossValidator(**searched(), numFolds=2),
    "TrainValidationSplit": lambda: ml.TrainValidationSplit(**searched()),
    "RandomizedSearch": lambda: ml.RandomizedSearch(**searched(), numFolds=2),
    "TorchEstimator": lambda: TorchEstimator(
        module=functools.partial(nn.Linear, 1, 1),
        loss="squared_error",
        featuresCol="list",
        launcher="local",
        epochs=1,
    ),
}
PARTS = {"TableFeatures", "ImageNormalizer", "LinearEstimator"}
"""Stages that are logged with a pipeline, and a base class."""


def searched():
    estimator = LinearRegression(featuresCols=["x"])
    return {"estimator": estimator, "estimatorParamMaps": [{}, {}], "evaluator": ml.RegressionEvaluator()}


def test_the_table_has_every_estimator():
    kinds = {name: getattr(ml, name) for name in ml.__all__}
    found = {name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Estimator)}
    assert {*ALONE} == found - PARTS | {"TorchEstimator"}


@pytest.mark.filterwarnings("ignore::sparkopt.errors.NotConvergedWarning")
@pytest.mark.parametrize("name", ALONE)
def test_autolog_logs_every_estimator_with_a_signature_that_scores(name, mlflow):
    x = np.arange(40.0)
    label, late = x // 4 % 2, x // 8 % 2
    rows = pa.table({"x": x, "list": x[:, None].tolist(), "label": label, "late": late, "time": 1 + x})
    autolog(networks=True)
    try:
        ALONE[name]().fit(rows)
    finally:
        autolog(disable=True)
    (run,) = mlflow.search_runs(output_format="list")
    searches = ("CrossValidator", "TrainValidationSplit", "RandomizedSearch")
    own = getattr(ALONE[name](), "_model_name", f"{name.removesuffix('Estimator')}Model")  # FMRegressionModel
    best = "LinearRegressionModel" if name in searches else own
    assert run.data.params["model"] == best
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    signature = loaded.metadata.signature
    assert signature.inputs.input_names() == (["list"] if name in ("OneVsRest", "TorchEstimator") else ["x"])
    found = loaded.predict(rows.to_pandas()[signature.inputs.input_names()])
    assert signature.outputs.input_names() == list(found.columns)
    assert len(found) == 40


class InThreads(Estimator):
    """Fits in a pool's thread, as pyspark.ml's searches do."""

    def _fit(self, dataset):
        with ThreadPool(1) as pool:
            return pool.apply(LinearRegression(featuresCols=["x"]).fit, (dataset,))


def test_parts_that_are_fitted_in_threads_are_not_logged(mlflow):
    rows = pa.table({"x": np.arange(20.0), "label": np.arange(20.0) % 3})
    autolog()
    try:
        Pipeline(stages=[InThreads()]).fit(rows)
        with ThreadPool(1) as pool:  # a user's own
            pool.apply(LinearRegression(featuresCols=["x"]).fit, (rows,))
    finally:
        autolog(disable=True)
    kinds = sorted(run.data.params["model"] for run in mlflow.search_runs(output_format="list"))
    assert kinds == ["LinearRegressionModel", "PipelineModel"]


def test_the_signature_of_images_is_binary(mlflow):
    png = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    rows = pa.table({"png": [png] * 8, "label": [0.0, 1.0] * 4})
    steps = images.Compose([images.Decode("gray"), images.Resize(4, 4), images.Rescale(1 / 255)])
    network = TorchEstimator(
        module=Flat, loss="logistic", featuresCol="png", imagePipeline=steps, launcher="local", epochs=1
    ).fit(rows)
    with mlflow.start_run():
        by_columns, by_example = log_fit(network), log_fit(network, "other", rows.select(["png"]).to_pandas())
    for info in (by_columns, by_example):
        loaded = mlflow.pyfunc.load_model(info.model_uri)
        assert [column.type.name for column in loaded.metadata.signature.inputs] == ["binary"]
        assert len(loaded.predict(rows.select(["png"]).to_pandas())) == 8


def test_a_model_for_each_class_that_names_another_library_is_not_loaded(mlflow, tmp_path):
    rows = pa.table({"list": np.arange(12.0)[:, None].tolist(), "label": np.arange(12.0) % 2})
    model = ml.OneVsRest(classifier=ml.LinearSVC(regParam=0.1), featuresCol="list").fit(rows)
    pyfunc.write(model, tmp_path / "model")
    assert len(pyfunc._load_pyfunc(str(tmp_path / "model")).predict(rows.to_pandas())) == 12
    (part,) = (tmp_path / "model" / "model_1").glob("metadata/part-*")
    part.write_text(part.read_text().replace("sparkopt.ml.svm.LinearSVCModel", "subprocess.Popen"))
    with pytest.raises(DataError, match="subprocess.Popen, which is no linear model"):
        pyfunc._load_pyfunc(str(tmp_path / "model"))


def test_without_mlflow_autolog_and_the_flag_say_what_to_install(monkeypatch, capsys, people, tmp_path):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match="extra 'mlflow'"):
        autolog()
    pq.write_table(people, tmp_path / "rows.parquet")
    code, _, err = call(capsys, "train", tmp_path / "rows.parquet", "--mlflow", "churn", "--output", tmp_path / "out")
    assert (code, "extra 'mlflow'" in err, len(err.splitlines())) == (1, True, 1)
    assert not (tmp_path / "out").exists()


def test_commands_log_runs(mlflow, people, capsys, tmp_path):
    pq.write_table(people, tmp_path / "rows.parquet")
    data, model = [tmp_path / "rows.parquet", "--mlflow", "churn"], tmp_path / "model"
    code, out, err = call(capsys, "train", *data, "--reg-param", "0.1", "--output", model)
    assert code == 0, err
    train = mlflow.get_run(re.search(r"mlflow    experiment churn, run (\w+)", out)[1])
    code, out, err = call(
        capsys, "evaluate", *data, "--model", model, "--min-value", "2", "--output", tmp_path / "gate"
    )
    assert code == 3, err
    gate = mlflow.get_run(re.search(r"run (\w+)", out)[1])
    metrics = json.loads((model / "metrics.json").read_text())["held_out"]
    assert {f"held_out.{name}": value for name, value in metrics.items()}.items() <= train.data.metrics.items()
    assert (train.data.params["flag.reg_param"], train.data.params["model"]) == ("0.1", "PipelineModel")
    assert (train.data.tags["sparkopt.job"], gate.data.tags["sparkopt.job"]) == ("train", "evaluate")
    digest = json.loads((model / "manifest.json").read_text())["data"]["data"]["digest"]
    assert {run.inputs.dataset_inputs[0].dataset.digest for run in (train, gate)} == {digest[:36]}
    assert (
        gate.data.metrics["accuracy"]
        == json.loads((tmp_path / "gate" / "metrics.json").read_text())["metrics"]["accuracy"]
    )
    files = {each.path for each in mlflow.MlflowClient().list_artifacts(train.info.run_id)}
    assert {"report.html", "manifest.json", "metrics.json"} <= files
    loaded = mlflow.pyfunc.load_model(f"runs:/{train.info.run_id}/model")
    saved = PipelineModel.load(str(model / "model"))
    frame = people.to_pandas()
    pd.testing.assert_series_equal(loaded.predict(frame)["prediction"], saved.transform(frame)["prediction"])


def test_a_server_that_does_not_answer_is_known_before_the_work(mlflow, people, capsys, tmp_path, monkeypatch):
    pq.write_table(people, tmp_path / "rows.parquet")
    (tmp_path / "file").write_text("")
    mlflow.set_tracking_uri((tmp_path / "file" / "below").as_uri())
    code, _, err = call(capsys, "train", tmp_path / "rows.parquet", "--mlflow", "churn", "--output", tmp_path / "out")
    assert (code, "--mlflow 'churn' cannot be used: " in err) == (1, True), err
    assert not (tmp_path / "out").exists()

"""The estimator and its model as Spark's users see them: parameters, fit, transform, pipelines, disk."""

from __future__ import annotations

import functools
import inspect
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import functions as F
from sklearn.datasets import load_digits
from sklearn.metrics import r2_score
from torch import nn

from sparkopt import images
from sparkopt.deep import TorchEstimator, TorchModel, local
from sparkopt.errors import DataError, IncompatibleError, ParameterError, SchemaError
from sparkopt.launch.checkpoints import module_bytes
from sparkopt.machine import Table, TablePart
from sparkopt.solver.callbacks import History, TimeBudget
from tests.deep import networks
from tests.deep.conftest import without_session

PIPELINE = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])


@pytest.fixture(scope="module")
def digits():
    """Images as PNG and as vectors of pixels, with their classes."""
    pixels, label = load_digits(return_X_y=True)
    png = [images.functional.encode(row.reshape(8, 8, 1).astype(np.uint8) * 15, "png") for row in pixels]
    numbers = range(len(label))
    return pa.table({"png": png, "pixels": list(pixels / 16), "label": label.astype(float), "id": numbers})


def apart(digits):
    """Rows to train on, and a fifth of them to try what was learned."""
    tried = pc.equal(pc.bit_wise_and(digits["id"], 3), 0)
    return digits.filter(pc.invert(tried)), digits.filter(tried)


@pytest.fixture(scope="module")
def learned(digits):
    estimator = TorchEstimator(
        module=functools.partial(networks.Mlp, features=64, classes=10, hidden=48),
        loss="multinomial",
        optimizer="adam",
        stepSize=0.01,
        stepSizeSchedule="cosine",
        featuresCol="pixels",
        epochs=12,
        batchSize=64,
        launcher="local",
        validationFraction=0.2,
        metrics={"accuracy": "accuracy"},
    )
    return estimator.fit(apart(digits)[0])


def test_digits_are_learned_and_evaluated(digits, learned):
    scored = learned.transform(apart(digits)[1])
    assert accuracy(scored) > 0.93
    row = scored.slice(0, 1).to_pylist()[0]
    raw = learned.module(torch.tensor(row["pixels"], dtype=torch.float32)[None]).detach().double()
    np.testing.assert_allclose(row["rawPrediction"], raw[0], atol=1e-5)
    np.testing.assert_allclose(row["probability"], torch.softmax(raw, 1)[0], atol=1e-6)
    assert row["prediction"] == raw.argmax()


def accuracy(scored):
    return pc.mean(pc.equal(scored["prediction"], scored["label"])).as_py()


def test_the_summary_adds_up(learned):
    summary = learned.summary
    receipt = summary.receipt
    assert [record["epoch"] for record in summary.history] == list(range(12))
    assert summary.history[-1]["accuracy"] > 0.9
    assert summary.totalIterations == receipt.steps == 12 * -(-receipt.rows // 64)
    assert receipt.rows + receipt.validation_rows == 1347
    assert 0.1 < receipt.validation_rows / 1347 < 0.3
    assert sum(value for name, value in receipt.seconds.items() if name != "total") <= receipt.seconds["total"] + 0.01
    assert json.loads(json.dumps(receipt.to_dict()))["devices"] == ["cpu"]
    assert f"steps {receipt.steps:,}" in str(receipt)


@pytest.fixture(scope="module")
def stored_digits(spark, digits):
    """The same in Spark."""
    return spark.createDataFrame(digits).repartition(3, "id").cache()


def test_a_saved_model_is_the_same_model(no_session, digits, learned, tmp_path):
    path = str(tmp_path / "model")
    learned.save(path)
    assert {str(file.relative_to(path)) for file in (tmp_path / "model").rglob("*") if file.is_file()} == {
        "metadata/part-00000.txt",
        "model.safetensors",
    }
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == learned.weights
    loaded = TorchModel.load(path)
    assert (loaded.uid, loaded.task, loaded.hasSummary) == (learned.uid, "classes", False)
    rows = digits.slice(0, 50)
    assert loaded.transform(rows) == learned.transform(rows)
    with pytest.raises(ParameterError, match="exists already"):
        loaded.save(path)
    loaded.write().overwrite().save(path)  # what was loaded can be saved again
    assert TorchModel.load(path).weights == learned.weights
    with pytest.raises(AttributeError, match="this model has no summary"):
        loaded.summary  # noqa: B018
    with pytest.raises(DataError, match="nothing was saved there"):
        TorchModel.load(str(tmp_path / "nothing"))


def test_spark_and_this_machine_read_what_the_other_wrote(stored_digits, learned, tmp_path, monkeypatch):
    by_spark, here = (str(tmp_path / name) for name in ("spark", "here"))
    learned.save(by_spark)
    learned.write().overwrite().save(by_spark)
    with monkeypatch.context() as patched:
        without_session(patched)
        assert TorchModel.load(by_spark).weights == learned.weights
        learned.save(here)
    loaded = TorchModel.load(here)
    rows, columns = stored_digits.limit(50), ("probability", "prediction")
    assert loaded.transform(rows).select(*columns).collect() == learned.transform(rows).select(*columns).collect()


@pytest.fixture(scope="module")
def saved(learned, tmp_path_factory):
    """Where the model is saved."""
    path = tmp_path_factory.mktemp("saved") / "model"
    local.write(learned, path)
    return path


def copied_with(saved, path, **network):
    """Copy a saved model, then let its file name something else to build: who does that leaves the digest out."""
    shutil.copytree(saved, path)
    (file,) = [file for file in (path / "metadata").iterdir() if file.name.startswith("part-")]
    metadata = json.loads(file.read_text())
    metadata["network"].update(network)
    del metadata["digest"]
    file.write_text(json.dumps(metadata))
    return str(path)


FOREIGN = {
    "a function": (
        dict(name="os:system", positional=["touch {}"], keywords={}),
        "neither a subclass of nn.Module nor",
    ),
    "an unmarked builder": (dict(name="tests.deep.networks:mlp"), "nor marked with @sparkopt.deep.builder"),
    "a method": (dict(name="torch.nn:Module.train", keywords={}), "neither a subclass of nn.Module"),
    "what is not there": (dict(name="tests.deep.networks:Gone"), "cannot be imported"),
}


@pytest.mark.parametrize(("network", "message"), FOREIGN.values(), ids=FOREIGN)
def test_loading_calls_nothing_unexpected(no_session, saved, tmp_path, network, message):
    witness = tmp_path / "witness"
    if "positional" in network:
        network = {**network, "positional": [network["positional"][0].format(witness)]}
    with pytest.raises(DataError, match=message):
        TorchModel.load(copied_with(saved, tmp_path / "model", **network))
    assert not witness.exists()


UNSAVEABLE = {
    "an object": (nn.Linear(64, 10), "a Linear that was built already cannot be saved without pickling code"),
    "a local function": (lambda: nn.Linear(64, 10), "cannot be imported by another process"),
    "unmarked": (networks.mlp, "nor marked with @sparkopt.deep.builder"),
    "no plain arguments": (functools.partial(networks.Mlp, torch.zeros(1)), "must be plain values that JSON holds"),
}


@pytest.mark.parametrize(("build", "message"), UNSAVEABLE.values(), ids=UNSAVEABLE)
def test_what_has_no_name_is_saved_and_must_be_given_again(no_session, tmp_path, build, message):
    given = nn.Linear(64, 10)
    model = TorchModel(build, module_bytes(given.state_dict()), "classes", (10,))
    model.save(str(tmp_path / "model"))
    with pytest.raises(DataError, match=rf"{message}.* TorchModel.load\(path, module=...\)"):
        TorchModel.load(str(tmp_path / "model"))
    loaded = TorchModel.load(str(tmp_path / "model"), module=functools.partial(nn.Linear, 64, 10))
    assert torch.equal(loaded.module.weight, given.weight)
    with pytest.raises((ParameterError, DataError), match=message):  # a server could not be given it
        local.write(model, tmp_path / "served")


def test_a_fit_says_that_the_model_has_no_name(digits, caplog):
    options = dict(loss="multinomial", featuresCol="pixels", epochs=1, batchSize=500, launcher="local")
    TorchEstimator(module=lambda: nn.Linear(64, 10), **options).fit(digits)
    assert "loaded by TorchModel.load(path, module=...): tests.deep.test_estimator:test_a_fit" in caplog.text
    caplog.clear()
    TorchEstimator(module=functools.partial(nn.Linear, 64, 10), **options).fit(digits)
    assert "TorchModel.load" not in caplog.text


def test_every_parameter_has_a_setter():
    for instance in (TorchEstimator(module=networks.mlp), TorchModel()):
        for param in instance.params:
            value = (
                RANDOM.to_json()
                if param.name.endswith("Pipeline")
                else param.typeConverter(EXAMPLES.get(param.name, 1))
            )
            setter = getattr(instance, f"set{param.name[0].upper()}{param.name[1:]}")
            assert setter(value) is instance
            assert instance.getOrDefault(param) == value


EXAMPLES = {"featuresCols": [["a", "b"], "c"], "resume": False}
EXAMPLES |= dict.fromkeys(("device", "handleInvalid", "labelKind", "launcher", "precision", "compression"), "x")
EXAMPLES |= dict.fromkeys(("stepSizeSchedule", "storePath", "checkpointDir", "validationIndicatorCol"), "x")
EXAMPLES |= {"outerOptimizer": "average"}
EXAMPLES |= {"paddedCols": ["a"], "labelCols": ["a", "b"], "savedWeights": "x"}
EXAMPLES |= {"strategy": "x", "wrappedModules": ["Linear"]}
EXAMPLES["batchMixing"] = images.MixUp(0.2)
EXAMPLES |= {
    f"{name}Col": "x" for name in ("features", "label", "weight", "prediction", "rawPrediction", "probability")
}


def test_documented_defaults_may_be_passed(digits):
    """As keyword arguments that are read from elsewhere are."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(TorchEstimator.__init__).parameters.items()
        if name != "self"
    }
    given = dict(module=functools.partial(nn.Linear, 64, 10), loss="multinomial", featuresCol="pixels", epochs=1)
    assert TorchEstimator(**{**defaults, **given}).fit(digits).weights == TorchEstimator(**given).fit(digits).weights


def test_a_marked_function_is_saved(no_session, tmp_path):
    module = networks.marked(hidden=5)
    model = TorchModel(
        functools.partial(networks.marked, hidden=5), module_bytes(module.state_dict()), "values", (1,)
    )
    model.save(str(tmp_path / "model"))
    assert torch.equal(TorchModel.load(str(tmp_path / "model")).module[0].weight, module[0].weight)


def test_images_and_numbers_side_by_side_in_a_pipeline(stored_digits, tmp_path):
    estimator = TorchEstimator(
        module=networks.Pair,
        loss=nn.CrossEntropyLoss(),
        stepSize=0.005,
        featuresCols=["png", "id"],
        epochs=4,
        launcher="local",
        imagePipeline=PIPELINE,
        probabilityCol="",
    )
    rows = stored_digits.where("id < 700").withColumn("id", F.col("id") / 1000)
    pipeline = Pipeline(stages=[VectorAssembler(inputCols=["label"], outputCol="unused"), estimator])
    model = pipeline.fit(rows)
    model.save(str(tmp_path / "pipeline"))
    scored = PipelineModel.load(str(tmp_path / "pipeline")).transform(rows)
    assert "probability" not in scored.columns
    assert MulticlassClassificationEvaluator(metricName="accuracy").evaluate(scored) > 0.8


def test_binary_and_regression(digits):
    rows = digits.slice(0, 600)
    labels, numbers = rows["label"].to_numpy(), np.arange(600)
    rows = rows.append_column("odd", [(labels % 2).astype(np.float32)]).append_column("aside", [numbers % 10 == 0])
    options = dict(featuresCol="pixels", epochs=16, launcher="local", optimizer="adam", stepSize=0.01)
    network = functools.partial(networks.Mlp, features=64, classes=1, hidden=32)
    binary = TorchEstimator(module=network, loss=nn.BCEWithLogitsLoss(), labelCol="odd", **options).fit(rows)
    scored = binary.transform(rows)
    raw, probability = (np.array(scored[name].to_pylist())[:, 1] for name in ("rawPrediction", "probability"))
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-raw)), rtol=1e-6)
    assert (scored["prediction"].to_numpy() == rows["odd"].to_numpy()).sum() > 570
    regression = TorchEstimator(module=network, loss="huber", validationIndicatorCol="aside", **options).fit(rows)
    predicted = regression.transform(rows)["prediction"].to_numpy()
    assert r2_score(labels, predicted) > 0.8
    loss = nn.functional.huber_loss(torch.tensor(predicted[::10]), torch.tensor(labels[::10]))
    assert regression.summary.receipt.validation_rows == 60
    assert regression.summary.history[-1]["validation"] == pytest.approx(loss.item(), rel=1e-5)


def test_callbacks_see_each_step_and_stop(digits, tmp_path):
    history = History()
    options = dict(
        module=functools.partial(networks.Mlp, features=64, classes=10),
        loss="multinomial",
        featuresCol="pixels",
        launcher="local",
        batchSize=500,
        validationFraction=0.3,
        storePath=str(tmp_path / "rows"),
        checkpointDir=str(tmp_path / "checkpoints"),
    )
    model = TorchEstimator(epochs=3, callbacks=[history], **options).fit(digits)
    steps = model.summary.receipt.steps
    assert [record["step"] for record in history.records] == list(range(1, steps + 1))
    assert [record["objective"] for record in history.records] == model.summary.objectiveHistory
    held_out = [record["validation"] for record in history.records if record["validation"] is not None]
    assert held_out == [record["validation"] for record in model.summary.history]
    assert not list((tmp_path / "rows").iterdir())  # rows are gone, checkpoints stay
    stopped = TorchEstimator(epochs=9, callbacks=[TimeBudget(1e-9)], **options).fit(digits).summary
    assert (stopped.receipt.stopped, stopped.receipt.resumed) == ("callback", "epoch-000003-step-000000000")
    assert len(stopped.history) == 4  # the epoch in which the answer came is the last
    restarted = TorchEstimator(epochs=1, resume=False, **options).fit(digits).summary
    assert (restarted.receipt.resumed, len(restarted.history)) == (None, 1)
    warm = TorchEstimator(epochs=1, initialModel=model, **{**options, "checkpointDir": None}).fit(digits).summary
    assert warm.objectiveHistory[0] < model.summary.objectiveHistory[0]


BASE = dict(module=networks.mlp, loss="multinomial", featuresCol="features")
RANDOM = images.Compose([images.Decode("gray"), images.RandomCrop(8, 8)])
WRONG = {
    "launcher": (
        dict(launcher="mpi"),
        ParameterError,
        "launcher must be one of 'torch', 'horovod', 'ray', 'local'. Got 'mpi'",
    ),
    "epochs": (dict(epochs=-1), ParameterError, "epochs must be a whole number >= 0. Got -1"),
    "batch": (dict(batchSize=0), ParameterError, "batchSize must be a whole number >= 1"),
    "precision": (dict(precision="fp8"), ParameterError, "precision must be one of"),
    "local processes": (dict(launcher="local", numProc=2), ParameterError, "'local' is one process"),
    "streams": (dict(numProc=2, streams=3), ParameterError, "streams=3 is no multiple of numProc=2"),
    "fewest processes": (
        dict(numProc=2, minProc=3, maxRestarts=1),
        ParameterError,
        r"minProc must be a whole number in \[1, 2\]. Got 3",
    ),
    "fewest of no losses": (dict(numProc=2, minProc=1), ParameterError, "maxRestarts=0 rules out. Set maxRestarts"),
    "compression": (
        dict(launcher="horovod", compression="bf16"),
        IncompatibleError,
        "it has none, fp16, powersgd",
    ),
    "compression of scaled gradients": (
        dict(compression="powersgd", precision="fp16"),
        IncompatibleError,
        "Take precision='bf16'",
    ),
    "module": (dict(module=None), ParameterError, "module must be an nn.Module, or build one"),
    "loss": (dict(loss="hinge"), ParameterError, "loss must be one of"),
    "metrics": (dict(metrics={"f1": "f1"}), ParameterError, "metric 'f1' must be a torchmetrics.Metric"),
    "storage": (dict(storePath="nosuch://x"), ParameterError, "storePath='nosuch://x' cannot be used"),
    "two splits": (
        dict(validationFraction=0.1, validationIndicatorCol="flag"),
        ParameterError,
        "validationFraction and validationIndicatorCol are both set",
    ),
    "split": (dict(validationIndicatorCol="label"), SchemaError, "'label' has type double; it must be boolean"),
    "random images": (dict(imagePipeline=RANDOM), ParameterError, "imagePipeline is random: set evaluationPipeline"),
    "images": (dict(featuresCol="bytes"), SchemaError, "features column 'bytes' holds bytes: set imagePipeline"),
    "column": (dict(featuresCol="x"), SchemaError, "features column 'x' does not exist"),
    "label": (dict(labelCol="y"), SchemaError, "label column 'y' does not exist"),
    "weight": (dict(weightCol="bytes"), SchemaError, "weight column 'bytes' has type binary; it must be numeric"),
}


class Unread(TablePart):
    """Rows that must not be read."""

    name, rows, bytes = "unread", 2, 100

    def batches(self, columns=None):
        raise AssertionError("rows were read")


@pytest.mark.parametrize(("options", "kind", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_refused_before_rows_are_read(options, kind, message):
    numbers = pa.list_(pa.float64())
    kinds = {"label": pa.float64(), "features": numbers, "bytes": pa.binary(), "flag": pa.bool_()}
    with pytest.raises(kind, match=message):
        TorchEstimator(**{**BASE, **options}).fit(Table(pa.schema(kinds), (Unread(),)))


def test_what_needs_spark_is_refused_without_it(digits):
    with pytest.raises(IncompatibleError, match="launcher='horovod' starts its processes by Spark"):
        TorchEstimator(**BASE, launcher="horovod").fit(digits)


def test_a_wrong_column_is_refused_before_any_job_of_spark(spark):
    broken = spark.range(2).select(F.raise_error(F.lit("a job ran")).cast("double").alias("label"))
    with pytest.raises(SchemaError, match="features column 'features' does not exist"):
        TorchEstimator(**BASE).fit(broken)


def test_an_output_column_that_exists_is_refused(stored_digits, digits, learned):
    for rows in (
        digits.append_column("prediction", digits["label"]),
        stored_digits.withColumn("prediction", F.lit(1)),
    ):
        with pytest.raises(SchemaError, match="output column 'prediction' exists already"):
            learned.transform(rows)

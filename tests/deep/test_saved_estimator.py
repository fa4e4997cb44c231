"""Estimators on disk, alone, in pipelines and in searches: what is read trains the same model; nothing is pickled."""

from __future__ import annotations

import functools
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyspark.ml.tuning import ParamGridBuilder
from torch import nn

from sparkopt.deep import TorchEstimator, TorchModel, builder
from sparkopt.deep.written import from_json, to_json
from sparkopt.errors import CorruptDataError, DataError, ParameterError
from sparkopt.ml import CrossValidator, CrossValidatorModel, Pipeline, RegressionEvaluator
from tests.deep import networks
from tests.deep.conftest import without_session

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


@builder
def pinball(output, target):
    """A loss of one's own."""
    return torch.maximum(0.9 * (target - output), 0.1 * (output - target))


def rows(count=90):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(count, 4)).astype(np.float32)
    return pa.table({"features": list(X), "label": (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1)})


def classifier(**options):
    given = dict(module=networks.Mlp, loss="multinomial", epochs=2, batchSize=16, launcher="local", seed=3)
    return TorchEstimator(**{**given, **options})


OBJECTS = {
    "names": {},
    "classes and functions": dict(
        module=functools.partial(networks.Mlp, hidden=5),
        loss=nn.functional.cross_entropy,
        optimizer=SGD,
        scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
        schedulerInterval="step",
    ),
    "a loss with class weights": dict(loss=nn.CrossEntropyLoss(torch.tensor([0.25, 1.0, 3.0]), label_smoothing=0.1)),
    "metrics": dict(metrics={"accuracy": "accuracy"}, validationFraction=0.3, task="classes"),
    "a warm start": dict(initialModel=networks.Mlp().state_dict(), epochs=1),
}


@pytest.mark.parametrize("options", OBJECTS.values(), ids=OBJECTS)
def test_a_loaded_estimator_trains_the_same_model(no_session, tmp_path, options):
    estimator, path = classifier(**options), str(tmp_path / "estimator")
    estimator.save(path)
    loaded = TorchEstimator.load(path)
    assert loaded.uid == estimator.uid
    here, there = estimator.fit(rows()), loaded.fit(rows())
    assert there.weights == here.weights
    timed = ("seconds", "waited")
    for one, two in zip(here.summary.history, there.summary.history, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in two.items() if k not in timed}
    loaded.write().overwrite().save(path)  # what was loaded can be saved again
    assert TorchEstimator.load(path).fit(rows()).weights == here.weights


def test_a_loss_of_ones_own_is_saved_by_its_name(no_session, tmp_path):
    estimator = TorchEstimator(module=functools.partial(nn.Linear, 4, 1), loss=pinball, epochs=1, launcher="local")
    estimator.save(str(tmp_path / "estimator"))
    loaded = TorchEstimator.load(str(tmp_path / "estimator"))
    assert loaded.getOrDefault("loss").func is pinball
    assert loaded.fit(rows()).weights == estimator.fit(rows()).weights


UNSAVEABLE = {
    "a module that was built": (dict(module=networks.Mlp()), "module cannot be saved: a Mlp that was built already"),
    "a local function": (dict(module=lambda: networks.Mlp()), "module cannot be saved: .* cannot be imported"),
    "an unmarked function": (
        dict(optimizer=networks.mlp),
        "optimizer cannot be saved: .* subclass of Optim",
    ),
    "a metric with a function": (
        dict(metrics={"own": networks.Towers(users=3)}),
        "metrics cannot be saved: .*@sparkopt.deep.builder",
    ),
}


@pytest.mark.parametrize(("options", "message"), UNSAVEABLE.values(), ids=UNSAVEABLE)
def test_what_has_no_name_is_refused_and_nothing_is_written(no_session, tmp_path, options, message):
    with pytest.raises(ParameterError, match=message):
        classifier(**options).save(str(tmp_path / "estimator"))
    assert not (tmp_path / "estimator").exists()


def test_callbacks_and_loggers_are_left_out_aloud(no_session, tmp_path, caplog):
    classifier(callbacks=[print]).save(str(tmp_path / "estimator"))
    assert "callbacks are not saved" in caplog.text
    assert TorchEstimator.load(str(tmp_path / "estimator")).callbacks == ()


FOREIGN = {
    "a function": ("optimizer", {"reference": dict(name="os:system", positional=["true"], keywords={})}),
    "an unpickler": ("optimizer", {"reference": dict(name="torch:load", positional=["x"], keywords={})}),
    "a class of another kind": ("loss", {"instance": dict(name="torch.optim:SGD", positional=[], keywords={})}),
    "what functional imports": ("loss", {"functional": "warnings"}),
}


@pytest.mark.parametrize(("name", "found"), FOREIGN.values(), ids=FOREIGN)
def test_loading_calls_nothing_unexpected(name, found):
    with pytest.raises(DataError, match="nor marked with|has no loss"):
        from_json(name, found)


def test_what_is_written_is_json():
    for name, value in dict(loss=nn.HuberLoss(delta=2.0), optimizer=SGD, module=networks.Mlp, scheduler=None).items():
        assert to_json(name, json.loads(json.dumps(to_json(name, value))) and value) == to_json(name, value)
    assert from_json("loss", to_json("loss", nn.HuberLoss(delta=2.0))).delta == 2.0


def test_an_altered_estimator_is_refused(no_session, tmp_path):
    classifier().save(str(tmp_path / "estimator"))
    (file,) = (tmp_path / "estimator" / "metadata").glob("part-*")
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps({**metadata, "paramMap": {**metadata["paramMap"], "epochs": 3}}))
    with pytest.raises(CorruptDataError, match="its digest is not that"):
        TorchEstimator.load(str(tmp_path / "estimator"))


def test_a_pipeline_is_saved_with_its_estimator(no_session, tmp_path):
    pipeline, path = Pipeline(stages=[classifier()]), str(tmp_path / "pipeline")
    pipeline.save(path)
    loaded = Pipeline.load(path)
    assert loaded.fit(rows()).stages[0].weights == pipeline.fit(rows()).stages[0].weights


def searched():
    """A search over rate, rows of a batch, passes and the network itself, which should find the longest training."""
    estimator = classifier(optimizer="sgd", stepSize=1e-6)
    modules = [networks.Mlp, functools.partial(networks.Mlp, hidden=16)]
    grid = ParamGridBuilder().addGrid(estimator.module, modules).addGrid(estimator.stepSize, [1e-6, 0.5])
    grid = grid.addGrid(estimator.epochs, [6]).addGrid(estimator.batchSize, [8])
    return CrossValidator(
        estimator=estimator,
        estimatorParamMaps=grid.build(),
        evaluator=RegressionEvaluator(metricName="mae"),
        numFolds=2,
        seed=1,
    )


def test_a_search_finds_network_and_rate_and_is_saved(no_session, tmp_path):
    search, path = searched(), str(tmp_path / "search")
    found = search.fit(rows())
    assert len(found.avgMetrics) == 4
    best = search.getEstimatorParamMaps()[int(np.argmin(found.avgMetrics))]
    estimator = search.getEstimator()
    assert best[estimator.stepSize] == 0.5
    assert found.bestModel.weights == estimator.fit(rows(), best).weights
    search.save(path)
    loaded = CrossValidator.load(path)
    assert loaded.fit(rows()).avgMetrics == found.avgMetrics
    found.save(f"{path}-model")
    again = CrossValidatorModel.load(f"{path}-model")
    assert isinstance(again.bestModel, TorchModel)
    assert again.bestModel.weights == found.bestModel.weights


@pytest.mark.usefixtures("minutes")
def test_spark_and_this_machine_read_what_the_other_wrote(spark, tmp_path, monkeypatch):
    by_spark, here = (str(tmp_path / name) for name in ("spark", "here"))
    estimator = classifier(optimizer=SGD)
    expected = estimator.fit(rows()).weights
    estimator.save(by_spark)
    searched().save(f"{by_spark}-search")
    with monkeypatch.context() as patched:
        without_session(patched)
        assert TorchEstimator.load(by_spark).fit(rows()).weights == expected
        assert len(CrossValidator.load(f"{by_spark}-search").getEstimatorParamMaps()) == 4
        estimator.save(here)
    df = spark.createDataFrame(rows()).coalesce(1)
    assert TorchEstimator.load(here).fit(df).weights == estimator.fit(df).weights

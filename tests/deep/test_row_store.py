"""Rows that are written once: the same models as by each fit for itself, and refusals of what asks for other rows."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.tuning import ParamGridBuilder
from torch import nn

from sparkopt import Table, images
from sparkopt.deep import RowStore, TorchEstimator, row_store
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.ml import CrossValidator, RegressionEvaluator
from sparkopt.shards import temporary
from tests.deep import networks

ROWS = 90
X = np.random.default_rng(4).normal(size=(ROWS, 4)).astype(np.float32)
DATA = pa.table(
    {"features": list(X), "label": (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1), "w": np.arange(ROWS) / ROWS}
)
SMALL = images.Compose([images.Decode("gray"), images.Resize(4, 4), images.Rescale(1 / 255)])


def estimator(**options):
    given = dict(module=networks.Mlp, loss="multinomial", epochs=2, batchSize=16, launcher="local", seed=3)
    return TorchEstimator(**{**given, **options})


@pytest.fixture
def written(monkeypatch):
    """How many stores are written."""
    stores, write = [], temporary.write_store

    def counting(*args, **options):
        stores.append(args[2])
        return write(*args, **options)

    for module in (temporary, row_store):
        monkeypatch.setattr(module, "write_store", counting)
    return stores


CANDIDATES = {
    "network": dict(module=functools.partial(networks.Mlp, hidden=3)),
    "loss": dict(loss=nn.NLLLoss(), module=lambda: nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))),
    "optimiser and rate": dict(optimizer="momentum", stepSize=0.3),
    "batches and passes": dict(batchSize=7, epochs=1, streams=3),
    "metrics of rows held out": dict(metrics={"accuracy": "accuracy"}),
}


def test_fits_on_a_store_give_what_fits_on_the_rows_do(tmp_path, written):
    options = dict(validationFraction=0.2, weightCol="w")
    store = RowStore.write(DATA, str(tmp_path / "rows"), estimator(**options))
    found = {name: estimator(**options, **own).fit(store) for name, own in CANDIDATES.items()}
    again = RowStore.open(str(tmp_path / "rows"))
    assert len(written) == 1
    for name, own in CANDIDATES.items():
        expected = estimator(**options, **own).fit(DATA)
        for model in (found[name], estimator(**options, **own).fit(again)):
            assert model.weights == expected.weights
            assert model.transform(DATA).equals(expected.transform(DATA))
            assert [one["validation"] for one in model.summary.history] == [
                one["validation"] for one in expected.summary.history
            ]
    (tmp_path / "rows").rename(tmp_path / "moved")
    moved = RowStore.open(str(tmp_path / "moved"))
    assert moved.index.fingerprint == store.index.fingerprint
    assert estimator(**options).fit(moved).weights == estimator(**options).fit(DATA).weights
    moved.delete()
    assert not (tmp_path / "moved").exists()


OTHERS = {
    "other columns": (dict(featuresCol="w"), r"written with features='features'; the estimator has features='w'"),
    "another label": (dict(labelCol="w"), "labelCol='label'; the estimator has labelCol='w'"),
    "weights": (dict(weightCol="w"), "weightCol=None; the estimator has weightCol='w'"),
    "rows held out": (dict(validationFraction=0.3), "validationFraction=None; the estimator has .*=0.3"),
    "padding": (dict(paddedCols=["features"]), "paddedCols=None; the estimator has paddedCols="),
    "labels of a step": (
        dict(loss=None, step=lambda module, batch: batch.inputs[0].sum(1), labelCols=[]),
        r"labelCols=None; the estimator has labelCols=\[\]",
    ),
}


@pytest.mark.parametrize(("options", "message"), OTHERS.values(), ids=OTHERS)
def test_an_estimator_that_asks_for_other_rows_is_refused(tmp_path, options, message):
    store = RowStore.write(DATA, str(tmp_path / "rows"), estimator())
    given = {name: value for name, value in {**dict(loss="multinomial"), **options}.items() if value is not None}
    with pytest.raises(ParameterError, match=message):
        TorchEstimator(module=networks.Mlp, launcher="local", **given).fit(store)


def test_another_seed_is_another_split_only_where_rows_are_drawn(tmp_path):
    store = RowStore.write(DATA, str(tmp_path / "rows"), estimator())
    assert estimator(seed=8).fit(store).weights == estimator(seed=8).fit(DATA).weights
    drawn = RowStore.write(DATA, str(tmp_path / "drawn"), estimator(validationFraction=0.2))
    with pytest.raises(ParameterError, match="seed=3; the estimator has seed=8"):
        estimator(validationFraction=0.2, seed=8).fit(drawn)


def test_labels_that_one_loss_ignores_and_another_does_not(tmp_path):
    """Matters only where there are such labels."""
    plain = RowStore.write(DATA, str(tmp_path / "plain"), estimator())
    values = estimator(loss="squared_error", module=functools.partial(nn.Linear, 4, 1))
    assert values.fit(plain).weights == values.fit(DATA).weights
    label = DATA["label"].to_numpy().copy()
    label[:5] = -100
    data = DATA.set_column(1, "label", pa.array(label))
    store = RowStore.write(data, str(tmp_path / "ignored"), estimator())
    assert estimator().fit(store).weights == estimator().fit(data).weights
    with pytest.raises(ParameterError, match="ignores the label -100, and this one ignores None"):
        values.fit(store)


def test_images_that_were_not_looked_at_are_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 5, 5, 1), dtype=np.uint8)
    data = pa.table({"image": [images.encode(one, "png") for one in pixels], "label": np.arange(12) % 2})
    options = dict(module=flat, featuresCol="image", imagePipeline=SMALL)
    store = RowStore.write(data, str(tmp_path / "rows"), estimator(**options))
    assert estimator(**options).fit(store).weights == estimator(**options).fit(data).weights
    with pytest.raises(ParameterError, match="needs a store in which invalid images were looked for"):
        estimator(**options, handleInvalid="skip").fit(store)
    checked = RowStore.write(data, str(tmp_path / "checked"), estimator(**options, handleInvalid="skip"))
    assert estimator(**options, handleInvalid="skip").fit(checked).weights == estimator(**options).fit(data).weights


def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def test_what_is_there_already_or_is_no_store(tmp_path):
    store = RowStore.write(DATA, str(tmp_path / "rows"), estimator())
    with pytest.raises(ParameterError, match="exists already: delete it, or open it by RowStore.open"):
        RowStore.write(DATA, str(tmp_path / "rows"), estimator())
    assert estimator().fit(store).weights
    with pytest.raises(DataError, match="there is no store at"):
        RowStore.open(str(tmp_path / "absent"))
    with pytest.raises(SchemaError, match="'absent' does not exist"):
        RowStore.write(DATA, str(tmp_path / "other"), estimator(featuresCol="absent"))
    assert not (tmp_path / "other").exists()


def grid(base):
    modules = [networks.Mlp, functools.partial(networks.Mlp, hidden=3)]
    return (
        ParamGridBuilder()
        .addGrid(base.module, modules)
        .addGrid(base.loss, ["multinomial", nn.CrossEntropyLoss(label_smoothing=0.1)])
        .addGrid(base.optimizer, ["adam", "sgd"])
        .addGrid(base.stepSize, [0.01, 0.1])
        .build()
    )


def test_candidates_share_a_store_that_is_gone_afterwards(tmp_path, written):
    base = estimator(storePath=str(tmp_path))
    models = dict(base.fitMultiple(DATA, grid(base)))
    assert len(written) == 1
    assert not list(tmp_path.iterdir())
    for number, chosen in enumerate(grid(base)):
        if number % 5 == 0:
            assert models[number].weights == base.fit(DATA, chosen).weights


def test_candidates_of_other_rows_have_a_store_of_their_own(tmp_path, written):
    base = estimator(storePath=str(tmp_path))
    maps = [{base.weightCol: name, base.stepSize: rate} for name in ("w", "") for rate in (0.01, 0.1)]
    models = base.fit(DATA, maps)
    assert len(written) == 2
    assert not list(tmp_path.iterdir())
    assert [model.weights for model in models] == [base.fit(DATA, one).weights for one in maps]


def test_a_search_writes_rows_once_a_fold(tmp_path, written):
    base = estimator(storePath=str(tmp_path))
    search = CrossValidator(
        estimator=base, estimatorParamMaps=grid(base)[:4], evaluator=RegressionEvaluator(metricName="mae"), numFolds=2
    )
    search.fit(DATA)
    assert len(written) == 3  # two folds, and the best on all rows
    assert not list(tmp_path.iterdir())


def test_candidates_that_nobody_asks_for_leave_nothing(tmp_path, written):
    base = estimator(storePath=str(tmp_path))
    found = base.fitMultiple(DATA, grid(base))
    next(found)
    assert list(tmp_path.iterdir())
    del found
    assert not list(tmp_path.iterdir())


def test_a_candidate_that_cannot_work_is_refused_before_rows_are_written(tmp_path, written):
    base = estimator(storePath=str(tmp_path))
    with pytest.raises(ParameterError, match="optimizer must be one of"):
        base.fit(DATA, [{base.optimizer: "adam?"}, {base.optimizer: "sgd"}])
    assert not written
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("minutes")
def test_on_spark(spark, tmp_path, written):
    """A search of pyspark.ml's, on several threads; and a store that another session's fit opens."""
    from pyspark.ml import tuning

    base = estimator(storePath=str(tmp_path), numProc=1)
    df = spark.createDataFrame(DATA).coalesce(1)
    evaluator = RegressionEvaluator(metricName="mae")
    search = tuning.TrainValidationSplit(
        estimator=base, estimatorParamMaps=grid(base)[:4], evaluator=evaluator, parallelism=2, seed=1
    )
    search.fit(df)
    assert len(written) == 2
    assert not list(tmp_path.iterdir())
    store = RowStore.write(df, str(tmp_path / "rows"), base)
    by_ranks = estimator(launcher="torch", numProc=2).fit(RowStore.open(str(tmp_path / "rows"), spark))
    assert by_ranks.weights == estimator(launcher="torch", numProc=2).fit(df).weights
    assert Path(store.index.uri).exists()


def test_rows_that_a_framework_holds_elsewhere_need_shared_storage():
    rows = dataclasses.replace(
        Table.of((np.eye(2), np.zeros(2))), cluster=SimpleNamespace(name="Dask, 2 workers", is_here=False)
    )
    estimator = TorchEstimator(module=functools.partial(nn.Linear, 2, 1), launcher="local")
    with pytest.raises(ParameterError, match="storePath must be set: storage that .* Dask, 2 workers share"):
        estimator.fit(rows)

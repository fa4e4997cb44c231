"""On one machine: what a table is trained on, and gives, is what Spark's rows are, to the bit; and without Java."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sparkopt import images
from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator
from sparkopt.errors import DataError, LostRankError
from sparkopt.machine import Table
from sparkopt.shards.fields import Fields
from sparkopt.shards.held_out import HeldOut
from sparkopt.shards.store import write_store
from tests.deep import killing, networks
from tests.deep.rows import parted, table_of

SGD = functools.partial(torch.optim.SGD, lr=0.2, momentum=0.9)
PIPELINE = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
ENDS = [150, 150, 170]


def pictures(rows=40):
    rng = np.random.default_rng(1)
    return [images.functional.encode(rng.integers(0, 256, (9, 12, 1), dtype=np.uint8), "png") for _ in range(rows)]


def every_kind(rows=240):
    """A column of each type that tensors are made of, under a name that says which."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 4))
    vectors = [dict(type=1, size=None, indices=None, values=list(row)) for row in X]
    sparse = [dict(type=0, size=4, indices=[1, 3], values=[row[1], row[3]]) for row in X]
    vector = pa.struct(
        {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
    )
    tensors = [dict(shape=[2, 2], dtype="float32", data=row.astype(np.float32).tobytes()) for row in X]
    return pa.table(
        {
            "double": X[:, 0],
            "float": X[:, 1].astype(np.float32),
            "int": pa.array(rng.integers(-5, 5, rows), pa.int32()),
            "boolean": X[:, 2] > 0,
            "decimal": pa.array([round(value, 2) for value in X[:, 3]]).cast(pa.decimal128(9, 2), safe=False),
            "doubles": pa.array(list(X)),
            "whole": pa.array([[int(4 * value) for value in row] for row in X], pa.list_(pa.int16())),
            "nested": pa.array([[list(row[:2]), list(row[2:])] for row in X]),
            "vector": pa.array(vectors, vector),
            "sparse": pa.array(sparse, vector),
            "tensor": pa.array(tensors),
            "label": (2 * X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1),
            "weight": rng.integers(0, 3, rows) / 2,
            "aside": rng.random(rows) < 0.2,
        }
    )


def on_spark(spark, table):
    """The same rows in the same partitions."""
    parts = table.partitions

    def rows(batches):
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from parts[number].batches()

    return spark.range(0, len(parts), 1, len(parts)).mapInArrow(rows, spark_schema(table.schema))


CHOICES = {
    "numbers": (["double", "float", "int", "boolean", "decimal"], None),
    "inputs": (["doubles", "int", "whole", "nested", "tensor"], HeldOut(("aside",))),
    "vectors": ("vector", HeldOut(("vector", "label", "weight"), 0.3, 5)),
    "sparse": ("sparse", HeldOut(("sparse", "label", "weight"), 0.3, 2**40)),
    "hashed": (["doubles", "tensor"], HeldOut(("doubles", "tensor", "nested", "decimal", "boolean"), 0.5, 1)),
}


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize(("features", "held_out"), CHOICES.values(), ids=CHOICES)
def test_a_store_does_not_tell_who_wrote_it(spark, tmp_path, features, held_out):
    table = parted(every_kind(), ENDS)
    fields = Fields.of(spark_schema(table.schema), features, "label", "weight")
    here = write_store(table, fields, str(tmp_path / "here"), held_out)
    there = write_store(on_spark(spark, table), fields, str(tmp_path / "there"), held_out)
    assert here.fingerprint == there.fingerprint
    assert (here.tensors, here.rows("validation")) == (there.tensors, there.rows("validation"))
    assert [shard.groups for shard in here.training] == [shard.groups for shard in there.training]


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("options", [dict(launcher="local"), dict(numProc=2)], ids=["one process", "two"])
def test_a_table_is_trained_on_as_on_spark(spark, tmp_path, options):
    """Weights, losses, metrics, and a checkpoint of the one that the other continues from."""
    table = parted(every_kind(), ENDS)
    settings = dict(
        module=functools.partial(networks.Mlp, dropout=0.2),
        loss="multinomial",
        optimizer=SGD,
        stepSizeSchedule="cosine",
        featuresCol="vector",
        weightCol="weight",
        batchSize=16,
        validationFraction=0.25,
        metrics={"accuracy": "accuracy"},
        seed=3,
        **options,
    )
    here = TorchEstimator(epochs=3, **settings).fit(table)
    there = TorchEstimator(epochs=3, **settings).fit(on_spark(spark, table))
    assert here.weights == there.weights
    assert here.summary.objectiveHistory == there.summary.objectiveHistory
    for one, two in zip(here.summary.history, there.summary.history, strict=True):
        assert (one["validation"], one["accuracy"]) == (two["validation"], two["accuracy"])
    begun = dict(checkpointDir=str(tmp_path), checkpointInterval=4, **settings)
    TorchEstimator(epochs=2, **begun).fit(on_spark(spark, table))
    continued = TorchEstimator(epochs=3, **begun).fit(table)
    assert continued.summary.receipt.resumed == "epoch-000002-step-000000000"
    assert len(continued.summary.history) == 3


@pytest.mark.usefixtures("minutes")
def test_a_model_scores_a_table_as_on_spark(spark):
    table = parted(every_kind(), ENDS)
    model = TorchEstimator(module=networks.mlp, loss="multinomial", featuresCol="vector", epochs=1).fit(table)
    scored = model.transform(table)
    here = pa.Table.from_batches([batch for part in scored.partitions for batch in part.batches()], scored.schema)
    there = model.transform(on_spark(spark, table)).collect()
    for name in ("rawPrediction", "probability", "prediction"):
        expected = [row[name] if name == "prediction" else row[name].toArray().tolist() for row in there]
        assert here[name].to_pylist() == expected


def test_images_by_path_are_images_by_content(tmp_path):
    content = pictures()
    paths = [str(tmp_path / f"{number}.png") for number in range(len(content))]
    for path, image in zip(paths, content, strict=True):
        with open(path, "wb") as file:
            file.write(image)
    label = [number % 10 for number in range(len(content))]
    options = dict(module=networks.digits_cnn, loss="multinomial", imagePipeline=PIPELINE, epochs=2, batchSize=8)
    models = {}
    for name, values in (("path", paths), ("content", content)):
        rows = pa.table({name: values, "label": label})
        models[name] = TorchEstimator(featuresCol=name, **options).fit(rows)
    assert models["path"].weights == models["content"].weights
    found = models["path"].transform(pa.table({"path": paths}))
    assert found["prediction"] == models["content"].transform(pa.table({"content": content}))["prediction"]
    broken = pa.table({"path": [paths[0], "nowhere.png"], "label": [0, 1]})
    with pytest.raises(DataError, match=r"features column 'path', partition 0, row 1 is 'nowhere.png', unreadable: "):
        TorchEstimator(featuresCol="path", **options).fit(broken)


@pytest.fixture(scope="module")
def scorer():
    """A model of four features, whose predictions are those of its module."""
    rows = every_kind()
    estimator = TorchEstimator(
        module=functools.partial(networks.Mlp, classes=1), featuresCol="doubles", epochs=1, batchSize=64
    )
    return estimator.fit(rows), rows.select(["doubles", "label"])


def predicted(model, rows):
    X = torch.tensor(rows["doubles"].to_pylist(), dtype=torch.float32)
    with torch.inference_mode():
        return model.module(X)[:, 0].double().numpy()


def test_rows_come_back_as_they_were_given(scorer, tmp_path):
    model, rows = scorer
    expected = predicted(model, rows)
    found = model.transform(rows)
    assert found.schema.names == ["doubles", "label", "prediction"]
    np.testing.assert_allclose(found["prediction"], expected, rtol=1e-6)
    one = model.transform(rows.to_batches()[0])
    assert isinstance(one, pa.RecordBatch)
    assert one.column("prediction") == found["prediction"].chunk(0)
    frame = rows.to_pandas().set_index(np.arange(len(expected)) + 7)
    scored = model.transform(frame)
    assert isinstance(scored, pd.DataFrame)
    assert scored.index.equals(frame.index)
    np.testing.assert_allclose(scored["prediction"], expected, rtol=1e-6)
    stream = model.transform(pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=50)))
    assert [len(batch) for batch in stream] == [50, 50, 50, 50, 40]
    pq.write_table(rows, tmp_path / "rows.parquet")
    lazy = model.transform(str(tmp_path / "rows.parquet"))
    assert isinstance(lazy, Table)
    assert lazy.rows == 240
    (batch,) = lazy.partitions[0].batches(["prediction", "label"])
    assert batch.schema.names == ["prediction", "label"]
    np.testing.assert_allclose(batch.column(0), expected, rtol=1e-6)


def test_no_rows_are_scored_as_no_rows(scorer):
    model, rows = scorer
    found = model.transform(rows.slice(0, 0))
    assert (found.num_rows, found.schema.names[-1]) == (0, "prediction")


def test_scoring_reads_what_it_needs_only(scorer):
    """Columns of the rows alone do not run the network."""
    model, rows = scorer
    lazy = model.transform(table_of([rows]))
    broken = table_of([rows.set_column(0, "doubles", pa.array([[1.0]] * rows.num_rows))])
    assert [batch.num_columns for batch in model.transform(broken).partitions[0].batches(["label"])] == [1]
    assert [batch.num_rows for batch in lazy.partitions[0].batches()] == [240]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(model.transform(broken).partitions[0].batches())


@pytest.mark.usefixtures("kills")
def test_a_killed_rank_is_named_and_training_continues(tmp_path):
    """One of this machine's processes: the same model as without it."""
    X = np.random.default_rng(0).normal(size=(640, 3))
    rows = pa.table({"features": list(X), "label": (X[:, 0] > 0).astype(int)})
    undisturbed = killing.estimator(killing.calm(tmp_path / "calm"), "torch").fit(rows)
    (tmp_path / "lost").mkdir()
    with pytest.raises(LostRankError, match=r"a process of 2 ended unexpectedly, rank \d: it was killed by SIGKILL"):
        killing.estimator(tmp_path / "lost", "torch").fit(rows)
    again = killing.estimator(tmp_path / "lost", "torch").fit(rows)
    (tmp_path / "restarted").mkdir()
    restarted = killing.estimator(tmp_path / "restarted", "torch", maxRestarts=1).fit(rows)
    assert restarted.summary.receipt.restarts == 1
    for found in (again, restarted):
        assert found.summary.receipt.resumed is not None
        assert found.weights == undisturbed.weights


SCRIPT = """
import functools, sys
import numpy as np
import sparkopt.images
from pyspark import SparkContext
from sparkopt.deep import TorchEstimator, TorchModel
import torch
X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
estimator = TorchEstimator(module=functools.partial(torch.nn.Linear, 4, 1), epochs=1, batchSize=16, numProc=1)
model = estimator.fit((X, X.sum(axis=1)))
rows = next(model.transform((X, X[:, 0])).partitions[0].batches())
print(rows.num_rows, rows.schema.names, SparkContext._gateway)
"""


def test_no_java_is_looked_for(tmp_path):
    """Not even found: neither by JAVA_HOME nor on the PATH."""
    environment = {**os.environ, "JAVA_HOME": "/nowhere", "PATH": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["64 ['features', 'label', 'prediction'] None"], done.stderr[-2000:]

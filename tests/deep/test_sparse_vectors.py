"""Sparse Vectors: sparse in the store, dense in a batch, and the same training as of dense ones."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql.types import StructType
from torch import nn

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep import TorchEstimator
from sparkopt.errors import DataError
from sparkopt.launch import run
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep.rows import parted

WIDTH, ROWS = 50, 300
RNG = np.random.default_rng(5)
VECTOR = pa.struct(
    {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
)


def matrix(rows=ROWS, share=0.05):
    X = RNG.normal(size=(rows, WIDTH)).astype(np.float32)
    X[RNG.random(X.shape) > share] = 0
    return X


def sparse(row):
    (places,) = row.nonzero()
    return dict(type=0, size=len(row), indices=list(places), values=list(row[places].astype(float)))


def dense(row):
    return dict(type=1, size=None, indices=None, values=list(row.astype(float)))


def vectors(X, kinds):
    """A column of Vectors, each made by the function that ``kinds`` has for it."""
    return pa.array([kind(row) for kind, row in zip(kinds, X, strict=True)], VECTOR)


X = matrix()
LABEL = X[:, 0] - 2 * X[:, 7] + 1
COLUMNS = {
    "dense": vectors(X, [dense] * ROWS),
    "sparse": vectors(X, [sparse] * ROWS),
    "mixed": vectors(X, [dense if row % 3 else sparse for row in range(ROWS)]),
    "sparse partition first": vectors(X, [sparse if row < 100 else dense for row in range(ROWS)]),
}


def table(kind, ends=(100,)):
    return parted({"features": COLUMNS[kind], "label": LABEL}, ends)


def fitted(rows, **options):
    """A model of shuffled rows; a store of dense rows has other groups, so that order is of one group here."""
    given = dict(module=functools.partial(nn.Linear, WIDTH, 1), loss="squared_error", epochs=3, batchSize=32, seed=2)
    return TorchEstimator(**{**given, "launcher": "local", **options}).fit(rows)


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_model_is_that_of_dense_rows(kind):
    """As PyTorch trains it on the batches in which the rows come; here, those are the same for all."""
    expected = fitted(table("dense"))
    found = fitted(table(kind))
    assert found.weights == expected.weights
    rows = pa.table({"features": COLUMNS[kind]})
    predicted = found.transform(rows)["prediction"].to_numpy()
    weight, bias = (one.detach().numpy() for one in found.module.parameters())
    np.testing.assert_allclose(predicted, X @ weight[0] + bias, rtol=1e-4, atol=1e-5)


def test_a_store_takes_the_bytes_of_what_is_set(tmp_path):
    schema = spark_schema(table("sparse").schema)
    stores = {
        kind: write_store(table(kind), Fields.of(schema, "features", "label"), str(tmp_path / kind[:6]))
        for kind in ("dense", "sparse")
    }
    assert stores["dense"].bytes > ROWS * WIDTH * 4
    set_bytes = 8 * np.count_nonzero(X)
    labels_and_offsets = ROWS * 12
    assert stores["sparse"].bytes < set_bytes + labels_and_offsets + 8000  # of footers
    assert stores["sparse"].tensors == stores["dense"].tensors


def test_functions_on_ranks_get_dense_arrays():
    def rows_of(context):
        return np.concatenate([batch["features"] for batch in context.batches()])

    (found,) = run(rows_of, table("mixed"), launcher="local", batchSize=64)
    order = np.lexsort(found.T)
    np.testing.assert_array_equal(found[order], X[np.lexsort(X.T)])


BAD = {
    "NaN": (dict(type=0, size=WIDTH, indices=[3, 20], values=[1.0, np.nan]), "row 5 is nan at position 20"),
    "infinity": (dict(type=1, size=None, indices=None, values=[np.inf] * WIDTH), "row 5 is inf at position 0"),
    "another width": (dict(type=0, size=7, indices=[1], values=[1.0]), "row 5 has 7 entries where the rows before"),
    "null": (None, "row 5 is null"),
}


@pytest.mark.parametrize(("value", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_trained_on_is_named(value, message):
    rows = COLUMNS["sparse"].to_pylist()
    rows[5] = value
    data = pa.table({"features": pa.array(rows, VECTOR), "label": LABEL})
    with pytest.raises(DataError, match=rf"^features column 'features', partition 0, {message}"):
        fitted(data)
    if value is None or WIDTH in (value["size"], len(value["values"])):
        assert fitted(data, handleInvalid="skip", epochs=1).summary.receipt.skipped == 1


LARGE = """
import functools, resource
import numpy as np, pyarrow as pa, torch
from sparkopt.deep import TorchEstimator

rows, width, each = 100_000, 10_000, 10
rng = np.random.default_rng(0)
places = np.sort(rng.integers(0, width // each, (rows, each)) + np.arange(each) * (width // each), axis=1)
offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * each)
column = pa.StructArray.from_arrays(
    [
        pa.array(np.zeros(rows, np.int8)),
        pa.array(np.full(rows, width, np.int32)),
        pa.ListArray.from_arrays(offsets, pa.array(places.reshape(-1).astype(np.int32))),
        pa.ListArray.from_arrays(offsets, pa.array(rng.normal(size=rows * each))),
    ],
    ["type", "size", "indices", "values"],
)
torch.set_num_threads(1)
data = pa.table({"features": column, "label": rng.normal(size=rows)})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear = functools.partial(torch.nn.Linear, width, 1)
model = TorchEstimator(
    module=linear, epochs=1, batchSize=1000, launcher="local", handleInvalid="skip", optimizer="sgd"
).fit(data)
scored = model.transform(data.slice(0, 2000))
print(model.summary.receipt.rows, scored.num_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.usefixtures("minutes")
def test_memory_is_that_of_what_is_set_and_a_few_batches():
    """100,000 rows of 10,000 columns, 10 of which are set: dense, they would be 4 GB."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", LARGE], env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert not done.returncode, done.stderr[-2000:]
    rows, scored, kilobytes = map(int, done.stdout.split()[-3:])
    assert (rows, scored) == (100_000, 2000)
    assert kilobytes < 1_000_000


def test_spark_writes_the_same_rows(spark, tmp_path):
    """From memory, and from Parquet, whose Vectors Spark reads by columns."""
    rows = [
        (Vectors.sparse(WIDTH, value["indices"], value["values"]) if value["type"] == 0 else Vectors.dense(row), y)
        for value, row, y in zip(COLUMNS["mixed"].to_pylist(), X.tolist(), LABEL.tolist(), strict=True)
    ]
    df = spark.createDataFrame(rows, StructType().add("features", VectorUDT()).add("label", "float")).coalesce(1)
    df.write.parquet(str(tmp_path / "parquet"))
    fields = Fields.of(df.schema, "features", "label")
    here = write_store(table("mixed", ()), fields, str(tmp_path / "here"))
    for name, source in {"memory": df, "parquet": spark.read.parquet(str(tmp_path / "parquet")).coalesce(1)}.items():
        there = write_store(source, fields, str(tmp_path / f"from-{name}"))
        assert (there.tensors, there.fingerprint) == (here.tensors, here.fingerprint)

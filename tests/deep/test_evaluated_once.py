"""On Spark, a network is evaluated once for each row that filters of other columns leave, wherever rows come from."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F
from torch import nn

from sparkopt.deep import TorchModel
from sparkopt.launch.checkpoints import module_bytes

ROWS = 60
X = np.random.default_rng(2).normal(size=(ROWS, 2)).astype(np.float32)


class Counting(nn.Linear):
    """Writes down how many rows it is given."""

    def __init__(self, file: str) -> None:
        super().__init__(2, 2)
        self.file = file

    def forward(self, x):
        with open(self.file, "a", encoding="utf-8") as evaluated:
            evaluated.write(f"{len(x)}\n")
        return super().forward(x)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = str(tmp_path_factory.mktemp("counted") / "rows")
    module = Counting(file)
    return TorchModel(functools.partial(Counting, file), module_bytes(module.state_dict()), "classes", (2,))


@pytest.fixture(scope="module")
def sources(spark, tmp_path_factory):
    """The rows as arrays and as Vectors, from memory, from Parquet and from a cache."""
    arrays = pa.table({"id": np.arange(ROWS), "x": list(X), "a": X[:, 0], "b": X[:, 1]})
    plain = spark.createDataFrame(arrays).coalesce(2)
    vectors = VectorAssembler(inputCols=["a", "b"], outputCol="features").transform(plain.drop("x"))
    found = {}
    for name, rows in {"arrays": plain.withColumnRenamed("x", "features"), "Vectors": vectors}.items():
        path = str(tmp_path_factory.mktemp("rows") / name)
        rows.write.parquet(path)
        found |= {name: rows, f"{name} in Parquet": spark.read.parquet(path), f"{name}, cached": rows.cache()}
    yield found
    for rows in found.values():
        rows.unpersist()


def evaluated(model):
    """How many rows were evaluated since this was called last."""
    file = model._build.args[0]
    with open(file, "r+", encoding="utf-8") as counted:
        found = sum(map(int, counted.read().split()))
        counted.truncate(0)
    return found


def probabilities(model):
    """As PyTorch has them."""
    with torch.no_grad():
        found = torch.softmax(model.module(torch.from_numpy(X)).double(), 1).numpy()
    evaluated(model)
    return found


SOURCES = [f"{kind}{source}" for kind in ("arrays", "Vectors") for source in ("", " in Parquet", ", cached")]


@pytest.mark.parametrize("mode", ["error", "skip", "keep"])
@pytest.mark.parametrize("source", SOURCES)
def test_each_row_once_whatever_filters_follow(sources, model, source, mode):
    rows = sources[source]
    expected = probabilities(model)
    model = model.copy().setHandleInvalid(mode)
    scored = model.transform(rows)
    assert scored.columns == [*rows.columns, "rawPrediction", "probability", "prediction"]
    conditions = {
        "output": F.col("prediction") == 1,
        "outputs": (F.col("prediction") == 1) & (vector_to_array("probability")[1] > 0.6),
    }
    for name, condition in conditions.items():
        kept = scored.where(condition & (F.col("id") >= 20)).select("id", F.col("prediction") * 2, "probability")
        found = {row["id"]: row["probability"].toArray() for row in kept.collect()}
        assert evaluated(model) == ROWS - 20
        least = 0.5 if name == "output" else 0.6
        wanted = {row: value for row, value in enumerate(expected) if row >= 20 and value[1] > least}
        assert found.keys() == wanted.keys()
        for row, value in wanted.items():
            np.testing.assert_allclose(found[row], value, rtol=1e-6)

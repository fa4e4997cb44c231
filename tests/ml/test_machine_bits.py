"""The same partitions give the same bits: each estimator on a table, in one process or several, and on Spark."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt.blocks import machine
from sparkopt.blocks.tables import ROW_METADATA, spark_schema
from sparkopt.errors import SparkoptError
from sparkopt.machine import Table, parquet, threads
from sparkopt.machine.threads import Threads
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    QuantileRegression,
)
from tests.partitions import as_spark_reads

ROWS, WIDTH = 900, 12
rng = np.random.default_rng(11)
DENSE = rng.normal(size=(ROWS, WIDTH))
SPARSE = np.where(rng.random((ROWS, WIDTH)) < 0.1, DENSE, 0.0)
MIXED = np.where(np.arange(ROWS)[:, None] % 3 == 0, DENSE, SPARSE)
RAW = SPARSE @ np.linspace(-2, 2, WIDTH)
LABELS = {
    "flag": (RAW + rng.logistic(size=ROWS) > 0).astype(float),
    "kind": np.digitize(RAW + rng.logistic(size=ROWS), [-0.5, 0.5]).astype(float),
    "number": RAW + rng.normal(size=ROWS),
    "count": rng.poisson(np.exp(np.clip(RAW, -2, 1))).astype(float),
    "weight": rng.uniform(0.5, 2.0, ROWS),
    "exposure": rng.uniform(-0.2, 0.2, ROWS),
}
COLUMNS = [f"c{number}" for number in range(WIDTH)]


def vectors(rows: np.ndarray, is_sparse: np.ndarray) -> pa.Array:
    """Vector structs as Spark writes them."""
    structs = [
        {"type": 0, "size": WIDTH, "indices": np.flatnonzero(row).tolist(), "values": row[row != 0].tolist()}
        if sparse
        else {"type": 1, "size": None, "indices": None, "values": row.tolist()}
        for row, sparse in zip(rows, is_sparse, strict=True)
    ]
    kinds = {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
    return pa.array(structs, pa.struct(kinds))


LAYOUTS = {
    "dense": {"features": pa.array(DENSE.tolist(), pa.list_(pa.float32()))},
    "sparse": {"features": vectors(SPARSE, np.ones(ROWS, bool))},
    "mixed": {"features": vectors(MIXED, np.arange(ROWS) % 3 > 0)},
    "columns": {name: DENSE[:, number] for number, name in enumerate(COLUMNS)},
}

ESTIMATORS = {
    "binomial": lambda **options: LogisticRegression(labelCol="flag", classWeights="balanced", **options),
    "multinomial": lambda **options: LogisticRegression(labelCol="kind", weightCol="weight", **options),
    "squared error": lambda **options: LinearRegression(labelCol="number", weightCol="weight", **options),
    "huber": lambda **options: LinearRegression(labelCol="number", loss="huber", **options),
    "poisson": lambda **options: GeneralizedLinearRegression(
        labelCol="count", family="poisson", offsetCol="exposure", **options
    ),
    "quantile": lambda **options: QuantileRegression(labelCol="number", quantile=0.7, **options),
    "hinge": lambda **options: LinearSVC(labelCol="flag", weightCol="weight", **options),
}

MODES = {
    "full": {"maxIter": 3},
    "mini-batch": {"maxIter": 4, "miniBatchFraction": 0.5, "optimizer": "adam", "stepSize": 0.1},
    "local steps": {"maxIter": 3, "localSteps": 4, "optimizer": "sgd", "stepSize": 0.05},
    "compressed": {"maxIter": 3, "compression": "int8", "optimizer": "sgd", "stepSize": 0.05},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three files of each layout, of two row groups each."""
    folders = {}
    for layout, features in LAYOUTS.items():
        folders[layout] = tmp_path_factory.mktemp(layout)
        table = pa.table({**features, **LABELS})
        noted = {ROW_METADATA: spark_schema(table.schema).json()}  # by which Spark knows Vectors
        table = table.replace_schema_metadata(noted)
        for number, (begin, end) in enumerate([(0, 400), (400, 500), (500, ROWS)]):
            pq.write_table(table.slice(begin, end - begin), folders[layout] / f"{number}.parquet", row_group_size=210)
    return folders


def outcome(estimator, rows) -> list[float] | str:
    """What was fitted, or the line that says why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            (matrix, intercept), auxiliary = (model := estimator.fit(rows)).arrays, model.auxiliary
        except SparkoptError as error:
            return str(error)
    return [*matrix.ravel().tolist(), *intercept.tolist(), *auxiliary.tolist()]


def made(name: str, layout: str, mode: str):
    """An estimator of some layout, in some mode."""
    features = {"featuresCols": COLUMNS} if layout == "columns" else {}
    return ESTIMATORS[name](regParam=0.01, seed=3, engine="driver", **features, **MODES[mode])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_threads_and_worker_processes_give_the_bits_of_one_thread(folders, name, layout, monkeypatch):
    monkeypatch.setattr(parquet, "LEAST", 1)
    table = Table.of(folders[layout])
    assert len(table.partitions) == 5
    here = {mode: outcome(made(name, layout, mode), table) for mode in MODES}
    with monkeypatch.context() as in_threads:
        in_threads.setattr(machine, "IN_ONE_THREAD", 0)
        in_threads.setattr(machine, "Threads", lambda _, seconds: Threads(3, seconds))  # on any number of cores
        in_threads.setattr(threads, "WORTH_SECONDS", 0.0)
        assert {mode: outcome(made(name, layout, mode), table) for mode in MODES} == here
    monkeypatch.setattr(machine, "IN_MEMORY", 0)
    assert {mode: outcome(made(name, layout, mode), table) for mode in MODES} == here


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_table_gives_the_bits_of_spark(spark, folders, name, layout):
    df = spark.read.parquet(str(folders[layout]))
    compared = 0
    for mode in MODES:
        estimator = made(name, layout, mode)
        table = as_spark_reads(df, estimator._columns(), folders[layout])
        assert len(table.partitions) > 1
        here = outcome(estimator, table)
        assert here == outcome(estimator, df), mode
        compared += isinstance(here, list)
    assert compared >= 2

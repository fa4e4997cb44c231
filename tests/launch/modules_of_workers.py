"""Fit Parquet files in this machine's processes or in Spark's, and print what their workers have imported.

Run by test_python_daemon.py: prints, for each worker, its modules and those that its daemon had not imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkopt.blocks.tables import ROW_METADATA, spark_schema
from sparkopt.launch.python_daemon import PRELOADED
from sparkopt.ml import LogisticRegression

ROWS, WIDTH = 400, 5


def write(kind: str, folder: Path) -> str:
    """Two files of rows, as Spark writes them."""
    X = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
    lists = pa.array(X.tolist(), pa.list_(pa.float64()))
    if kind == "vectors":
        none = pa.nulls(ROWS, pa.int32()), pa.nulls(ROWS, pa.list_(pa.int32()))
        names = ["type", "size", "indices", "values"]
        lists = pa.StructArray.from_arrays([pa.array(np.ones(ROWS, np.int8)), *none, lists], names)
    table = pa.table({"features": lists, "label": (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(float)})
    table = table.replace_schema_metadata({ROW_METADATA: spark_schema(table.schema).json()})
    (folder / "rows").mkdir()
    for number in range(2):
        pq.write_table(table.slice(number * ROWS // 2, ROWS // 2), folder / "rows" / f"{number}.parquet")
    return str(folder / "rows")


def look(_: object) -> tuple[int, list[str]]:
    """Return this worker and its modules."""
    time.sleep(0.5)  # so that each worker looks
    return os.getpid(), list(sys.modules)


def on_this_machine(path: str) -> dict[int, list[str]]:
    """Fit with two workers."""
    os.environ["SPARKOPT_PROCESSES"] = "2"
    from sparkopt.blocks import machine
    from sparkopt.machine import ProcessPool

    machine.IN_MEMORY = 0
    LogisticRegression(regParam=0.1).fit(path)
    with ProcessPool.shared() as pool:
        return dict(pool.run(look, range(4)))


def on_spark(path: str) -> dict[int, list[str]]:
    """Fit with Spark's workers."""
    from sparkopt.launch.session import session

    spark = session(settings={"spark.master": "local[2]", "spark.driver.memory": "1g"})
    model = LogisticRegression(regParam=0.1).fit(spark.read.parquet(path))
    assert model.summary.receipt.reader.startswith("arrow"), model.summary.receipt.reader
    return dict(spark.sparkContext.range(0, 4, 1, 4).map(look).collect())


def preloaded() -> set[str]:
    """Return what the daemon has imported before it forks."""
    code = f"import importlib, sys\nfor n in {PRELOADED!r}: importlib.import_module(n)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


if __name__ == "__main__":
    where, kind, folder = sys.argv[1:]
    source = write(kind, Path(folder))
    found = on_this_machine(source) if where == "machine" else on_spark(source)
    known = preloaded()
    print(json.dumps([(modules, sorted({*modules} - known)) for modules in found.values()]))

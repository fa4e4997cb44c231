"""A session that finishes the fit which a killed one left, then begins another, in which it is killed.

Run by test_killed_sessions.py: ``killed_session KIND FOLDER``, where KIND is "machine", "spark" or the address of a
Spark Connect server. It starts, reads how often it is to fit, and says on its output which phase begins, and what its
fits find.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

import sparkopt
from sparkopt import BlockStore, Checkpointer, Columns, Stop, Trainer, losses
from sparkopt.engines.selection import by_name
from sparkopt.ml import LogisticRegressionModel
from sparkopt.solver.progress import Progress
from sparkopt.validation import Interval

STEPS, INTERVAL = 8, 2
CODEC = "lz4"  # on one machine, blocks of small rows are in memory without it
PHASES = ("ingest", "first pass", "between passes", "last pass", "transform")
ROOT = Path(__file__).parents[2]


def write_rows(folder: Path) -> None:
    """Write four files of rows, equal in every process."""
    folder.mkdir(parents=True)
    for part in range(4):
        rng = np.random.default_rng(part)
        X = rng.normal(size=(5000, 3))
        columns = {"features": list(X), "label": (X[:, 0] + rng.normal(size=5000) > 0).astype(float)}
        parquet.write_table(pa.table(columns), folder / f"part-{part}.parquet", row_group_size=5000)


def opened(kind: str, folder: Path) -> tuple[Any, Any]:
    """Return a session, None without Spark, and the rows."""
    if kind == "machine":
        return None, sparkopt.Table.of(str(folder / "rows"))
    if kind != "spark":
        from pyspark.sql import SparkSession

        spark = SparkSession.builder.remote(kind).getOrCreate()
        return spark, spark.read.parquet(str(folder / "rows"))
    from sparkopt.launch.session import session
    from tests import jvm

    settings = {"spark.master": "local[2]", "spark.driver.memory": "1g", "spark.local.dir": str(folder / "local")}
    settings["spark.driver.extraJavaOptions"] = jvm.OPTIONS
    spark = session(ROOT / "conf" / "local.conf", settings=settings)
    return spark, spark.read.parquet(str(folder / "rows"))


def fit(rows: Any, folder: Path) -> None:
    """Read, train with checkpoints, and score; say which phase begins."""

    def announce(progress: Progress) -> None:
        if progress.record.step in (0, STEPS - 1):
            say("between passes" if progress.record.step == 0 else "last pass")

    say("ingest")
    checkpointer = Checkpointer(str(folder / "checkpoints"), interval=INTERVAL)
    with BlockStore.write(rows, Columns("features", "label"), Interval(0, 1, whole=True), CODEC) as store:
        _ = store.rows
        say("first pass")
        settings = {"stop": Stop(STEPS, 0.0), "checkpointer": checkpointer, "engine": by_name("driver")}
        found = Trainer(losses.Logistic(), callbacks=[announce], **settings).fit(store)
    say("transform")
    model = LogisticRegressionModel(found.coefficients.reshape(1, -1), found.intercept)
    scored = model.transform(rows)
    scores = scored.to_arrow() if isinstance(scored, sparkopt.Table) else scored.toArrow()
    result = {
        "numbers": [*found.coefficients.ravel().tolist(), *found.intercept.tolist()],
        "ones": float(np.sum(scores.column("prediction").to_numpy())),
        "resumed": found.receipt.resumed_at,
    }
    print("RESULT " + json.dumps(result), flush=True)
    say("end")


def say(phase: str) -> None:
    print(f"PHASE {phase}", flush=True)


def main(kind: str, folder: str) -> None:
    logging.basicConfig(level=logging.ERROR)
    spark, rows = opened(kind, Path(folder))
    for _ in range(int(sys.stdin.readline() or 0)):  # nothing where whoever started it is gone
        fit(rows, Path(folder))
    if spark is not None:
        spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Fit again and again in one session, over all engines, and say what processes hold after ten fits and at the end.

Run by test_many_fits.py: ``many_fits.py RUNS``; prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparkopt.launch.session import session
from sparkopt.ml import LinearRegression, LogisticRegression

ENGINES = ("driver", "resident", "allreduce", "local", "auto")
SETTLED = 10
"""Fits until every engine has been there twice."""


def held(spark: SparkSession, local: Path) -> dict[str, Any]:
    """What this process, Spark's JVM and its Python workers hold."""
    gc.collect()
    context: Any = spark.sparkContext
    context._jvm.System.gc()
    me = psutil.Process()
    family = me.children(recursive=True)
    workers = [one for one in family if "python" in one.name()]
    return {
        "memory": me.memory_info().rss,
        "worker memory": max((one.memory_info().rss for one in workers), default=0),
        "workers": len(workers),
        "threads": threading.active_count(),
        "files": me.num_fds(),
        "worker files": max((one.num_fds() for one in workers), default=0),
        "ports": sum(one.status == psutil.CONN_LISTEN for one in me.net_connections("inet")),
        "cached": context._jsc.getPersistentRDDs().size(),
        "folders": sorted(path.name for path in local.rglob("sparkopt-*")),
        "temporary": sorted(path.name for path in Path(tempfile.gettempdir()).glob("sparkopt-*")),
    }


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    runs, local = int(sys.argv[1]), Path(tempfile.mkdtemp())
    tempfile.tempdir = tempfile.mkdtemp()
    settings = {"spark.master": "local[2]", "spark.local.dir": str(local), "spark.ui.enabled": "false"}
    spark = session(Path(__file__).parents[2] / "conf" / "local.conf", settings=settings)
    rows = spark.range(0, 400, 1, 2).select(F.array(*[F.randn(seed) for seed in range(3)]).alias("features"))
    df = rows.withColumn("label", (F.col("features")[0] + F.randn(7) > 0).cast("double")).localCheckpoint()
    found: dict[str, Any] = {"engines": {}}
    for run in range(runs):
        kind = LogisticRegression if run // len(ENGINES) % 2 else LinearRegression
        model = kind(engine=ENGINES[run % len(ENGINES)], maxIter=3, tol=0.0, regParam=0.01).fit(df)
        model.transform(df).select("prediction").collect()
        ran = model.summary.receipt.engine
        found["engines"][ran] = found["engines"].get(ran, 0) + 1
        if run + 1 == SETTLED:
            time.sleep(1)
            found["settled"] = held(spark, local)
    time.sleep(1)  # tasks that were asked to end have ended
    found["end"] = held(spark, local)
    spark.stop()
    found["left"] = sorted(path.name for path in local.rglob("sparkopt-*"))
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()

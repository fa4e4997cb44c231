"""On a cluster of two executor processes, fit undisturbed, then kill an executor amid a fit of each engine.

Run by test_cluster.py with the pairs of engine and reader: prints one line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile

import numpy as np
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns, Stop, Trainer, losses
from sparkopt.checkpoint.checkpointer import Checkpointer
from sparkopt.engines.selection import by_name
from sparkopt.launch.session import session
from sparkopt.solver.progress import Progress
from sparkopt.validation import Interval
from tests import jvm


def executors() -> list[int]:
    """Process ids of the executors that descend from this process."""
    table = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    processes = [line.split(None, 2) for line in table.splitlines()]
    family = {os.getpid()}
    for _ in range(5):
        family |= {int(pid) for pid, parent, *_ in processes if int(parent) in family}
    return [int(p[0]) for p in processes if int(p[0]) in family and "CoarseGrainedExecutorBackend" in p[-1]]


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    spark = session(
        sys.argv[1],
        settings={
            "spark.master": "local-cluster[2,1,1024]",
            "spark.executor.memory": "1g",
            "spark.driver.memory": "1g",
            **jvm.EXECUTORS,
        },
    )
    rows = spark.range(0, 4000, 1, 4).select(F.array(*[F.randn(seed) for seed in range(3)]).alias("features"))
    made = rows.withColumn("label", (F.col("features")[0] + F.randn(7) > 0).cast("double"))
    made.write.parquet(folder := tempfile.mkdtemp() + "/rows")
    sources = {"spark": made, "arrow": spark.read.parquet(folder)}

    def fit(engine: str, reader: str, *callbacks: object) -> tuple[list[float], list[float], str]:
        trainer = Trainer(
            losses.Logistic(),
            stop=Stop(8, 0.0),
            engine=by_name(engine),
            callbacks=callbacks,
            checkpointer=Checkpointer(tempfile.mkdtemp(), interval=1),
        )
        with BlockStore.write(sources[reader], Columns("features", "label"), Interval(0, 1, whole=True)) as store:
            assert store.reader.startswith(reader), store.reader
            found = trainer.fit(store)
        receipt = found.receipt
        return np.append(found.coefficients, found.intercept).tolist(), receipt.objective, receipt.engine

    def killed(engine: str, reader: str) -> dict[str, object]:
        pids: list[int] = []

        def kill(progress: Progress) -> None:
            if progress.record.step == 4 and not pids:
                pids.append(executors()[0])
                os.kill(pids[0], signal.SIGKILL)

        coefficients, objective, ran = fit(engine, reader, kill)
        return {"coefficients": coefficients, "objective": objective, "engine": ran, "pids": pids}

    calm = {reader: fit("driver", reader)[:2] for reader in sources}
    pairs = [pair.split(":") for pair in sys.argv[2:]]
    fits = [{"reader": reader, "asked": engine, **killed(engine, reader)} for engine, reader in pairs]
    print("RESULT " + json.dumps({"calm": calm, "fits": fits}))
    spark.stop()


if __name__ == "__main__":
    main()

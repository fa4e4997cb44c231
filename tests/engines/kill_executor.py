"""On a cluster of two executor processes, fit undisturbed, then with tasks that fail once they have read their files,
then kill an executor amid a fit of each engine.

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pyspark import TaskContext
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns, Stop, Trainer, losses
from sparkopt.blocks import classic
from sparkopt.blocks.handles import Handle
from sparkopt.blocks.parquet import FilePart
from sparkopt.blocks.tasks import ReadParquet
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


@dataclass(frozen=True)
class FailsOnce(ReadParquet):
    """The task that reads files, which fails in its first attempt when it has read them and written its blocks."""

    folder: str = ""

    def __call__(self, partition: int, partitions: Iterable[Sequence[FilePart]]) -> Iterator[Handle]:
        context = TaskContext.get()
        assert context is not None
        for handle in super().__call__(partition, partitions):
            if partition % 2 and context.attemptNumber() == 0:
                Path(self.folder, str(partition)).write_text(handle.path)
                raise RuntimeError("this task fails once")
            yield handle


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

    def retried() -> dict[str, object]:
        folder = tempfile.mkdtemp()
        classic.ReadParquet = partial(FailsOnce, folder=folder)  # type: ignore[assignment,misc]
        try:
            coefficients, objective, _ = fit("driver", "arrow")
        finally:
            classic.ReadParquet = ReadParquet  # type: ignore[misc]
        failed = {int(path.name): os.path.exists(path.read_text()) for path in Path(folder).iterdir()}
        return {"coefficients": coefficients, "objective": objective, "left": failed}

    calm = {reader: fit("driver", reader)[:2] for reader in sources}
    again = retried()
    pairs = [pair.split(":") for pair in sys.argv[2:]]
    fits = [{"reader": reader, "asked": engine, **killed(engine, reader)} for engine, reader in pairs]
    print("RESULT " + json.dumps({"calm": calm, "retried": again, "fits": fits}))
    spark.stop()


if __name__ == "__main__":
    main()

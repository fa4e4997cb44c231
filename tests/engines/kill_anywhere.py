"""On a cluster of two executor processes, kill a Python worker or an executor at random moments of a fit's phases.

Run by test_kill_anywhere.py: ``kill_anywhere.py RUNS SEED ENGINE…``; prints one line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns, Stop, Trainer, losses
from sparkopt.engines.selection import by_name
from sparkopt.launch.session import session
from sparkopt.ml import LogisticRegressionModel
from sparkopt.solver.progress import Progress
from sparkopt.validation import Interval
from tests import jvm

STEPS = 6
PHASES = ("ingest", "first pass", "between passes", "last pass", "transform")
VICTIMS = ("worker", "executor")


def victims(kind: str) -> list[int]:
    """Processes of a kind that descend from this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            line, parent = " ".join(process.cmdline()), process.parent()
            is_worker = "daemon" in line and parent is not None and "daemon" in " ".join(parent.cmdline())
            if is_worker if kind == "worker" else "CoarseGrainedExecutorBackend" in line:
                found.append(process.pid)
    return found


class Killer:
    """Kills one process of a kind in a phase; without a kind it measures how long phases take."""

    def __init__(self, kind: str, phase: str, seconds: dict[str, float], chance: random.Random) -> None:
        self.kind, self.phase, self.seconds, self.chance = kind, phase, seconds, chance
        self.killed: list[int] = []
        self.step, self._began = chance.randrange(1, STEPS - 1), time.monotonic()

    def kill(self) -> None:
        found = victims(self.kind)
        if found and not self.killed:
            self.killed.append(self.chance.choice(found))
            with suppress(ProcessLookupError):
                os.kill(self.killed[0], signal.SIGKILL)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        begin, timer = time.monotonic(), None
        if self.kind and phase == self.phase:
            timer = threading.Timer(self.chance.random() * self.seconds[phase], self.kill)
            timer.start()
        self._began = begin
        yield
        self.seconds.setdefault(phase, time.monotonic() - begin)
        if timer is not None:
            timer.join()

    def __call__(self, progress: Progress) -> None:
        """Called after each step."""
        step = progress.record.step
        if step == 0 or "first pass" not in self.seconds:
            self.seconds.setdefault("first pass", time.monotonic() - self._began)
        if self.kind and self.phase == "between passes" and step == self.step:
            self.kill()
        if step == STEPS - 1:
            self.seconds.setdefault("last pass", self.seconds["first pass"])
            if self.kind and self.phase == "last pass":
                threading.Timer(self.chance.random() * self.seconds["last pass"], self.kill).start()


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    runs, chance, local = int(sys.argv[1]), random.Random(int(sys.argv[2])), Path(tempfile.mkdtemp())
    settings = {
        "spark.master": "local-cluster[2,1,1024]",
        "spark.executor.memory": "1g",
        "spark.driver.memory": "1g",
        "spark.local.dir": str(local),
        **jvm.EXECUTORS,
    }
    spark = session(Path(__file__).parents[2] / "conf" / "local.conf", settings=settings)
    rows = spark.range(0, 4000, 1, 4).select(F.array(*[F.randn(seed) for seed in range(3)]).alias("features"))
    made = rows.withColumn("label", (F.col("features")[0] + F.randn(7) > 0).cast("double"))
    made.write.parquet(folder := tempfile.mkdtemp() + "/rows")
    df = spark.read.parquet(folder)

    def fit(engine: str, killer: Killer) -> list[float]:
        with killer.during("ingest"):
            store = BlockStore.write(df, Columns("features", "label"), Interval(0, 1, whole=True))
            _ = store.rows
        with store, killer.during("first pass"):
            trainer = Trainer(losses.Logistic(), stop=Stop(STEPS, 0.0), engine=by_name(engine), callbacks=[killer])
            found = trainer.fit(store)
        coefficients = np.append(found.coefficients, found.intercept)
        model = LogisticRegressionModel(found.coefficients.reshape(1, -1), found.intercept)
        with killer.during("transform"):
            ones = model.transform(df).where("prediction = 1").count()
        return [*coefficients.tolist(), float(ones)]

    results = []
    for engine in sys.argv[3:]:
        fit(engine, Killer("", "", {}, chance))  # workers have started
        seconds: dict[str, float] = {}
        calm = fit(engine, Killer("", "", seconds, chance))
        for kind in VICTIMS:
            for phase in PHASES:
                for _ in range(runs):
                    killer = Killer(kind, phase, dict(seconds), chance)
                    try:
                        found: Any = fit(engine, killer) == calm
                    except Exception as error:  # noqa: BLE001  # the test shows it
                        found = repr(error)[:2000]
                    results.append(
                        {
                            "engine": engine,
                            "victim": kind,
                            "phase": phase,
                            "killed": len(killer.killed),
                            "same": found,
                        }
                    )
                    print(results[-1], file=sys.stderr, flush=True)
    cached = spark.sparkContext._jsc.getPersistentRDDs().size()
    spark.stop()
    left = sorted(path.name for path in local.rglob("sparkopt-*"))
    threads = sorted(one.name for one in threading.enumerate() if one.name.startswith("sparkopt"))
    print("RESULT " + json.dumps({"results": results, "cached": cached, "left": left, "threads": threads}))


if __name__ == "__main__":
    main()

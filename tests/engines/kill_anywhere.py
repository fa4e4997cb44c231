"""On a cluster of executor processes, kill a Python worker or an executor at random moments of a fit's phases.

Run by test_kill_anywhere.py: ``kill_anywhere.py KILLS SEED ENGINE:VICTIM…``; prints one line of JSON.
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
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pyspark.sql import functions as F

from sparkopt import BlockStore, Columns, Stop, Trainer, losses
from sparkopt.engines.selection import by_name
from sparkopt.launch.python_daemon import MODULE
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
    """Kills one process of a kind in a phase; without a kind it measures how long phases take.

    Attributes
    ----------
    killed : str
        The phase in which it killed one; "" where it has not.
    """

    def __init__(self, kind: str, phase: str, seconds: dict[str, float], chance: random.Random) -> None:
        self.kind, self.phase, self.seconds, self.chance = kind, phase, seconds, chance
        self.killed, self.current, self._began = "", "", 0.0
        self.step = chance.randrange(1, STEPS - 1)
        self._timer: threading.Timer | None = None
        self._found: list[int] = []

    def kill(self) -> None:
        found = [pid for pid in self._found if psutil.pid_exists(pid)] or victims(self.kind)
        if found and not self.killed:
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(found), signal.SIGKILL)
                self.killed = self.current

    def begins(self, phase: str) -> None:
        """Say which phase begins; "" ends the last."""
        if self.kind and phase == self.phase:
            self._found = victims(self.kind)  # this takes a while
        now = time.monotonic()
        if self.current and not self.killed:  # how long phases take depends on what else the machine does
            self.seconds[self.current] = now - self._began
        self.current, self._began = phase, now
        if phase and self.kind and phase == self.phase != "between passes":
            self._timer = threading.Timer(self.chance.random() * self.seconds[phase], self.kill)
            self._timer.start()

    def __call__(self, progress: Progress) -> None:
        """Called after each step."""
        step = progress.record.step
        if step in (0, STEPS - 1):
            self.begins("between passes" if step == 0 else "last pass")
        elif self.phase == "between passes" and step == self.step:
            self.kill()

    def end(self) -> None:
        """Wait for the moment of a kill that has not come yet."""
        self.begins("")
        if self._timer is not None:
            self._timer.join()


class Cluster:
    """Rows in two files, and an executor more than they need: a fit need not wait for a new one to start."""

    def __init__(self, local: Path) -> None:
        settings = {
            "spark.master": "local-cluster[3,1,1024]",
            "spark.executor.memory": "1g",
            "spark.driver.memory": "1g",
            "spark.local.dir": str(local),
            "spark.python.daemon.module": MODULE,  # workers are forked by the hundred: with what they import
            "spark.ui.enabled": "false",
            **jvm.EXECUTORS,
        }
        self.spark = session(Path(__file__).parents[2] / "conf" / "local.conf", settings=settings)
        rows = self.spark.range(0, 4000, 1, 2).select(
            F.array(*[F.randn(seed) for seed in range(3)]).alias("features")
        )
        made = rows.withColumn("label", (F.col("features")[0] + F.randn(7) > 0).cast("double"))
        made.write.parquet(folder := tempfile.mkdtemp() + "/rows")
        self.rows = self.spark.read.parquet(folder)

    def wait_for_executors(self) -> None:
        """Wait until two are known: one that was killed is replaced."""
        memory = self.spark.sparkContext._jsc.sc().getExecutorMemoryStatus
        deadline = time.monotonic() + 120
        while memory().size() < 3:  # and the driver
            assert time.monotonic() < deadline, "an executor that was killed is not replaced"
            time.sleep(0.02)

    def fit(self, engine: str, killer: Killer) -> list[float]:
        """Read, train and score."""
        killer.begins("ingest")
        with BlockStore.write(self.rows, Columns("features", "label"), Interval(0, 1, whole=True)) as store:
            _ = store.rows
            killer.begins("first pass")
            trainer = Trainer(losses.Logistic(), stop=Stop(STEPS, 0.0), engine=by_name(engine), callbacks=[killer])
            found = trainer.fit(store)
        killer.begins("transform")
        model = LogisticRegressionModel(found.coefficients.reshape(1, -1), found.intercept)
        ones = model.transform(self.rows).where("prediction = 1").count()
        killer.end()
        return [*np.append(found.coefficients, found.intercept).tolist(), float(ones)]


def killed(cluster: Cluster, engine: str, kind: str, kills: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Fit until so many processes of a kind were killed in each phase."""
    cluster.fit(engine, Killer("", "", {}, chance))  # workers have started
    seconds: dict[str, float] = {}
    calm = cluster.fit(engine, Killer("", "", seconds, chance))
    landed = Counter[str]()
    for phase in PHASES:
        tries = 0
        while landed[phase] < kills and tries < 10 * kills:
            cluster.wait_for_executors()
            killer, tries = Killer(kind, phase, seconds, chance), tries + 1
            try:
                found: Any = cluster.fit(engine, killer) == calm
            except Exception as error:  # noqa: BLE001  # the test shows it
                found = repr(error)[:2000]
            landed[killer.killed] += 1  # some come when the phase is over
            yield {"engine": engine, "victim": kind, "killed": killer.killed, "same": found}


def left_in(local: Path, seconds: float = 60) -> list[str]:
    """Return what is left once executors have ended, for which Spark does not wait: they delete their folders."""
    deadline = time.monotonic() + seconds
    while left := sorted(path.name for path in local.rglob("sparkopt-*")):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return left


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    kills, chance, local = int(sys.argv[1]), random.Random(int(sys.argv[2])), Path(tempfile.mkdtemp())
    cluster, results, begin = Cluster(local), [], time.monotonic()
    for pair in sys.argv[3:]:
        for result in killed(cluster, *pair.split(":"), kills, chance):
            print(f"{time.monotonic() - begin:.1f} s: {result}", file=sys.stderr, flush=True)
            results.append(result)
    cached = cluster.spark.sparkContext._jsc.getPersistentRDDs().size()
    cluster.spark.stop()
    left = left_in(local)
    threads = sorted(one.name for one in threading.enumerate() if one.name.startswith("sparkopt"))
    print("RESULT " + json.dumps({"results": results, "cached": cached, "left": left, "threads": threads}))


if __name__ == "__main__":
    main()

"""A training that is killed once, on purpose. As a script it is the driver that is killed; test_kill.py reads on.

python -m tests.deep.killing driver FOLDER LAUNCHER    train, and kill this very process after a few steps
python -m tests.deep.killing executor FOLDER LAUNCHER  on two executors, of which one is killed amid the training
python -m tests.deep.killing elastic FOLDER LAUNCHER   train on with the rank that is left, until another joins it
python -m tests.deep.killing elastic-cluster FOLDER LAUNCHER    likewise with the executor that is left
"""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import distributed

from sparkopt.deep import TorchEstimator
from sparkopt.errors import LostRankError
from sparkopt.solver.progress import Progress
from tests import jvm
from tests.deep.networks import Mlp

ROOT = Path(__file__).parents[2]
CLUSTER = "local-cluster[2,1,1024]"
MASTERS = {"driver": "local[2]", "executor": CLUSTER, "elastic": "local[2, 4]", "elastic-cluster": CLUSTER}
"""In local mode Spark starts a task again only where the master says how often one may fail."""
STEP = 33
"""Where it happens: in the second of three epochs of 20 steps, past a checkpoint within that epoch."""


class Mortal(Mlp):
    """Kills its process once: the first of them to come to step ``STEP`` and find no file of that name."""

    def __init__(self, witness: str, pause: float, dropout: float) -> None:
        super().__init__(features=3, classes=2, dropout=dropout)
        self.witness, self.passes = witness, 0
        self._pause = pause  # private: it decides on no weight

    def forward(self, x):
        time.sleep(self._pause)  # so that somebody else can be killed meanwhile
        self.passes += self.training
        if self.training and self.passes == STEP:
            try:
                os.close(os.open(self.witness, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                Path(self.witness).write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def rows(spark: SparkSession) -> DataFrame:
    """Equal in every process: 640 rows in partitions of unequal size."""
    table = spark.range(0, 640, 1, 2).select("id", F.array(*[F.randn(seed) for seed in range(3)]).alias("features"))
    table = table.withColumn("label", (F.col("features")[0] > 0).cast("int"))
    return table.where("id < 320").union(table.where("id >= 320"))


class Lonely(Mortal):
    """Takes its time while its rank is the only one: somebody is to join it."""

    def forward(self, x):
        if _is_alone():
            time.sleep(0.25)
        return super().forward(x)


def _is_alone() -> bool:
    """Whether this process is the only one of a group, PyTorch's or Horovod's."""
    if distributed.is_initialized():
        return distributed.get_world_size() == 1
    if "horovod" not in sys.modules:
        return False
    import horovod.torch as hvd

    return bool(hvd.is_initialized() and hvd.size() == 1)


def estimator(
    folder: Path,
    launcher: str,
    pause: float = 0.0,
    kind: type[Mortal] = Mortal,
    dropout: float = 0.2,
    **options: object,
) -> TorchEstimator:
    """Two processes, 60 steps, dropout and momentum, a checkpoint every five steps."""
    settings: dict[str, object] = {
        "epochs": 3,
        "checkpointDir": str(folder / "checkpoints"),
        "checkpointInterval": 5,
        **options,
    }
    return TorchEstimator(
        module=functools.partial(kind, str(folder / "witness"), pause, dropout),
        loss="multinomial",
        optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        launcher=launcher,
        numProc=2,
        batchSize=16,
        storePath=str(folder / "rows"),
        seed=3,
        **settings,
    )


def calm(folder: Path) -> Path:
    """Make a folder in which nobody is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "witness").touch()
    return folder


def driver(spark: SparkSession, folder: Path, launcher: str) -> None:
    """Kill this process, once the ranks report step ``STEP``."""

    def kill(progress: Progress) -> None:
        if progress.record.step >= STEP:
            os.kill(os.getpid(), signal.SIGKILL)

    estimator(calm(folder), launcher, 0.05, callbacks=[kill]).fit(rows(spark))


def executioner(killed: dict[int, float]) -> Callable[[Progress], None]:
    """Return a callback that kills an executor after step ``STEP``, once, and notes it."""
    from tests.engines.kill_executor import executors

    def kill(progress: Progress) -> None:
        if progress.record.step >= STEP and not killed:
            time.sleep(0.2)  # so that there are steps to repeat: the report comes at once
            pid = executors()[0]
            os.kill(pid, signal.SIGKILL)
            killed[pid] = time.monotonic()

    return kill


def executor(spark: SparkSession, folder: Path, launcher: str) -> None:
    """Kill an executor; print how the training ended, began again and ended, and how an undisturbed one does."""
    killed: dict[int, float] = {}
    kill = executioner(killed)
    df = rows(spark)
    undisturbed = estimator(calm(folder / "calm"), launcher).fit(df)
    disturbed = estimator(calm(folder / "killed"), launcher, 0.05, callbacks=[kill])
    facts = {}
    try:
        disturbed.fit(df)
    except LostRankError as error:
        ((pid, begin),) = killed.items()
        facts = {"pid": pid, "error": str(error), "seconds": time.monotonic() - begin}
    found = disturbed.fit(df)
    crcs = [zlib.crc32(model.weights) for model in (undisturbed, found)]
    print("RESULT " + json.dumps({**facts, "resumed": found.summary.receipt.resumed, "weights": crcs}))


def elastic(spark: SparkSession, folder: Path, launcher: str) -> None:
    """Lose a rank, or an executor where there are any; print how the training went, and leave its weights.

    Nothing but memory keeps what was learnt.
    """
    options = {"minProc": 1, "maxRestarts": 2, "epochs": 6, "checkpointDir": None}
    if str(spark.sparkContext.master).startswith("local-cluster"):
        calm(folder)
        options |= {"pause": 0.1, "callbacks": [executioner({})]}
    model = estimator(folder, launcher, kind=Lonely, dropout=0.0, **options).fit(rows(spark))
    (folder / "weights").write_bytes(model.weights)
    receipt = model.summary.receipt
    facts = {"processes": receipt.processes, "restarts": receipt.restarts, "resumed": receipt.resumed}
    print("RESULT " + json.dumps({**facts, "losses": model.summary.objectiveHistory}))


def main() -> None:
    from sparkopt.launch.session import session

    what, folder, launcher = sys.argv[1:]
    settings = {
        "spark.master": MASTERS[what],
        "spark.driver.memory": "1g",
        "spark.executor.memory": "1g",
        **jvm.EXECUTORS,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={ROOT}/conf/log4j2.properties",
    }
    spark = session(ROOT / "conf" / "local.conf", settings=settings)
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    parts = {"driver": driver, "executor": executor, "elastic": elastic, "elastic-cluster": elastic}
    parts[what](spark, Path(folder), launcher)
    spark.stop()


if __name__ == "__main__":
    main()

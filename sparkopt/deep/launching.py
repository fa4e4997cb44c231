"""How a training is started: by which launcher, and again after processes were lost."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from sparkopt.blocks.backend import is_connect
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.progress import CallbackListener, GroupLog, ReportReceiver
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.worker import RankResult, train
from sparkopt.errors import LostRankError
from sparkopt.launch import (
    ConnectLauncher,
    ElasticLauncher,
    HorovodLauncher,
    Launcher,
    LocalLauncher,
    ProcessLauncher,
    TorchLauncher,
)
from sparkopt.launch.channel import Watcher
from sparkopt.solver.callbacks import close
from sparkopt.solver.progress import Callback

if TYPE_CHECKING:
    from pyspark import SparkContext  # clients of Spark Connect alone have none

__all__ = ["Launching"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launching:
    """How to start a training.

    Parameters
    ----------
    kind : {"torch", "horovod", "local"}
        The launcher.
    session : SparkSession or None
        Whose tasks the processes are, of Spark Classic or Spark Connect; None is processes of this machine.
    processes : int
        How many.
    at_least : int or None
        Fewest processes to continue with after a loss; None is all of them.
    most_losses : int
        How often processes may be lost.
    gpus : int
        GPUs that each task of a stage has to ask for itself.
    """

    kind: str
    session: SparkSession | None = field(repr=False)
    processes: int
    at_least: int | None
    most_losses: int
    gpus: int

    def run(
        self, config: TrainConfig, recipe: Recipe, callbacks: Sequence[Callback]
    ) -> tuple[list[RankResult], float, int]:
        """Train; return the ranks' results, the seconds, and how often ranks were lost."""
        begin, ended = time.perf_counter(), 0
        group = GroupLog()
        called = CallbackListener(callbacks, config.epochs)
        receiver = ReportReceiver([group, called])
        try:
            while True:
                left = self.most_losses - ended - group.losses
                try:
                    results = self._launcher(receiver, left).run(train, config, recipe)
                except LostRankError as error:
                    called.raise_error()
                    ended += 1
                    losses = ended + group.losses
                    if losses > self.most_losses:
                        raise
                    logger.warning("%s Starting again (%d of %d).", error, losses, self.most_losses)
                else:
                    called.raise_error()
                    return results, time.perf_counter() - begin, ended + group.losses
        finally:
            close(callbacks)

    def _launcher(self, watcher: Watcher, losses: int) -> Launcher:
        if self.kind == "local" or (self.session is None and self.processes == 1):
            return LocalLauncher(watcher)
        if self.session is None:
            return ProcessLauncher(self.processes, watcher)
        fewest, profile = self.at_least, _profile(self.gpus)
        if is_connect(self.session):
            return ConnectLauncher(self.session, self.processes, watcher, at_least=fewest, profile=profile)
        context = self.session.sparkContext
        if self.kind == "torch":
            return TorchLauncher(context, self.processes, watcher, at_least=fewest, profile=profile)
        if fewest is not None and losses > 0 and self._restarts_tasks(context):
            return ElasticLauncher(context, self.processes, watcher, at_least=fewest, most_losses=losses)
        return HorovodLauncher(context, self.processes, watcher, at_least=fewest)

    @staticmethod
    def _restarts_tasks(context: SparkContext) -> bool:
        """Whether Spark starts failed tasks again; otherwise a lost rank ends the job of all ranks."""
        master = str(context.master)
        local = re.fullmatch(r"local(?:\[[^,\]]+(?:,\s*(\d+))?\])?", master)
        attempts = (local[1] or 1) if local else context.getConf().get("spark.task.maxFailures", "4")
        if int(str(attempts)) > 1:
            return True
        logger.warning(
            "Spark (%s) starts no task again that has failed: when a process is lost, all will start again. In "
            "local mode local[4, 3] allows for 3 attempts.",
            master,
        )
        return False


def _profile(gpus: int) -> ResourceProfile | None:
    """Return the resources that each task requests, if the session's settings do not assign them."""
    if not gpus:
        return None
    return ResourceProfileBuilder().require(TaskResourceRequests().resource("gpu", gpus)).build

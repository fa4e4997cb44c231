"""How ranks are started: by which launcher, with what of Spark's resources, and again after some were lost."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeVar

from sparkopt.errors import LostRankError
from sparkopt.launch.channel import Watcher
from sparkopt.launch.connect import ConnectLauncher
from sparkopt.launch.elastic import ElasticLauncher
from sparkopt.launch.horovod import HorovodLauncher
from sparkopt.launch.launcher import Launcher, LocalLauncher
from sparkopt.launch.on_ray import RayLauncher
from sparkopt.launch.processes import ProcessLauncher
from sparkopt.launch.torch import TorchLauncher
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark import SparkContext  # clients of Spark Connect alone have none
    from pyspark.resource import ResourceProfile

__all__ = ["Launching", "Losses"]

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass
class Losses:
    """How often ranks were lost.

    Attributes
    ----------
    restarts : int
        How often all ranks were started again.
    survived : int
        How often the other ranks continued.
    """

    restarts: int = 0
    survived: int = 0

    @property
    def total(self) -> int:
        """Both."""
        return self.restarts + self.survived


@dataclass(frozen=True)
class Launching:
    """How to start a function on ranks.

    Parameters
    ----------
    kind : {"torch", "horovod", "ray", "local"}
        The launcher.
    session : SparkSession or None
        Whose tasks the processes are, of Spark Classic or Spark Connect; None is processes of this machine.
    processes : int
        How many.
    at_least : int or None
        Fewest processes to continue with after a loss; None is all of them.
    most_losses : int
        How often processes may be lost.
    resources : mapping of str to int
        What each task of a stage has to ask of Spark for itself, or each actor of Ray, by name: ``{"gpu": 1}``.
    """

    kind: str
    session: Any = field(repr=False)
    processes: int
    at_least: int | None = None
    most_losses: int = 0
    resources: Mapping[str, int] = field(default_factory=dict)

    def run(
        self,
        function: Callable[..., T],
        *args: Any,
        watcher: Watcher,
        losses: Losses,
        on_loss: Callable[[], None] | None = None,
    ) -> list[T]:
        """Run ``function(communicator, *args)`` on every rank, again where ranks are lost; return the results.

        Parameters
        ----------
        function : callable
            What every rank runs.
        args : object
            Its further arguments.
        watcher : Watcher
            Called with each report.
        losses : Losses
            Where losses are counted; the watcher counts those that the other ranks survive.
        on_loss : callable, optional
            Called before the ranks start again; what it raises ends the run.
        """
        while True:
            try:
                return self._launcher(watcher, self.most_losses - losses.total).run(function, *args)
            except LostRankError as error:
                if on_loss is not None:
                    on_loss()
                losses.restarts += 1
                if losses.total > self.most_losses:
                    raise
                logger.warning("%s Starting again (%d of %d).", error, losses.total, self.most_losses)

    def _launcher(self, watcher: Watcher, losses: int) -> Launcher:
        if self.kind == "ray":
            return RayLauncher(self.processes, watcher, self.at_least, self.resources)
        if self.kind == "local" or (self.session is None and self.processes == 1):
            return LocalLauncher(watcher)
        if self.session is None:
            return ProcessLauncher(self.processes, watcher, at_least=self.at_least, most_losses=losses)
        from sparkopt.blocks.backend import is_connect  # imports pyspark

        fewest, profile = self.at_least, _profile(self.resources)
        if is_connect(self.session):
            return ConnectLauncher(self.session, self.processes, watcher, at_least=fewest, profile=profile)
        context = self.session.sparkContext
        if self.kind == "torch":
            most = losses if fewest is not None and losses > 0 and self._restarts_tasks(context) else 0
            return TorchLauncher(context, self.processes, watcher, at_least=fewest, profile=profile, most_losses=most)
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


def _profile(resources: Mapping[str, int]) -> ResourceProfile | None:
    """Return the resources that each task requests, if the session's settings do not assign them."""
    if not resources:
        return None
    from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

    requests = TaskResourceRequests()
    for name, amount in resources.items():
        requests = requests.resource(name, amount)
    return ResourceProfileBuilder().require(requests).build

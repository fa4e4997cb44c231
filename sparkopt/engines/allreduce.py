"""The loop on every rank of a barrier stage; sums are added by an all-reduce, and no process receives them all."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark.cloudpickle import dumps

from sparkopt.blocks.classic import slots_of
from sparkopt.blocks.descriptions import described
from sparkopt.blocks.store import BlockStore, Located, OpenPartition
from sparkopt.communication.autotune import codecs_used
from sparkopt.communication.encoder import Encoder
from sparkopt.communication.sums import Summation
from sparkopt.engines.base import NETWORK, Engine, EngineRun, FitSize, SessionTraits
from sparkopt.engines.driver import DriverEngine
from sparkopt.engines.job import BackgroundJob
from sparkopt.engines.ranks import FitOnRank, RankFit
from sparkopt.engines.relay import Relay, without_driver
from sparkopt.engines.worker_pool import MissingBlocks
from sparkopt.errors import IncompatibleError, MissingDependencyError
from sparkopt.launch import Communicator, ConnectLauncher, HorovodLauncher, Launcher, TorchLauncher
from sparkopt.objective.work import Work
from sparkopt.solver.problem import Problem
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["AllReduceEngine"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AllReduceEngine(Engine):
    """The loop on every rank: one barrier stage a fit, sums added by ``torch.distributed`` (Gloo) or Horovod.

    Needs PyTorch, and as many free task slots at once as there are ranks. How the ranks' sums are grouped depends on
    their number, so coefficients are close to other engines', not equal to the last bit.

    Parameters
    ----------
    otherwise : DriverEngine
        The engine that takes over where blocks are missing, since it can rebuild them.
    retries : int, default 2
        How often a fit that lost a rank is started again, from its last checkpoint where it keeps any.
    launcher : {"torch", "horovod"}, default "torch"
        What starts the ranks and adds up: PyTorch in Spark's own tasks, or Horovod in processes of its own.
    """

    otherwise: DriverEngine = DriverEngine()
    retries: int = 2
    launcher: str = "torch"
    name = "allreduce"
    startup_seconds = 2.5  # importing PyTorch, and connecting the ranks
    pass_seconds = 0.003
    needs_rdds = False
    needs_barrier = in_group = True

    def __post_init__(self) -> None:
        check("launcher", self.launcher, OneOf(["torch", "horovod"]))
        check("retries", self.retries, Interval(0, None, whole=True))

    def _launcher(self, store: BlockStore) -> Launcher:
        """Return a launcher of as many ranks as can work: all slots, since any machine may hold files."""
        slots = slots_of(store.context)
        ranks = min(slots, store.partitions) if store.context.master.startswith("local") else slots
        return (TorchLauncher if self.launcher == "torch" else HorovodLauncher)(store.context, ranks)

    def _on_connect(self, store: BlockStore, fit: FitOnRank) -> RankFit | MissingBlocks | None:
        """Run the fit in a barrier stage of Spark Connect; it reads the rows itself where nothing else keeps them."""
        if self.launcher != "torch":
            raise IncompatibleError("launcher='horovod' needs a SparkContext, which Spark Connect does not have.")
        if (reading := store.read_in_task()) is None:
            launch = ConnectLauncher(store.session, min(store.slots, store.partitions), slots=store.slots)
            return launch.run(_on_rank, store.located(), fit)[0]
        if store.partitions > store.slots:
            raise IncompatibleError(
                f"engine='allreduce' needs a task for each of {store.partitions} partitions at the same time, and "
                f"this server, which keeps no blocks, runs {store.slots}: df.repartition({store.slots}), or "
                "engine='driver'."
            )
        rows, opening = reading
        launch = ConnectLauncher(store.session, store.partitions, slots=store.slots, rows=rows, prepare=opening)
        return launch.run(_on_prepared_rank, fit)[0]

    @classmethod
    def of_depth(cls, depth: int) -> AllReduceEngine:
        """Return the engine with a driver engine of this depth to fall back on."""
        return cls(DriverEngine(depth))

    def remedy(self, session: SessionTraits) -> str | None:
        """Return what would let it run on a session: PyTorch too."""
        return super().remedy(session) or (None if _has_torch() else "install PyTorch")

    def transport_seconds(self, size: FitSize) -> float:
        """Return the seconds of an all-reduce, in which each rank sends and receives about two sums."""
        return 2 * size.summed / NETWORK

    def run(
        self, problems: Sequence[Problem], work: Work, store: BlockStore, encoder: Encoder | None = None
    ) -> EngineRun:
        """Run the loop on every rank.

        Raises
        ------
        MissingDependencyError
            Where PyTorch is not installed.
        RankError
            Where a rank raised an exception; the message has its traceback.
        LostRankError
            Where a process was lost.
        """
        if not _has_torch():
            raise MissingDependencyError.of("engine='allreduce'", "torch", "deep")
        begin = time.perf_counter()
        with described(store.session, "all passes by all-reduce"):
            outcome = self._on_ranks(problems, Summation(work, encoder), store)
        if not isinstance(outcome, RankFit):
            logger.warning("some blocks are missing: the fit runs with engine='driver', which rebuilds them")
            return self.otherwise.run(problems, work, store, encoder)
        if used := codecs_used(outcome.passes):
            logger.info("%s", used)
        startup = time.perf_counter() - begin - outcome.seconds
        return EngineRun(list(outcome.solutions), list(outcome.passes), self.name, startup)

    def _on_ranks(self, problems: Sequence[Problem], summation: Summation, store: BlockStore) -> Any:
        """Return what the first rank returns."""
        if not store.has_rdds:
            alone = without_driver(self.name, problems)
            return self._on_connect(store, FitOnRank(dumps((alone, summation)), None))
        with Relay(store.context, problems) as relay:
            fit = FitOnRank(dumps((relay.problems, summation)), relay.address)
            launch, located = self._launcher(store), store.located()
            job = BackgroundJob(store.context, lambda: launch.run(_on_rank, located, fit))
            return relay.attend(job)[0]


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _on_rank(communicator: Communicator, located: Located, fit: FitOnRank) -> RankFit | MissingBlocks | None:
    """Run the fit on this rank; all end alike, and only what rank 0 returns is needed."""
    outcome = fit(communicator, located.open(_claim(communicator, located)))
    return outcome if communicator.rank == 0 else None


def _on_prepared_rank(
    communicator: Communicator, fit: FitOnRank, prepared: OpenPartition | None = None
) -> RankFit | MissingBlocks | None:
    """Run the fit on the partition that this rank has read."""
    outcome = fit(communicator, [prepared] if prepared else [])
    return outcome if communicator.rank == 0 else None


def _claim(communicator: Communicator, located: Located) -> list[int]:
    """Return the partitions of this rank: each is given to the least loaded rank of those that have its file.

    Every rank finds the same answer. A partition that no rank has is given to rank 0, which reports it as missing.
    """
    has = np.frombuffer(b"".join(communicator.all_gather(bytes(located.here()))), np.uint8)
    has = has.reshape(communicator.size, len(located.handles))
    load, mine = np.zeros(communicator.size), []
    for index, handle in enumerate(located.handles):
        owner = int(np.where(has[:, index] > 0, load, np.inf).argmin())
        load[owner] += handle.bytes
        if owner == communicator.rank:
            mine.append(index)
    return mine

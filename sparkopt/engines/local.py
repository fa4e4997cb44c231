"""The loop in one task: data that fits there needs no communication, and one Spark job a fit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pyspark.cloudpickle import dumps

from sparkopt.blocks.descriptions import described
from sparkopt.blocks.store import BlockStore, OpenPartition
from sparkopt.communication.encoder import Encoder
from sparkopt.communication.sums import Summation
from sparkopt.engines.base import Engine, EngineRun, FitSize
from sparkopt.engines.driver import DriverEngine
from sparkopt.engines.job import BackgroundJob
from sparkopt.engines.ranks import Alone, FitOnRank, RankFit
from sparkopt.engines.relay import Relay, without_driver
from sparkopt.engines.worker_pool import MissingBlocks
from sparkopt.errors import SparkoptError
from sparkopt.objective.work import Work
from sparkopt.solver.problem import Problem
from sparkopt.values import dataclass

__all__ = ["LocalEngine"]

logger = logging.getLogger(__name__)

TASK_BYTES = 256 << 20
"""Most bytes of blocks that one task is given unasked."""


@dataclass(frozen=True)
class LocalEngine(Engine):
    """The whole fit in one task, with that task's cores.

    Blocks on other machines are sent there once. Callbacks run in the driver, as with every engine.

    Parameters
    ----------
    otherwise : DriverEngine
        The engine that takes over where blocks are missing, since it can rebuild them.
    """

    otherwise: DriverEngine = DriverEngine()
    name = "local"
    startup_seconds = 0.15  # a Spark job
    pass_seconds = 0.0
    in_one_task = True
    needs_rdds = False

    @classmethod
    def of_depth(cls, depth: int) -> LocalEngine:
        """Return the engine with a driver engine of this depth to fall back on."""
        return cls(DriverEngine(depth))

    def fits(self, size: FitSize) -> bool:
        """Whether one task can hold the blocks."""
        return size.stored <= TASK_BYTES

    def run(
        self, problems: Sequence[Problem], work: Work, store: BlockStore, encoder: Encoder | None = None
    ) -> EngineRun:
        """Run the loop in one task."""
        begin = time.perf_counter()
        if encoder is not None:
            name = encoder.codec.name if encoder.codec else "auto"
            logger.info("compression=%r is not used: one task sends no sums", name)
        with described(store.session, "all passes in one task"):
            outcome = self._in_one_task(problems, work, store)
        if isinstance(outcome, SparkoptError):
            raise outcome
        if isinstance(outcome, MissingBlocks):
            logger.warning("some blocks are missing: the fit runs with engine='driver', which rebuilds them")
            return self.otherwise.run(problems, work, store, encoder)
        startup = time.perf_counter() - begin - outcome.seconds
        return EngineRun(list(outcome.solutions), list(outcome.passes), self.name, startup)

    def _in_one_task(self, problems: Sequence[Problem], work: Work, store: BlockStore) -> Any:
        """Return what the task returns."""
        if store.has_rdds:
            with Relay(store.context, problems) as relay:
                fit = _OneTask(FitOnRank(dumps((relay.problems, Summation(work))), relay.address))
                (outcome,) = relay.attend(BackgroundJob(store.context, lambda: store.run_whole(fit)))
        else:
            alone = without_driver(self.name, problems)
            (outcome,) = store.run_whole(_OneTask(FitOnRank(dumps((alone, Summation(work))), None)))
        return outcome


@dataclass(frozen=True)
class _OneTask:
    """The task."""

    fit: FitOnRank

    def __call__(self, partitions: Iterator[OpenPartition]) -> Iterator[RankFit | MissingBlocks | SparkoptError]:
        try:
            yield self.fit(Alone(), partitions)
        except SparkoptError as error:  # as a result, since Spark would wrap it in its own error, and try again
            yield error

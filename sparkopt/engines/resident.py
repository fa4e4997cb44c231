"""The loop on the driver, its tasks resident: one Spark job a fit, whose tasks stay and answer pass after pass.

A Spark job costs a hundred milliseconds of scheduling; a message to a task that is there already, less than one. The
tasks keep their blocks open and know nothing of the loop: a message has all they need, and equal messages get equal
answers. So nothing is lost with a task: Spark runs it again, elsewhere if it must, it connects, and it is asked
what is still open. Sums are added in partition order, as ``DriverEngine`` adds them, to the same bits.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing import AuthenticationError

from pyspark.cloudpickle import dumps

from sparkopt.blocks.backend import Shared
from sparkopt.blocks.cancelling import cancellable
from sparkopt.blocks.classic import slots_of
from sparkopt.blocks.store import BlockStore, OpenPartition, Result
from sparkopt.communication.autotune import reduce_by
from sparkopt.communication.encoder import Encoder, PassMessage
from sparkopt.communication.sums import Pass, Summation, TaskSum, driver_pass, fold, summation_of
from sparkopt.engines.base import Engine, EngineRun, FitSize
from sparkopt.engines.driver import DriverEngine
from sparkopt.engines.worker_pool import Answer, MissingBlocks, Serving, WorkerLostError, WorkerPool
from sparkopt.launch.connections import Address, Connection, connect
from sparkopt.launch.threads import task_threads
from sparkopt.objective.query import PartialSum
from sparkopt.objective.work import Work
from sparkopt.solver.loop import Reduce, minimise_many
from sparkopt.solver.problem import Problem
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["ResidentEngine"]

logger = logging.getLogger(__name__)

APART_BYTES = 1 << 20
"""Sums of a task's partitions are sent apart up to this size: then no bit depends on which task held which."""

_pool_lock = threading.Lock()
"""OpenPartition while a worker pool exists: two pools that each hold half of the slots would wait for each other."""


@dataclass(frozen=True)
class ResidentEngine(Engine):
    """The loop on the driver; one Spark job whose tasks stay for the whole fit.

    Where the tasks cannot be had (their slots are taken, they cannot reach the driver, a file is missing, another
    fit's resident tasks run already), the fit, or the rest of it, is run by ``otherwise``; the log gives the reason.

    Parameters
    ----------
    otherwise : DriverEngine
        The engine that takes over.
    patience : float, default 60
        Seconds that a partition may stay without a task that has connected.
    """

    otherwise: DriverEngine = DriverEngine()
    patience: float = 60.0
    name = "resident"
    startup_seconds = 0.15  # a Spark job
    pass_seconds = 0.001  # a message to each task, and its answer

    def __post_init__(self) -> None:
        check("patience", self.patience, Interval(0, None, closed="neither"))

    @classmethod
    def of_depth(cls, depth: int) -> ResidentEngine:
        """Return the engine with a driver engine of this depth to fall back on."""
        return cls(DriverEngine(depth))

    def senders(self, size: FitSize) -> int:
        """Return the number of partitions where their sums are sent apart, else that of tasks."""
        tasks = self.tasks(size)
        return size.partitions if size.partitions * size.summed <= tasks * APART_BYTES else tasks

    def run(
        self, problems: Sequence[Problem], work: Work, store: BlockStore, encoder: Encoder | None = None
    ) -> EngineRun:
        """Run the loop here."""
        if not _pool_lock.acquire(blocking=False):
            logger.info("another fit's resident tasks run on this cluster: this one runs with engine='driver'")
            return self.otherwise.run(problems, work, store, encoder)
        try:
            with _ResidentSums(self, Summation(work, encoder), store) as sums:
                reduce = reduce_by(sums, sums.summation, sums.passes)
                solutions = minimise_many(reduce, problems)
                return EngineRun(solutions, sums.passes, sums.engine, sums.startup)
        finally:
            _pool_lock.release()


class _ResidentSums:
    """Sums over the store: by the worker pool until that fails, by the driver engine from then on."""

    def __init__(self, settings: ResidentEngine, summation: Summation, store: BlockStore) -> None:
        self.passes: list[Pass] = []
        self.engine, self.startup = settings.name, 0.0
        self.summation = summation
        self._settings, self._store = settings, store
        self._slots = min(slots_of(store.context), store.partitions)
        self._resources = ExitStack()
        self._otherwise: Reduce | None = None

    def __enter__(self) -> _ResidentSums:
        with ExitStack() as opening:
            self._cancellation = opening.enter_context(cancellable(self._store.session))
            shared = self._store.share(dumps(self.summation))
            opening.callback(shared.destroy)
            pool = WorkerPool(
                self._store, lambda address: _Serve(address, shared), self._slots, self._settings.patience
            )
            self._pool = opening.enter_context(pool)
            self._resources = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._resources.close()

    def __call__(self, message: PassMessage) -> PartialSum:
        self._cancellation.check()
        if self._otherwise is None:
            try:
                return self._ask(message)
            except WorkerLostError as reason:
                otherwise = self._settings.otherwise
                logger.warning("%s; the fit continues with engine=%r", reason, otherwise.name)
                self._pool.close()
                reducing = otherwise.reducing(self.summation, self._store, self.passes)
                self._otherwise = self._resources.enter_context(reducing)
                self.engine = f"{self.engine}, then {otherwise.name}"
        return self._otherwise(message.query)

    def _ask(self, message: PassMessage) -> PartialSum:
        begin = time.perf_counter()
        results: list[Result[TaskSum]] = self._pool.ask(message)
        self.startup += self._pool.waited  # until the tasks have connected, once in a fit unless one is lost
        begin += self._pool.waited
        adding = time.perf_counter()
        total = fold(results)
        partial = total.sums.decoded()
        end = time.perf_counter()
        codec, times = self.summation.codec_name(message), (begin, adding, end)
        self.passes.append(driver_pass(codec, message.query, times, self._slots, total, total.encoded))
        return partial


@dataclass(frozen=True)
class _Serve:
    """The task: connect, take the partitions, answer until the pool is closed. Yields why it could not."""

    address: Address
    summation: Shared

    def __call__(self, partitions: Iterator[OpenPartition]) -> Iterator[str]:
        with ExitStack() as resources:
            try:
                connection = resources.enter_context(connect(self.address))
            except (OSError, AuthenticationError) as error:
                yield f"a task on {socket.gethostname()} cannot reach the driver at {self.address}: {error!r}"
            else:
                resources.enter_context(task_threads())
                self._serve(connection, sorted(partitions, key=lambda one: one.part.index))

    def _serve(self, connection: Connection, held: Sequence[OpenPartition]) -> None:
        connection.send(Serving([one.part.index for one in held]))
        missing = [one.part.index for one in held if one.blocks is None]
        summation = summation_of(self.summation.value)
        while (message := connection.recv()) is not None:
            connection.send(MissingBlocks(missing) if missing else Answer(_answer(summation, message, held)))


def _answer(summation: Summation, message: PassMessage, held: Sequence[OpenPartition]) -> list[Result[TaskSum]]:
    sums = [Result(one.part.index, summation(message, one.part, one.blocks)) for one in held if one.blocks]
    if len(sums) * message.query.request.points.nbytes <= APART_BYTES:
        return [Result(one.partition, one.value.leaving()) for one in sums if one.value]
    return [Result(sums[0].partition, fold(sums).leaving())]

"""PyTorch's ranks on Spark Connect: the tasks of a barrier stage of ``mapInArrow``.

Tasks there do not reach the process of the session, so rank 0 keeps the channel that the driver keeps elsewhere: its
address goes to the others through the stage's barrier, its key comes with the function. Reports reach the session's
process when the stage has ended.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from sparkopt import errors
from sparkopt.errors import IncompatibleError, LostRankError, ParameterError, RankError, SparkoptError
from sparkopt.launch.channel import Channel, RankReport, Watcher
from sparkopt.launch.communicator import RankInfo
from sparkopt.launch.connections import Address, Listener
from sparkopt.launch.launcher import Launcher, P, RankFunction
from sparkopt.launch.settings import SessionSettings, refuse_barrier, refuse_group
from sparkopt.launch.torch_rank import TorchRank
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.errors import PySparkException
    from pyspark.resource import ResourceProfile

__all__ = ["ConnectLauncher"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ConnectLauncher(Launcher):
    """Ranks are the tasks of a barrier stage on a Spark Connect server.

    Parameters
    ----------
    session : SparkSession
        The session of Spark Connect.
    processes : int
        Number of ranks; each needs a task slot, all at once.
    watcher : Watcher or None, default None
        Called with each report, once the ranks have ended: it cannot stop them.
    start_timeout : float, default 120
        Seconds to wait for the ranks to find each other.
    timeout : float, default 1800
        Seconds after which a rank that waits for another in a collective gives up.
    at_least : int or None, default None
        Fewest ranks to start with where the server has no room for all of them; None is all.
    slots : int or None, default None
        Tasks that the server runs at the same time, where that is known.
    profile : ResourceProfile or None, default None
        What each task asks of Spark, a GPU, say.
    rows : DataFrame or None, default None
        Rows of which each rank reads one partition.
    prepare : callable or None, default None
        What a rank makes of its partition's number and batches: the function's argument ``prepared``.
    """

    session: Any = field(repr=False)
    processes: int
    watcher: Watcher | None = field(default=None, repr=False)
    start_timeout: float = 120.0
    timeout: float = 1800.0
    at_least: int | None = None
    slots: int | None = None
    profile: ResourceProfile | None = field(default=None, repr=False)
    rows: Any = field(default=None, repr=False)
    prepare: Callable[[int, Iterator[pa.RecordBatch]], Any] | None = field(default=None, repr=False)
    name = "torch"

    def __post_init__(self) -> None:
        check("numProc", self.processes, Interval(1, None, whole=True))

    def run(self, function: RankFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        from pyspark.errors import PySparkException  # launchers are imported where no pyspark is

        from sparkopt.blocks.chunks import CHUNK_SCHEMA, collected
        from sparkopt.blocks.sent import in_parts, joined

        settings = SessionSettings.of_session(self.session)
        refuse_group(settings)
        refuse_barrier(settings)
        processes = self._await_slots()
        rows = self.session.range(0, processes, 1, processes) if self.rows is None else self.rows
        instead = "Use engine='driver' in a Spark Classic session, or fewer features or classes."
        refusal = None if self.rows is None else ("what each rank is sent", instead)
        try:
            with in_parts(self.session, (function, args, kwargs, self.prepare), refusal) as (whole, parts):
                task = _ConnectTask(whole, secrets.token_bytes(32), self.start_timeout, self.timeout)
                given, mapped = joined(rows, parts, task)
                table = given.mapInArrow(mapped, CHUNK_SCHEMA, barrier=True, profile=self.profile).toArrow()
        except PySparkException as error:
            raise _failure(error, processes) from error
        ended = collected(table)
        self._report([report for _, reports in ended for report in reports])
        return [result for result, _ in ended]

    def _await_slots(self) -> int:
        """Wait until the server can run all ranks at once, or the fewest; return how many.

        Spark itself would wait ten minutes for them, and then say how its scheduler counts.

        Raises
        ------
        ParameterError
            Where it cannot run even the fewest.
        """
        from sparkopt.blocks.connect import slots_of

        deadline = time.monotonic() + self.start_timeout
        fewest = self.processes if self.at_least is None else self.at_least
        while (slots := slots_of(self.session) if self.slots is None else self.slots) < self.processes:
            if slots >= fewest:
                logger.warning(
                    "the server has room for %d processes of %d: starting with these", slots, self.processes
                )
                return slots
            if self.slots is not None or self.at_least is None or time.monotonic() > deadline:
                raise ParameterError(
                    f"numProc={self.processes} needs {self.processes} tasks that run at the same time; the server of "
                    f"Spark Connect has room for {slots}. Ask for fewer, or for more executors or cores."
                )
            time.sleep(1.0)
        return self.processes

    def _report(self, reports: list[RankReport]) -> None:
        if self.watcher is not None:
            for report in reports:
                self.watcher(report)


@dataclass(frozen=True)
class _ConnectTask:
    """What a task of the barrier stage does."""

    pickled: bytes
    key: bytes = field(repr=False)
    start_timeout: float
    timeout: float

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import BarrierTaskContext

        from sparkopt.blocks.chunks import chunks_of, pickled
        from sparkopt.io.worker import spare_modules

        spare_modules()
        function, args, kwargs, prepare = pickle.loads(self.pickled)  # noqa: S301  # written by this session's driver
        context = BarrierTaskContext.get()
        rank = context.partitionId()
        if prepare is not None:
            kwargs = {**kwargs, "prepared": prepare(rank, batches)}
        for _ in batches:  # Spark does not reuse a Python worker whose input was not read to its end
            pass
        machines = [info.address.rpartition(":")[0] for info in context.getTaskInfos()]
        info = RankInfo.of_task(context, rank)
        reports: list[RankReport] = []
        with ExitStack() as resources:
            where = self._open(resources, machines, reports) if rank == 0 else None
            host, port = json.loads(context.allGather(json.dumps(where))[0])
            address = Address(host, port, self.key, self.start_timeout)
            rank_task: TorchRank[Any] = TorchRank(
                function, args, kwargs, address, max(1, context.cpus()), self.timeout
            )
            result = rank_task.run(info)
            context.barrier()  # the channel is open until all ranks have left it
        yield from chunks_of(rank, pickled((result, reports)))

    def _open(self, resources: ExitStack, machines: list[str], reports: list[RankReport]) -> tuple[str, int]:
        """Open the channel where the other ranks reach this one: on loopback where all are on one machine."""
        host = _LOOPBACK if len(set(machines)) == 1 else machines[0].strip("[]")
        listener = Listener(host, timeout=self.start_timeout, key=self.key)
        resources.enter_context(Channel(listener, reports.append))
        return listener.address.host, listener.address.port


def _failure(error: PySparkException, processes: int) -> SparkoptError:
    """Return what a stage failed for: what a rank raised, or that one was lost."""
    text = str(error)
    if "Barrier execution mode does not allow" in text:
        return IncompatibleError(
            f"Spark runs no barrier stage over these rows as they are, coalesced or sampled say: "
            f"df.repartition({processes})."
        )
    raised = re.findall(r"^(?:[A-Za-z_][\w.]*\.)?([A-Za-z_]\w*(?:Error|Exception)): (.+)$", text, re.MULTILINE)
    mine = [(name, message) for name, message in raised if name not in ("PythonException", "SparkException")]
    if not mine:
        first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
        return LostRankError(
            f"a process of {processes} ended unexpectedly: it was killed, or its executor or machine was lost. Spark "
            f"reports: {first}"
        )
    name, message = mine[-1]
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, SparkoptError):
        return kind(message)
    return RankError(f"a rank failed with {name}: {message}")

"""What an engine is: where the loop runs, and all that selection and ``explain`` ask about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.store import BlockStore
from sparkopt.communication.encoder import Encoder
from sparkopt.communication.sums import Pass
from sparkopt.launch.settings import SessionSettings
from sparkopt.objective.work import Work
from sparkopt.solver.problem import Problem, Solution
from sparkopt.values import dataclass

__all__ = ["Engine", "EngineRun", "FitSize", "SessionTraits"]

READ = 8e9
"""Bytes of blocks per second that one core sums over: memory's speed, and two products with each row."""

SUM = 6e8
"""Bytes of sums per second that a core computes and adds, one for each partition: this dominates for wide rows."""

NETWORK = 1e9
"""Bytes per second of a 10-gigabit network."""


@dataclass(frozen=True)
class EngineRun:
    """What an engine returns.

    Attributes
    ----------
    solutions : list of Solution
        One per problem.
    passes : list of Pass
        What each pass over the data cost.
    engine : str
        Where the loop ran.
    startup : float, default 0
        Seconds outside of the loop: until its processes were connected, and after its end.
    """

    solutions: list[Solution]
    passes: list[Pass]
    engine: str
    startup: float = 0.0


@dataclass(frozen=True)
class FitSize:
    """The sizes that an engine's cost depends on; all are known before the first pass.

    Attributes
    ----------
    stored : int
        Bytes of blocks that a pass reads.
    summed : int
        Bytes of one partition's sum.
    partitions, slots : int
        Number of partitions, and of tasks that can run at the same time.
    job_seconds : float, default 0.1
        Seconds of running a function on all partitions that are neither arithmetic nor transport: those of a Spark
        job, unless a store's backend is quicker.
    """

    stored: int
    summed: int
    partitions: int
    slots: int
    job_seconds: float = 0.1

    @classmethod
    def of(cls, store: BlockStore, summed: int, share: float = 1.0) -> FitSize:
        """Return the sizes of a fit on a store, whose passes read a share of the rows."""
        return cls(round(store.bytes * share), summed, store.partitions, store.slots, store.pass_seconds)

    @property
    def compute_seconds(self) -> float:
        """Seconds of one core for a pass's arithmetic."""
        return self.stored / READ + self.partitions * self.summed / SUM


@dataclass(frozen=True)
class SessionTraits:
    """What a Spark session offers to an engine.

    Attributes
    ----------
    has_rdds : bool, default True
        Whether it has RDDs; Spark Connect has none.
    has_spark : bool, default True
        Whether there is a session at all; a table needs none.
    settings : SessionSettings, default those of a new session
        The settings that rule an engine out.
    """

    has_rdds: bool = True
    has_spark: bool = True
    settings: SessionSettings = SessionSettings()

    @classmethod
    def of(cls, session: Any | None) -> SessionTraits:
        """Return the traits of a session of Spark Classic or Spark Connect, or of none, as a table has."""
        if session is None:
            return cls(has_rdds=False, has_spark=False)
        if is_connect(session):
            return cls(has_rdds=False, settings=SessionSettings.of_session(session))
        return cls(settings=SessionSettings.of_context(session.sparkContext))

    @classmethod
    def of_store(cls, store: BlockStore) -> SessionTraits:
        """Return the traits of a store's session."""
        return cls.of(store.session)


class Engine(ABC):
    """Runs the loop over a store's blocks, and knows what that takes.

    A new engine is one subclass in a module of its own, and one line in ``selection.ENGINES``. The defaults describe
    an engine whose tasks each add up the sums of their partitions and send them over the network to one process.

    Attributes
    ----------
    name : str
        How receipts and parameters call it.
    startup_seconds : float
        Seconds before the first pass.
    pass_seconds : float
        Seconds of each pass that are neither arithmetic nor transport.
    needs_spark : bool, default True
        Whether its tasks are Spark's.
    needs_rdds : bool, default True
        Whether it needs RDDs, which Spark Connect does not have.
    needs_barrier : bool, default False
        Whether its tasks must all start at the same time, which Spark refuses with dynamic allocation.
    connects : bool, default True
        Whether it opens connections of its own, which are encrypted where Spark's are.
    in_group : bool, default False
        Whether its tasks form a group of ranks, whose sums nothing encrypts.
    in_one_task : bool, default False
        Whether one task reads all rows, and no sums are sent.
    retries : int, default 0
        How often a fit that lost a process is started again, from its last checkpoint where it keeps any. An engine
        that loses nothing with a process needs none.

    Examples
    --------
    Estimators take an engine by its name, a trainer as a value:

    >>> from sparkopt import Trainer, losses
    >>> from sparkopt.engines import DriverEngine
    >>> Trainer(losses.Logistic(), engine=DriverEngine(reduction="tree")).engine.name
    'driver'
    """

    name: ClassVar[str]
    startup_seconds: ClassVar[float]
    pass_seconds: ClassVar[float]
    needs_spark: ClassVar[bool] = True
    needs_rdds: ClassVar[bool] = True
    needs_barrier: ClassVar[bool] = False
    connects: ClassVar[bool] = True
    in_group: ClassVar[bool] = False
    in_one_task: ClassVar[bool] = False
    retries: int = 0

    @abstractmethod
    def run(
        self, problems: Sequence[Problem], work: Work, store: BlockStore, encoder: Encoder | None = None
    ) -> EngineRun:
        """Minimise over the store's rows, sharing passes.

        Parameters
        ----------
        problems : sequence of Problem
            One a model.
        work : Work
            What each partition computes in a pass.
        store : BlockStore
            The rows.
        encoder : Encoder or None, default None
            Encodes the sums that are sent; None sends them as they are.
        """

    @classmethod
    def of_depth(cls, depth: int) -> Engine:
        """Return the engine with this ``aggregationDepth``, where it aggregates or falls back on one that does."""
        return cls()

    def candidates(self, session: SessionTraits) -> Sequence[Engine]:
        """Return the engines that it chooses from: itself alone, but for ``AutoEngine``."""
        return [self]

    def remedy(self, session: SessionTraits) -> str | None:
        """Return what would let it run on a session, as an imperative; None where it can run already."""
        if self.needs_spark and not session.has_spark:
            return "give a DataFrame"
        if self.needs_rdds and not session.has_rdds:
            return "use a Spark Classic session, since Spark Connect has no RDDs"
        settings = session.settings
        return (
            (settings.connection_remedy() if self.connects else None)
            or (settings.group_remedy() if self.in_group else None)
            or (settings.barrier_remedy() if self.needs_barrier else None)
            or (settings.lone_task_remedy() if self.in_one_task else None)
        )

    def fits(self, size: FitSize) -> bool:
        """Whether data of this size may be given to it unasked."""
        return True

    def tasks(self, size: FitSize) -> int:
        """Return how many tasks compute at the same time."""
        return 1 if self.in_one_task else min(size.partitions, size.slots)

    def senders(self, size: FitSize) -> int:
        """Return how many sums leave a process in a pass: those of partitions, or of tasks that add theirs first."""
        return 0 if self.in_one_task else self.tasks(size)

    def transport_seconds(self, size: FitSize) -> float:
        """Return the seconds of a pass in which sums and coefficients are sent."""
        return 0.0 if self.in_one_task else 2 * self.tasks(size) * size.summed / NETWORK

    def seconds(self, size: FitSize, passes: int) -> float:
        """Return the estimated seconds of a fit of so many passes."""
        compute = size.compute_seconds / self.tasks(size)
        return self.startup_seconds + passes * (self.pass_seconds + self.transport_seconds(size) + compute)

    def advice(self, size: FitSize) -> list[str]:
        """Return what would make a fit of this size cheaper on this engine, each in a sentence."""
        return []

"""The table of engines, and which of them is cheapest: each estimates its seconds before the first pass."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pyspark.sql import DataFrame

from sparkopt.blocks.store import BlockStore
from sparkopt.communication.encoder import Encoder
from sparkopt.engines.allreduce import AllReduceEngine
from sparkopt.engines.base import Engine, EngineRun, FitSize, SessionTraits
from sparkopt.engines.driver import DriverEngine
from sparkopt.engines.local import LocalEngine
from sparkopt.engines.relay import calls_driver
from sparkopt.engines.resident import ResidentEngine
from sparkopt.errors import IncompatibleError
from sparkopt.machine.table import Table
from sparkopt.objective.work import Work
from sparkopt.solver.problem import Problem
from sparkopt.validation import OneOf, check
from sparkopt.values import dataclass

__all__ = [
    "ENGINES",
    "AutoEngine",
    "EngineChoice",
    "by_name",
    "check_engine",
    "choose",
    "engine_on",
    "engine_on_table",
    "every_engine",
]

logger = logging.getLogger(__name__)

PASSES = 40
"""Passes of a typical fit: a start-up is spread over them."""


@dataclass(frozen=True)
class EngineChoice:
    """The cheapest of some engines.

    Attributes
    ----------
    engine : Engine
        The engine that is estimated to take the least time.
    seconds : mapping of str to float
        Estimated seconds of ``PASSES`` passes, by the names of the engines that were considered.
    size : FitSize
        The sizes that the estimates are of.
    """

    engine: Engine
    seconds: Mapping[str, float]
    size: FitSize

    def __str__(self) -> str:
        ordered = sorted(self.seconds.items(), key=lambda item: (item[1], item[0]))
        estimates = ", ".join(f"{name} {cost:.2f} s" for name, cost in ordered)
        size = self.size
        return (
            f"engine {self.engine.name}: {size.stored / 1e6:,.1f} MB a pass in {size.partitions} partitions on "
            f"{size.slots} slots, sums of {size.summed / 1e6:,.3f} MB; {PASSES} passes estimated at {estimates}"
        )


def choose(size: FitSize, engines: Sequence[Engine]) -> EngineChoice:
    """Return the engine that would take the least time for a fit of ``PASSES`` passes.

    An engine that the data does not fit is left out, unless it is the only one.

    Examples
    --------
    With a hundred features, resident tasks are the cheapest. With a million on 64 slots, no process should receive
    all sums.

    >>> choose(FitSize(400_000_000, 808, 8, 8), every_engine()).engine.name
    'resident'
    >>> choose(FitSize(40_000_000_000, 8_000_000, 256, 64), every_engine()).engine.name
    'allreduce'
    >>> choose(FitSize(100_000, 88, 2, 8), every_engine()).engine.name
    'local'
    """
    considered = [engine for engine in engines if engine.fits(size) or len(engines) == 1]
    seconds = {engine.name: engine.seconds(size, PASSES) for engine in considered}
    cheapest = min(considered, key=lambda engine: (seconds[engine.name], engine.name))
    return EngineChoice(cheapest, MappingProxyType(seconds), size)


@dataclass(frozen=True)
class AutoEngine(Engine):
    """The engine that is estimated to be the cheapest for this store and these problems; the log has the estimates.

    Parameters
    ----------
    depth : int, default 2
        Levels of the driver engine's tree.
    """

    depth: int = 2
    name = "auto"
    needs_spark = needs_rdds = connects = False

    @classmethod
    def of_depth(cls, depth: int) -> AutoEngine:
        """Return the engine that chooses among those of this depth."""
        return cls(depth)

    def candidates(self, session: SessionTraits) -> Sequence[Engine]:
        """Return all engines that can run on a session."""
        return [engine for engine in every_engine(self.depth) if engine.remedy(session) is None]

    def run(
        self, problems: Sequence[Problem], work: Work, store: BlockStore, encoder: Encoder | None = None
    ) -> EngineRun:
        """Choose, and let the chosen engine run the loop."""
        summed = 8 * sum(problem.width for problem in problems)
        size = FitSize.of(store, summed, work.share)
        able = self.candidates(SessionTraits.of_store(store))
        if not store.has_rdds and calls_driver(problems):  # tasks of Spark Connect do not reach this process
            able = [engine for engine in able if not engine.needs_spark]
        if store.read_in_task() is not None:  # over some rows Spark runs no barrier stage
            able = [engine for engine in able if not engine.needs_barrier]
        choice = choose(size, able)
        logger.info("%s", choice)
        return choice.engine.run(problems, work, store, encoder)


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (AutoEngine, DriverEngine, ResidentEngine, AllReduceEngine, LocalEngine)
}
"""Every engine, by the name that parameters and flags call it. To add one, add it here."""


def every_engine(depth: int = 2) -> list[Engine]:
    """Return one of each engine that can be chosen: all but "auto", which chooses."""
    return [engine.of_depth(depth) for engine in ENGINES.values() if engine is not AutoEngine]


def by_name(name: str, depth: int = 2) -> Engine:
    """Return an engine by its name.

    Parameters
    ----------
    name : str
        One of ``ENGINES``.
    depth : int, default 2
        Levels of the driver engine's tree.

    Raises
    ------
    ParameterError
        Where there is no such engine.
    """
    return ENGINES[check("engine", name, OneOf(ENGINES))].of_depth(depth)


def engine_on(engine: Engine, store: BlockStore) -> Engine:
    """Return the engine that runs a fit on a store: another one where it needs Spark and the store does not.

    A table's rows are on one machine, whose own processes are there for every pass as resident tasks would be.
    """
    if not store.needs_spark:
        return engine_on_table(engine)
    if engine.needs_spark:
        refuse(engine, SessionTraits.of_store(store))
    return engine


def engine_on_table(engine: Engine) -> Engine:
    """Return the engine that runs a fit on a table."""
    if not engine.needs_spark:
        return engine
    logger.info("engine %r runs Spark's tasks, and a table needs no Spark: engine 'driver' runs the fit", engine.name)
    return DriverEngine()


def check_engine(name: str, df: DataFrame | Table) -> None:
    """Refuse an engine that the DataFrame's session cannot run; on a table any can, or is replaced.

    Raises
    ------
    IncompatibleError
        Naming the setting, or what the session does not have.
    """
    if not isinstance(df, Table) and name not in ("auto", "driver"):
        refuse(by_name(name), SessionTraits.of(df.sparkSession))


def refuse(engine: Engine, session: SessionTraits) -> None:
    """Refuse an engine that a session cannot run.

    Raises
    ------
    IncompatibleError
        With what would let it run there, and engines that can.
    """
    if (remedy := engine.remedy(session)) is not None:
        others = [name for name in ("resident", "local", "driver") if by_name(name).remedy(session) is None]
        raise IncompatibleError(
            f"engine={engine.name!r} cannot run in this Spark session: {remedy}. Or use "
            f"engine={', '.join(repr(name) for name in others)}, or 'auto'."
        )

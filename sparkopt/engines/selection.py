"""Which engine is cheapest: an estimate of each one's seconds from sizes that are known before the first pass."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pyspark.sql import DataFrame

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.store import BlockStore
from sparkopt.engines.allreduce import AllReduceEngine
from sparkopt.engines.driver import DriverEngine, Engine, Run
from sparkopt.engines.local import LocalEngine
from sparkopt.engines.resident import ResidentEngine
from sparkopt.errors import IncompatibleError
from sparkopt.launch.connections import encrypts
from sparkopt.objective.work import Work
from sparkopt.solver.loop import Problem

__all__ = ["ENGINES", "AutoEngine", "Choice", "Sizes", "by_name", "check_engine", "choose"]

logger = logging.getLogger(__name__)

ENGINES = ("auto", "driver", "resident", "allreduce", "local")

PASSES = 40
"""Passes of a typical fit: what a start-up is spread over."""

READ = 8e9
"""Bytes of blocks per second that one core sums over: memory's speed, and two products with each row."""

SUM = 6e8
"""Bytes of sums per second that a core makes and adds up, one for each partition: what counts where rows are wide."""

WIRE = 1e9
"""Bytes per second of a 10-gigabit network."""

HANDLE = 5e8
"""Bytes of sums per second that Spark carries to its driver: pickled, and through the JVM."""

LOCAL_BYTES = 256 << 20
"""Most bytes of blocks that one task is given."""

START: Mapping[str, float] = MappingProxyType({"driver": 0.0, "resident": 0.15, "local": 0.15, "allreduce": 2.5})
"""Seconds before the first pass: a job, and for all-reduce importing PyTorch and finding each other."""

STEP: Mapping[str, float] = MappingProxyType({"driver": 0.1, "resident": 0.001, "local": 0.0, "allreduce": 0.003})
"""Seconds of each pass that are neither arithmetic nor transport, measured on Spark 4.3."""


@dataclass(frozen=True)
class Sizes:
    """What the choice depends on.

    Attributes
    ----------
    stored : int
        Bytes of blocks that a pass reads.
    summed : int
        Bytes of one partition's sum.
    partitions, slots : int
        Number of partitions, and of tasks that can run at the same time.
    """

    stored: int
    summed: int
    partitions: int
    slots: int


@dataclass(frozen=True)
class Choice:
    """An engine and the seconds that each one would take, those out of question left out."""

    engine: str
    seconds: Mapping[str, float]
    sizes: Sizes

    def __str__(self) -> str:
        others = ", ".join(f"{name} {cost:.2f} s" for name, cost in sorted(self.seconds.items(), key=_by_cost))
        sizes = self.sizes
        return (
            f"engine {self.engine}: {sizes.stored / 1e6:,.1f} MB a pass in {sizes.partitions} partitions on "
            f"{sizes.slots} slots, sums of {sizes.summed / 1e6:,.3f} MB; {PASSES} passes estimated at {others}"
        )


def choose(sizes: Sizes, allowed: Sequence[str]) -> Choice:
    """Return the engine that would take the least time for a fit of ``PASSES`` passes.

    Examples
    --------
    A hundred features: nobody beats tasks that stay. A million features on 64 slots: sums should not meet anywhere.

    >>> choose(Sizes(400_000_000, 808, 8, 8), ENGINES[1:]).engine
    'resident'
    >>> choose(Sizes(40_000_000_000, 8_000_000, 256, 64), ENGINES[1:]).engine
    'allreduce'
    >>> choose(Sizes(100_000, 88, 2, 8), ENGINES[1:]).engine
    'local'
    """
    tasks = min(sizes.partitions, sizes.slots)
    compute = (sizes.stored / READ + sizes.partitions * sizes.summed / SUM) / tasks
    slices = min(sizes.partitions, max(1, (64 << 20) // max(1, sizes.summed)))
    transport = {
        "driver": slices * sizes.summed / HANDLE,
        "resident": 2 * tasks * sizes.summed / WIRE,
        "allreduce": 2 * sizes.summed / WIRE,
        "local": 0.0,
    }
    seconds = {
        name: START[name] + PASSES * (STEP[name] + transport[name] + compute * (tasks if name == "local" else 1))
        for name in allowed
        if name != "local" or sizes.stored <= LOCAL_BYTES or len(allowed) == 1
    }
    return Choice(min(seconds.items(), key=_by_cost)[0], MappingProxyType(seconds), sizes)


def _by_cost(item: tuple[str, float]) -> tuple[float, str]:
    return item[1], item[0]


@dataclass(frozen=True)
class AutoEngine(Engine):
    """The engine that should be the cheapest for this store and these problems; the log says which, and why.

    Parameters
    ----------
    depth : int, default 2
        Levels of the driver engine's tree.
    """

    depth: int = 2
    name = "auto"

    def run(self, problems: Sequence[Problem], work: Work, store: BlockStore) -> Run:
        """Choose, and let the chosen engine run the loop."""
        size = sum(problem.size for problem in problems)
        sizes = Sizes(round(store.bytes * work.share), 8 * size, store.partitions, store.slots)
        choice = choose(sizes, available(store.context if store.has_rdds else None))
        logger.info("%s", choice)
        return by_name(choice.engine, self.depth).run(problems, work, store)


def available(context: Any | None) -> list[str]:
    """Return the engines that can run with this SparkContext; None stands for Spark Connect, which has none.

    All others than the driver's need RDDs, and channels of their own, which Spark does not encrypt; all-reduce needs
    PyTorch.
    """
    if context is None or encrypts(context.getConf()):
        return ["driver"]
    has_torch = importlib.util.find_spec("torch") is not None
    return [name for name in ENGINES[1:] if name != "allreduce" or has_torch]


def check_engine(name: str, df: DataFrame) -> None:
    """Refuse an engine that the DataFrame's session cannot run.

    Raises
    ------
    IncompatibleError
        For an engine that needs RDDs, on Spark Connect.
    """
    if is_connect(df) and name not in ("auto", "driver"):
        raise IncompatibleError(
            f"engine={name!r} needs RDDs, which Spark Connect does not have. Use engine='driver', or a Spark Classic "
            f"session."
        )


def by_name(name: str, depth: int = 2) -> Engine:
    """Return an engine by its name."""
    driver = DriverEngine(depth)
    engines: dict[str, Engine] = {
        "auto": AutoEngine(depth),
        "driver": driver,
        "resident": ResidentEngine(driver),
        "local": LocalEngine(driver),
        "allreduce": AllReduceEngine(driver),
    }
    return engines[name]

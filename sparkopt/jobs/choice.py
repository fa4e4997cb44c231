"""On which a job runs: this machine alone, or Spark. What cannot be chosen, and the formula for the rest.

Seconds are a start, reading, and passes over the rows, shared by cores::

    seconds = start + (reading + passes) / cores + passes from the disk
    reading = values · READ["parquet"]       values: rows × numbers in a row, of Parquet's footers
            or bytes · READ[form]            of CSV and LIBSVM
            or files · READ["images"] + bytes · DECODE
    passes  = steps · values · PASS
    from the disk = steps · max(0, 4 · values − memory) / DISK

With Spark in local mode, the cores are the same ones; on a cluster they are its slots. `docs/one-machine.md` has the
measurements behind the constants.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType

from sparkopt.values import dataclass

__all__ = [
    "MACHINE",
    "SPARK",
    "Choice",
    "Costs",
    "Resources",
    "Workload",
    "crossover",
    "decide",
    "seconds",
    "spark_is_running",
]

MACHINE, SPARK = "machine", "spark"


@dataclass(frozen=True)
class Costs:
    """What a runtime takes.

    Attributes
    ----------
    start : float
        Seconds before the first row is read, and after the last.
    read : mapping of str to float
        Seconds of one core for a value ("parquet"), a byte ("csv", "libsvm") or a file ("images").
    """

    start: float
    read: Mapping[str, float]


ON_MACHINE = Costs(2.0, MappingProxyType({"parquet": 2.0e-8, "csv": 1.8e-8, "libsvm": 7.5e-8, "images": 2.5e-4}))
ON_SPARK = Costs(11.5, MappingProxyType({"parquet": 4.6e-8, "csv": 6.5e-8, "libsvm": 1.0e-7, "images": 3.4e-3}))
ON_CLUSTER = Costs(30.0, ON_SPARK.read)
"""Of a process, of Spark in local mode, and of a cluster that must first grant containers."""

PASS = 7.5e-10
"""Seconds of one core for a value in a pass over stored rows."""
DECODE = 3.5e-8
"""Seconds of one core for a byte of an encoded image."""
DISK = 5e8
"""Bytes a second of rows that are not in memory."""


@dataclass(frozen=True)
class Workload:
    """What a job has to do.

    Attributes
    ----------
    form : {"parquet", "csv", "libsvm", "images"}
        Format of the input.
    bytes : int
        Size of its files.
    values : int
        Numbers in it.
    files : int
        How many files there are.
    steps : int, default 0
        Passes over the rows after they are read.
    """

    form: str
    bytes: int
    values: int
    files: int
    steps: int = 0

    @property
    def stored(self) -> int:
        """Bytes of the rows as training stores them."""
        return 4 * self.values


@dataclass(frozen=True)
class Resources:
    """What is there to do it with.

    Attributes
    ----------
    cores : int
        Cores, or slots of a cluster.
    memory : int
        Bytes of memory.
    """

    cores: int
    memory: int


@dataclass(frozen=True)
class Choice:
    """Where a job runs, and why.

    Attributes
    ----------
    on : {"machine", "spark"}
        Where.
    reason : str
        Why, in a few words.
    estimates : mapping of str to float
        Seconds that each would take; empty where there was nothing to estimate.
    """

    on: str
    reason: str
    estimates: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        name = "this machine, without Spark" if self.on == MACHINE else "Spark"
        return f"{name}: {self.reason}"


def seconds(costs: Costs, work: Workload, resources: Resources) -> float:
    """Return the estimated seconds of a job, by the formula of this module."""
    units = {"parquet": work.values, "images": work.files}.get(work.form, work.bytes)
    reading, passes = units * costs.read[work.form], work.steps * work.values * PASS
    reading += work.bytes * DECODE if work.form == "images" else 0.0
    spilled = work.steps * max(0, work.stored - resources.memory) / DISK
    return costs.start + (reading + passes) / resources.cores + spilled


def decide(work: Workload, here: Resources, cluster: Resources | None = None) -> Choice:
    """Return the faster of this machine and Spark.

    Parameters
    ----------
    work : Workload
        The job.
    here : Resources
        This machine.
    cluster : Resources or None, default None
        The cluster that Spark would run on; None for Spark on this machine.
    """
    spark = seconds(ON_SPARK, work, here) if cluster is None else seconds(ON_CLUSTER, work, cluster)
    estimates = {MACHINE: seconds(ON_MACHINE, work, here), SPARK: spark}
    on = MACHINE if estimates[MACHINE] <= estimates[SPARK] else SPARK
    slots = here.cores if cluster is None else cluster.cores
    reason = (
        f"{_size(work)}, about {_time(estimates[MACHINE])} here on {_cores(here.cores)}, "
        f"{_time(estimates[SPARK])} on Spark with {_cores(slots)}"
    )
    return Choice(on, reason, MappingProxyType(estimates))


def crossover(form: str, steps: int, here: Resources, cluster: Resources) -> float:
    """Return from how many values (of CSV and LIBSVM: bytes) on a cluster is faster; infinity for never.

    Rows are in memory on both.
    """
    read_here, read_there = (costs.read[form] for costs in (ON_MACHINE, ON_CLUSTER))
    each = PASS * steps if form == "parquet" else 0.0
    gain = (read_here + each) / here.cores - (read_there + each) / cluster.cores
    return (ON_CLUSTER.start - ON_MACHINE.start) / gain if gain > 0 else float("inf")


def spark_is_running(environment: Mapping[str, str] | None = None) -> str:
    """Return what says that this process belongs to Spark, or "" where nothing does.

    Parameters
    ----------
    environment : mapping of str to str or None, default None
        Environment variables; None takes this process's own.

    Returns
    -------
    str
        Such as "this process was started by spark-submit".

    Examples
    --------
    >>> from sparkopt.jobs import spark_is_running
    >>> spark_is_running({"PYSPARK_GATEWAY_PORT": "40123"})
    'this process was started by spark-submit'
    """
    given = os.environ if environment is None else environment
    if "PYSPARK_GATEWAY_PORT" in given:
        return "this process was started by spark-submit"
    if "DATABRICKS_RUNTIME_VERSION" in given:
        return "this process runs on Databricks"
    if "SPARK_REMOTE" in given:
        return "SPARK_REMOTE names a Spark Connect server"
    sql = sys.modules.get("pyspark.sql")  # a session needs it loaded
    if sql is not None and sql.SparkSession.getActiveSession() is not None:
        return "a Spark session is running"
    return ""


def _size(work: Workload) -> str:
    files = f"{work.files:,} {'file' if work.files == 1 else 'files'}"
    if work.form == "images":
        return f"{files} of {_bytes(work.bytes)}"
    return f"{files} of {_bytes(work.bytes)}" + (f" with {work.values:,} values" if work.form == "parquet" else "")


def _cores(count: int) -> str:
    return f"{count:,} {'core' if count == 1 else 'cores'}"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _time(count: float) -> str:
    return f"{count:.2g} s" if count < 100 else f"{count / 60:.0f} min" if count < 6000 else f"{count / 3600:.0f} h"

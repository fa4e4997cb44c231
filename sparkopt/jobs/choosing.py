"""Which runtime a command line asks for: what it needs, what there is, and how large its input is."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from sparkopt.errors import MissingDependencyError, ParameterError, SparkoptError
from sparkopt.io.filesystem import STORAGE_ERRORS, brief, local_path
from sparkopt.io.secrets import mask
from sparkopt.jobs.choice import MACHINE, SPARK, Choice, Resources, Workload, decide, spark_is_running
from sparkopt.jobs.reading import on_spark_only
from sparkopt.jobs.runtimes.base import Runtime
from sparkopt.jobs.runtimes.files import FileBelow, files_below
from sparkopt.jobs.sources import IMAGES, DataSource
from sparkopt.launch.session import read_profile
from sparkopt.machine import available_cores, available_memory

__all__ = ["CHOICES", "choose", "java_is_there", "needs_spark", "runtime_class", "workload_of"]

AUTO = "auto"
CHOICES = (AUTO, MACHINE, SPARK)
FOOTERS = 8
"""Files of which the footers are read; the others are taken to be alike."""
NEEDS = {
    "table": "--table names a table of Spark's catalog",
    "delta": "--delta is read by Spark's package for Delta",
    "iceberg": "--iceberg is read by Spark's package for Iceberg",
    "json": "--json is read by Spark",
}
"""Sources that only Spark reads."""


def needs_spark(source: DataSource) -> str:
    """Return why an input can only be read by Spark, or "" where it need not be."""
    return NEEDS.get(source.kind, "") or on_spark_only(source.kind, source.options)


def choose(args: argparse.Namespace, needed: str, *, steps: int = 0) -> Choice:
    """Return where a job runs.

    Parameters
    ----------
    args : Namespace
        With ``on``, ``remote``, ``profile`` and ``source``, or ``input`` of images.
    needed : str
        Why the job can only run on Spark; "" where it need not.
    steps : int, default 0
        How often it reads its rows again after the first time, roughly.

    Raises
    ------
    ParameterError
        For ``--on machine`` where that cannot be.
    MissingDependencyError
        Where Spark is needed, and there is no Java to start it.
    """
    running = spark_is_running() or ("--remote names a Spark Connect server" if args.remote else "")
    if args.on == MACHINE:
        if needed:
            raise ParameterError(f"--on machine cannot be: {needed}. Give --on spark, or leave --on out.")
        return Choice(MACHINE, "--on machine")
    if args.on == SPARK or running or needed:
        reason = "--on spark" if args.on == SPARK else running or needed
        if not running:
            _require_java(reason)
        return Choice(SPARK, reason)
    return _by_size(args, steps)


def _by_size(args: argparse.Namespace, steps: int) -> Choice:
    cluster = _cluster(args.profile)
    source: DataSource = getattr(args, "source", None) or DataSource(IMAGES, args.input)
    if cluster is not None and not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path) for path in source.paths):
        _require_java(f"--profile {args.profile}")
        return Choice(SPARK, f"a path without a scheme is on the file system of --profile {args.profile}")
    try:
        work = workload_of(source, steps)
    except (SparkoptError, *STORAGE_ERRORS) as error:
        reason = f"the input cannot be measured from here ({mask(brief(error))})"
        elsewhere = any(local_path(path) is None for path in source.paths)
        return Choice(SPARK if elsewhere and java_is_there() else MACHINE, reason)
    found = decide(work, Resources(available_cores(), available_memory()), cluster)
    if found.on == SPARK and not java_is_there():
        return Choice(MACHINE, f"{found.reason}; but there is no Java to start Spark", found.estimates)
    return found


def workload_of(source: DataSource, steps: int = 0) -> Workload:
    """Return how large an input is; of Parquet only the footers of some files are read.

    Raises
    ------
    DataError
        Where there is nothing.
    """
    files = [file for path in source.paths for file in files_below(path) if file.size]
    size = sum(file.size for file in files)
    values = _values(files) if source.kind == "parquet" else size // 8
    return Workload(source.kind, size, values, len(files), steps)


def _values(files: list[FileBelow]) -> int:
    """Return the number of values in Parquet files: of the first ones, in proportion to bytes."""
    seen = found = 0
    for file in files[:FOOTERS]:
        with file.location.filesystem.open_input_file(file.location.path) as opened:
            metadata = pq.read_metadata(opened)
        seen += file.size
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            found += sum(row_group.column(column).num_values for column in range(metadata.num_columns))
    return found * sum(file.size for file in files) // seen if seen else 0


def _cluster(profile: str) -> Resources | None:
    """Return the cluster of a profile; None for Spark on this machine."""
    settings = read_profile(profile)
    if settings.get("spark.master", "local").partition("[")[0] == "local":
        return None
    executors = (
        settings.get("spark.executor.instances") or settings.get("spark.dynamicAllocation.maxExecutors") or "2"
    )
    cores, memory = settings.get("spark.executor.cores", "1"), settings.get("spark.executor.memory", "1g")
    number = int(executors) if executors.isdigit() else 2
    return Resources(number * int(cores), number * _bytes_of(memory))


def _bytes_of(text: str) -> int:
    """Return the bytes of a size as Spark's settings have it, such as 4g."""
    found = re.fullmatch(r"(\d+)\s*([kmgt]?)b?", text.strip().lower())
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2]] if found else 1 << 30


def java_is_there() -> bool:
    """Whether Spark would find a Java: in JAVA_HOME, else on PATH."""
    home = os.environ.get("JAVA_HOME")
    return os.access(Path(home, "bin", "java"), os.X_OK) if home else shutil.which("java") is not None


def _require_java(reason: str) -> None:
    if not java_is_there():
        home = os.environ.get("JAVA_HOME")
        looked = f"JAVA_HOME={home} has no bin/java" if home else "JAVA_HOME is not set, and PATH has no java"
        raise MissingDependencyError(
            f"Spark is needed ({reason}), and it needs Java 17 or newer, which is not installed: {looked}. "
            "Install it (Debian: apt-get install default-jre-headless), or read files without it by --on machine."
        )


def runtime_class(choice: Choice) -> type[Runtime]:
    """Return the runtime of a choice; only Spark's loads pyspark.sql."""
    if choice.on == MACHINE:
        from sparkopt.jobs.runtimes.machine import MachineRuntime

        return MachineRuntime
    from sparkopt.jobs.runtimes.spark import SparkRuntime

    return SparkRuntime

"""The frame that all jobs share: flags, checks, session, exit code, manifest, outputs that are whole or not there.

A job says what its flags are, what it reads, and what it does. The frame does the rest, in this order: read flags and
file (wrong: 2), check them (wrong: 2), start Spark, compare with what an earlier run left (the same: 0, and nothing
is done), run, put outputs, page and manifest in their place, tell how it ended (a failure: 1, a gate that is not met:
3).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException, PythonException
from pyspark.sql import SparkSession

from sparkopt.errors import DataError, SparkoptError
from sparkopt.jobs import manifest
from sparkopt.jobs.flags import USAGE, Parser
from sparkopt.jobs.logs import FORMATS, event, logger, logging_as, mask
from sparkopt.jobs.manifest import COMPLETE, GATE_NOT_MET, UNFINISHED, Identity
from sparkopt.jobs.places import Place, place_of, publish, staged
from sparkopt.launch.session import PROFILES, session
from sparkopt.report.facts import Facts
from sparkopt.report.page import write_report

__all__ = ["FAILURE", "FINE", "GATE", "INTERRUPTED", "USAGE", "Job", "Result", "Run", "common_flags", "essence"]

FINE, FAILURE, GATE, INTERRUPTED = 0, 1, 3, 130
"""Exit codes, beside USAGE = 2; the last one is what shells say of Ctrl-C."""
PACKAGES = {
    "delta": "--packages io.delta:delta-spark_2.13:VERSION",
    "iceberg": "--packages org.apache.iceberg:iceberg-spark-runtime-SPARK_2.13:VERSION",
}
"""What Spark must be started with to read and write formats that it does not have itself."""
REPORT = "report.html"
HIDDEN, HIDDEN_REPORT = "_manifest.json", "_report.html"
"""Names in a folder that is a table: Spark reads no file that begins with an underscore."""


@dataclass(frozen=True)
class Run:
    """What a job's work is given.

    Attributes
    ----------
    spark : SparkSession
        The session.
    args : Namespace
        The flags.
    place : Place
        Where Spark writes to: beside the output, unless the job writes into it directly.
    files : Path
        A local folder for small files, which go the same way.
    """

    spark: SparkSession
    args: argparse.Namespace
    place: Place
    files: Path


@dataclass(frozen=True)
class Result:
    """What came out of a run.

    Parameters
    ----------
    metrics : mapping
        Figures for the manifest.
    outputs : mapping of str to str
        Names of files and folders, with what is in them.
    said : str
        What is printed at the end.
    page : Facts
        What ``report.html`` shows, beside what is printed.
    failed_gate : str
        Why the gate was not met; "" where it was.
    """

    metrics: Mapping[str, Any]
    outputs: Mapping[str, str]
    said: str
    page: Facts
    failed_gate: str = ""


@dataclass(frozen=True)
class Job:
    """A batch job.

    Parameters
    ----------
    name, description : str
        What it is called, and what ``--help`` begins with.
    declare : callable
        Adds its flags to a parser.
    check : callable
        Refuses flags that cannot work, by a SparkoptError; Spark has not started then.
    inputs : callable
        Returns fingerprints of what is read, by name.
    work : callable
        Does it.
    kind : {"folder", "table", "direct", "resumed"}
        What the output is: a folder of files and models; a table that Spark writes; a table whose format replaces it
        by itself; a table that is added to in its place, and that a later run goes on with.
    settings : mapping
        Of the session, where the job starts it.
    """

    name: str
    description: str
    declare: Callable[[Parser], None]
    check: Callable[[argparse.Namespace], None]
    inputs: Callable[[SparkSession, argparse.Namespace], Mapping[str, Any]]
    work: Callable[[Run], Result]
    kind: Callable[[argparse.Namespace], str] = lambda args: "folder"
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def parser(self) -> Parser:
        """Return the flags."""
        flags = Parser(self.name, self.description)
        self.declare(flags)
        common_flags(flags)
        return flags

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the job; return its exit code."""
        flags = self.parser()
        args = flags.read(argv)
        with logging_as(self.name, args.log_format):
            try:
                self.check(args)
            except SparkoptError as error:
                logger.error("%s (--help lists all flags)", error)
                return USAGE
            try:
                with _session(args, self) as spark:
                    return self._run(spark, args)
            except (SparkoptError, PySparkException, Py4JError, OSError) as error:
                logger.error("%s", essence(error))
                return FAILURE
            except KeyboardInterrupt:
                logger.error("interrupted. The same command again begins anew, or goes on where it can.")
                return INTERRUPTED

    def _run(self, spark: SparkSession, args: argparse.Namespace) -> int:
        started = manifest.now()
        identity = Identity(self.name, manifest.config_of(args), self.inputs(spark, args))
        event("begins", **identity.inputs)
        kind = self.kind(args)
        output, name = place_of(spark, args.output), "manifest.json" if kind == "folder" else HIDDEN
        earlier = manifest.find(output, name)
        if not args.force and _is_same(earlier, identity):
            print(
                f"nothing to do: {mask(args.output)} holds what the same flags made of the same data. "
                "Run with --force to do it again."
            )
            return FINE
        if why := output.refusal():  # before the work, which may take hours
            raise DataError(f"--output {mask(args.output)!r} cannot be written: {mask(why)}.")
        if kind == "table":
            _check_replaceable(output, args)
        if kind == "resumed":
            _check_resumable(earlier, identity, args)
        with staged(output) as staging, tempfile.TemporaryDirectory() as temporary:
            is_staged = kind in ("folder", "table")
            run = Run(spark, args, staging if is_staged else output, Path(temporary))
            if kind == "resumed":  # so that a run that goes on knows what this one was doing
                _close(run, identity, {}, {}, started, name, UNFINISHED)
                run.place.take(run.files)
            result = self.work(run)
            outputs = {
                **result.outputs,
                **_report(run, identity, result, REPORT if kind == "folder" else HIDDEN_REPORT),
            }
            status = GATE_NOT_MET if result.failed_gate else COMPLETE
            _close(run, identity, result.metrics, outputs, started, name, status)
            run.place.take(run.files)
            if is_staged:
                publish(staging, output, name, output.names() if kind == "table" else _left(earlier))
        print(result.said)
        if result.failed_gate:
            logger.error("%s", result.failed_gate)
            return GATE
        return FINE


def common_flags(flags: Parser) -> None:
    """Add the flags that every job has."""
    common = flags.add_argument_group("this run")
    common.add_argument("--config", metavar="FILE", help="YAML or JSON with the names of flags; flags given here win")
    common.add_argument(
        "--profile",
        metavar="NAME",
        default="local",
        help=f"settings for Spark where spark-submit gives none: {', '.join(PROFILES)}, or a file "
        "(default: %(default)s)",
    )
    common.add_argument("--force", action="store_true", help="run even if the output is of the same flags and data")
    common.add_argument("--log-format", choices=FORMATS, default="text", help="on standard error (default: text)")


def essence(error: Exception) -> str:
    """Return an error's sentence and its root, without plans and stacks; of a Python worker's, the last line."""
    if isinstance(error, SparkoptError):
        return str(error)
    absent = re.search(r"Failed to find the data source: (\w+)", str(error))
    if absent and absent[1] in PACKAGES:
        return f"Spark was started without {absent[1].title()}. Start it with {PACKAGES[absent[1]]}."
    if isinstance(error, Py4JJavaError):
        return f"Spark failed: {_rooted(_first(str(error.java_exception.toString())), str(error))}"
    if isinstance(error, PySparkException):
        said = re.sub(r"\s*SQLSTATE: \w+", "", str(error)).strip()
        if isinstance(error, AnalysisException):
            return _first(said)
        if isinstance(error, PythonException):
            return f"Spark failed: {said.splitlines()[-1].strip()}"
        return f"Spark failed: {_rooted(_first(said), getattr(error, '_stackTrace', None) or '')}"
    return _first(str(error))


def _first(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason was given"


def _rooted(sentence: str, trace: str) -> str:
    """Add what a Java stack says a failure began with, such as a full disk, where the sentence does not say it."""
    causes = [
        line.removeprefix("Caused by: ").strip() for line in trace.splitlines() if line.startswith("Caused by: ")
    ]
    return sentence if not causes or causes[-1] in sentence else f"{sentence} (caused by {causes[-1]})"


@contextmanager
def _session(args: argparse.Namespace, job: Job) -> Iterator[SparkSession]:
    """Give a session; one that ran before goes on running."""
    running = SparkSession.getActiveSession() is not None
    spark = session(None if running else args.profile, f"sparkopt {job.name}", dict(job.settings))
    try:
        yield spark
    finally:
        if not running:
            _stop(spark)


def _stop(spark: SparkSession) -> None:
    """Stop a session; one whose JVM is gone (Ctrl-C ends both) is stopped already, and hides no other error."""
    try:
        spark.stop()
    except (Py4JError, OSError) as error:
        event("Spark was gone", reason=str(error))


def _is_same(earlier: Mapping[str, Any] | None, identity: Identity) -> bool:
    if earlier is None or earlier["status"] != COMPLETE or earlier["identity"] != identity.digest:
        return False
    if not identity.is_known:
        logger.warning("whether the data changed since the last run cannot be told, so this one is made anew")
    return identity.is_known


def _check_replaceable(output: Place, args: argparse.Namespace) -> None:
    """Refuse to replace what is there, unless that is wanted, and it is a table."""
    if not output.exists():
        return
    if not args.force and args.output_mode != "overwrite":
        raise DataError(
            f"{mask(args.output)} exists. Give another --output, or --output-mode overwrite to replace it."
        )
    found = output.names()
    if found and not {HIDDEN, "_SUCCESS"} & set(found):
        raise DataError(
            f"{mask(args.output)} holds something else than a table, and is not replaced: {found[0]}, say."
        )


def _check_resumable(earlier: Mapping[str, Any] | None, identity: Identity, args: argparse.Namespace) -> None:
    """Refuse to go on with a table that was begun in another way: only the data may have grown."""
    for name, value in identity.inputs.items():
        if earlier is not None and name != "data" and earlier["data"].get(name) != value:
            raise DataError(
                f"{mask(args.output)} was made with another {name}. Give another --output, or --force to start anew."
            )


def _left(earlier: Mapping[str, Any] | None) -> list[str]:
    """What an earlier run of a job has left in its output."""
    return [] if earlier is None else [*earlier["outputs"], "manifest.json"]


def _report(run: Run, identity: Identity, result: Result, name: str) -> dict[str, str]:
    """Write the page, which has the flags too, for whoever is handed it alone; return its name and what is in it."""
    flags = "\n".join(f"  {key} {value}" for key, value in identity.config.items() if value not in (None, False))
    said = f"{result.said}\n{result.failed_gate}".strip()
    write_report(run.files / name, result.page, f"{said}\n\nsparkopt {identity.job}\n{flags}")
    return {name: "what came of it, as a page with plots"}


def _close(
    run: Run,
    identity: Identity,
    metrics: Mapping[str, Any],
    outputs: Mapping[str, str],
    started: datetime,
    name: str,
    status: str,
) -> None:
    """Write the manifest."""
    content = manifest.write(
        run.files,
        name,
        identity=identity,
        status=status,
        metrics=metrics,
        outputs=outputs,
        started=started,
        spark=run.spark,
    )
    if status != UNFINISHED:
        event("ends", status=status, seconds=content["seconds"], metrics=content["metrics"])

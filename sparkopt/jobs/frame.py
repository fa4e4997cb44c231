"""What all jobs share: flags, checks, session, exit code, manifest, and outputs that appear whole or not at all.

A job defines its flags, what it reads and what it does. ``Job.main`` does the rest, in this order: parse flags and
file (wrong: 2), check them (wrong: 2; an extra that they need is not installed: 1), choose between Spark and this
machine, start Spark where it is chosen, compare with the output of an earlier run (equal: 0, nothing is done), run,
publish outputs, page and manifest, report the end (a failure: 1, a gate that is not met: 3).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

from sparkopt.errors import DataError, MissingDependencyError, SparkoptError
from sparkopt.io.secrets import mask
from sparkopt.jobs import manifest
from sparkopt.jobs.choice import MACHINE, SPARK, Choice
from sparkopt.jobs.choosing import CHOICES, choose, runtime_class
from sparkopt.jobs.flags import FAILURE, USAGE, Parser
from sparkopt.jobs.invalid_rows import by_flags
from sparkopt.jobs.locations import JobLocation, is_staging, publish, staged
from sparkopt.jobs.logs import FORMATS, event, logger, logging_as
from sparkopt.jobs.manifest import COMPLETE, GATE_NOT_MET, UNFINISHED, JobIdentity
from sparkopt.jobs.overlap import check_output, check_tables, table_of
from sparkopt.jobs.runtimes.base import Runtime
from sparkopt.jobs.signals import Terminated, terminable
from sparkopt.jobs.tracking import check_tracking, log_run, tracking_flag
from sparkopt.launch.session import PROFILES
from sparkopt.launch.streams import own_standard_error
from sparkopt.report.facts import Facts
from sparkopt.report.page import write_report
from sparkopt.values import dataclass

__all__ = [
    "FAILURE",
    "FINE",
    "GATE",
    "INTERRUPTED",
    "TERMINATED",
    "USAGE",
    "Job",
    "JobResult",
    "JobRun",
    "common_flags",
    "output_mode_flag",
]

FINE, GATE, INTERRUPTED, TERMINATED = 0, 3, 130, 143
"""Exit codes, in addition to FAILURE = 1 and USAGE = 2; shells return the last two for Ctrl-C and SIGTERM."""
OUTPUT_MODES = ("errorifexists", "overwrite")
REPORT = "report.html"
HIDDEN, HIDDEN_REPORT = "_manifest.json", "_report.html"
"""Names in a folder that is a table: Spark reads no file that begins with an underscore."""


@dataclass(frozen=True)
class JobRun:
    """What a job's work receives.

    Attributes
    ----------
    runtime : Runtime
        Where it runs.
    args : Namespace
        The flags.
    target : JobLocation
        Where the runtime writes: a folder next to the output, or the output itself where the job writes it directly.
    files : Path
        A local folder for small files; they are copied to ``target`` at the end.
    """

    runtime: Runtime
    args: argparse.Namespace
    target: JobLocation
    files: Path


@dataclass(frozen=True)
class JobResult:
    """The result of a run.

    Parameters
    ----------
    metrics : mapping
        Figures for the manifest.
    outputs : mapping of str to str
        Names of files and folders, with a description of each.
    text : str
        What is printed at the end.
    page : Facts
        What ``report.html`` shows in addition to the text.
    failed_gate : str
        Why the gate was not met; "" where it was.
    model : Model or None
        The model that was trained, for MLflow.
    """

    metrics: Mapping[str, Any]
    outputs: Mapping[str, str]
    text: str
    page: Facts
    failed_gate: str = ""
    model: Any = None


@dataclass(frozen=True)
class Job:
    """A batch job.

    Parameters
    ----------
    name, description : str
        Its name, and the beginning of ``--help``.
    declare : callable
        Adds its flags to a parser.
    check : callable
        Raises a SparkoptError for flags that cannot work, a MissingDependencyError for those that need an extra which
        is not installed; Spark has not started then.
    inputs : callable
        Returns fingerprints of the inputs, by name.
    work : callable
        Runs the job and returns its result.
    kind : {"folder", "table", "direct", "resumed"}
        The output: a folder of files and models; a table that Spark writes; a table whose format replaces it
        atomically; a table that is appended to where it is, and that a later run resumes.
    settings : mapping
        Settings of the session, where the job starts it.
    needs : callable or None
        Returns why flags need Spark, or "" where they do not; None for a job that only Spark runs.
    steps : int
        How often the job reads its rows again after the first time, roughly.
    resumes : callable
        Whether a table that was begun with an earlier fingerprint may be resumed with another, given both, by name.
    """

    name: str
    description: str
    declare: Callable[[Parser], None]
    check: Callable[[argparse.Namespace], None]
    inputs: Callable[[Runtime, argparse.Namespace], Mapping[str, Any]]
    work: Callable[[JobRun], JobResult]
    kind: Callable[[argparse.Namespace], str] = lambda args: "folder"
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    needs: Callable[[argparse.Namespace], str] | None = None
    steps: int = 0
    resumes: Callable[[str, Any, Any], bool] = lambda name, earlier, now: name == "data" or earlier == now

    def parser(self) -> Parser:
        """Return the parser of the job's flags."""
        flags = Parser(self.name, self.description)
        self.declare(flags)
        common_flags(flags)
        if self.needs is not None:
            on_flag(flags)
        return flags

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the job; return its exit code."""
        own_standard_error()
        flags = self.parser()
        args = flags.read(argv)
        with logging_as(self.name, args.log_format):
            try:
                self.check(args)
                check_output(args, self.kind(args))
                choice = self._choice(args)
            except MissingDependencyError as error:
                logger.error("%s", error)
                return FAILURE
            except SparkoptError as error:
                logger.error("%s (--help lists all flags)", error)
                return USAGE
            return self._run_on(choice, args)

    def _choice(self, args: argparse.Namespace) -> Choice:
        """Return where the job runs."""
        if self.needs is None:
            return Choice(SPARK, f"{self.name} runs on Spark")
        return choose(args, self.needs(args), steps=self.steps)

    def _run_on(self, choice: Choice, args: argparse.Namespace) -> int:
        """Run the job there; return its exit code."""
        kind = runtime_class(choice)
        failures: tuple[type[Exception], ...] = (SparkoptError, OSError, *kind.failures)
        again = "The same command starts again, or resumes where it can."
        try:
            check_tracking(args)
            settings = self.settings if args.remote is None else {**self.settings, "spark.remote": args.remote}
            with terminable(), kind.opened(args.profile, f"sparkopt {self.name}", settings) as runtime:
                return self._run(runtime, choice, args)
        except failures as error:
            if kind.has_ended(error):
                logger.error("terminated: spark-submit has ended. %s", again)
                return TERMINATED
            logger.error("%s", by_flags(kind.essence(error)))
            return FAILURE
        except Terminated:
            logger.error("terminated. %s", again)
            return TERMINATED
        except KeyboardInterrupt:
            logger.error("interrupted. %s", again)
            return INTERRUPTED

    def _run(self, runtime: Runtime, choice: Choice, args: argparse.Namespace) -> int:
        started, kind = manifest.now(), self.kind(args)
        output = runtime.location(args.output)
        if (table := table_of(args)) is not None:
            check_tables(output.uri, kind, table, runtime.folders_of(table))
        identity = JobIdentity(self.name, manifest.config_of(args), self.inputs(runtime, args))
        event("begins", on=choice.on, reason=choice.reason, **identity.inputs)
        name, page = ("manifest.json", REPORT) if kind == "folder" else (HIDDEN, HIDDEN_REPORT)
        earlier = manifest.find(output, name)
        if not args.force and _is_same(earlier, identity):
            lines = manifest.unchanged(self.name, mask(args.output), earlier, tracked=bool(args.mlflow))
            print(*lines, _link(output.child(page)), sep="\n")
            event("ends", status="unchanged", reason=lines[0])
            return FINE
        if why := output.refusal():  # before the work, which may take hours
            raise DataError(f"--output {mask(args.output)!r} cannot be written: {mask(why)}.")
        if kind == "table":
            _check_replaceable(output, args)
        if kind == "folder":
            _check_other(output, earlier, identity, args)
        if kind == "resumed":
            _check_resumable(earlier, identity, args, self.resumes)
        with staged(output) as staging, tempfile.TemporaryDirectory() as temporary:
            is_staged = kind in ("folder", "table")
            run = JobRun(runtime, args, staging if is_staged else output, Path(temporary))
            if kind == "resumed":  # a run that resumes reads what this one was doing
                _close(run, identity, {}, {}, started, name, UNFINISHED)
                run.target.add_files(run.files)
            result = self.work(run)
            outputs = {**result.outputs, **_report(run, identity, result, page)}
            status = GATE_NOT_MET if result.failed_gate else COMPLETE
            _close(run, identity, result.metrics, outputs, started, name, status)
            run.target.add_files(run.files)
            if is_staged:
                publish(staging, output, name, output.names() if kind == "table" else _left(earlier))
            run_id = log_run(args, identity, result.metrics, run.files, result.model) if args.mlflow else ""
        if choice.on == MACHINE:
            print(f"ran on    {choice}")
        print(result.text)
        print(_link(output.child(page)))
        if run_id:
            print(f"mlflow    experiment {args.mlflow}, run {run_id}")
        if result.failed_gate:
            logger.error("%s", result.failed_gate)
            return GATE
        return FINE


def common_flags(flags: Parser) -> None:
    """Add the flags that every job has."""
    common = flags.add_argument_group("this run")
    common.add_argument(
        "--config", metavar="FILE", help="YAML or JSON with flags by name; flags of the command line win"
    )
    common.add_argument(
        "--profile",
        metavar="NAME",
        default="local",
        help=f"settings for Spark where spark-submit gives none: {', '.join(PROFILES)}, or a file "
        "(default: %(default)s)",
    )
    common.add_argument(
        "--remote",
        metavar="URL",
        help="run on this Spark Connect server, as sc://HOST:15002; its own settings hold (default: SPARK_REMOTE)",
    )
    common.add_argument(
        "--force", action="store_true", help="run even if flags and data are those of the existing output"
    )
    tracking_flag(common)
    common.add_argument("--log-format", choices=FORMATS, default="text", help="on standard error (default: text)")


def on_flag(flags: Parser) -> None:
    """Add the flag of jobs that need no Spark."""
    flags.add_argument(
        "--on",
        choices=CHOICES,
        default=CHOICES[0],
        help="where it runs: Spark, or this machine's own processes without Spark or Java; auto decides by what the "
        "flags need and by the size of the input (default: %(default)s)",
    )


def _is_same(earlier: Mapping[str, Any] | None, identity: JobIdentity) -> TypeGuard[Mapping[str, Any]]:
    if earlier is None or earlier["status"] != COMPLETE or earlier["identity"] != identity.digest:
        return False
    if not identity.is_known:
        logger.warning("whether the data changed since the last run is not known, so the job runs again")
    return identity.is_known


def _check_replaceable(output: JobLocation, args: argparse.Namespace) -> None:
    """Refuse to replace an existing output, unless the flags allow it and it is a table."""
    found = output.names()
    if not output.exists() or (found and all(map(is_staging, found))):  # what a killed run left is no output
        return
    if not args.force and args.output_mode != "overwrite":
        raise DataError(
            f"{mask(args.output)} exists. Give another --output, or --output-mode overwrite to replace it."
        )
    if found and not {HIDDEN, "_SUCCESS"} & set(found):
        raise DataError(
            f"{mask(args.output)} is not replaced: it holds something other than a table, such as {found[0]}."
        )


def _check_other(
    output: JobLocation, earlier: Mapping[str, Any] | None, identity: JobIdentity, args: argparse.Namespace
) -> None:
    """Refuse to replace another job's output, and a model, unless the flags allow it."""
    can_replace = hasattr(args, "output_mode")
    if (args.force and can_replace) or getattr(args, "output_mode", "") == "overwrite":
        return
    what = ""
    if earlier is not None and earlier["job"] != identity.job:
        what = f"the output of sparkopt {earlier['job']}"
    elif can_replace and output.child("model").exists():
        what = "a model"
    if what:
        way = ", or --output-mode overwrite to replace it" if can_replace else ""
        raise DataError(f"{mask(args.output)} exists, and holds {what}. Give another --output{way}.")


def output_mode_flag(flags: Parser) -> None:
    """Add the flag of jobs that may replace what is in the output."""
    flags.add_argument(
        "--output-mode", choices=OUTPUT_MODES, default=OUTPUT_MODES[0], help="where it exists (default: %(default)s)"
    )


def _check_resumable(
    earlier: Mapping[str, Any] | None,
    identity: JobIdentity,
    args: argparse.Namespace,
    resumes: Callable[[str, Any, Any], bool],
) -> None:
    """Refuse to resume a table that was begun with other settings; the data may have grown."""
    for name, value in identity.inputs.items():
        if earlier is not None and not resumes(name, earlier["data"].get(name), value):
            raise DataError(
                f"{mask(args.output)} was made with another {name}. Give another --output, or --force to start over."
            )


def _link(page: JobLocation) -> str:
    """Return where a report is, in a form that terminals open."""
    path = page.uri.removeprefix("file://")
    return f"report    {mask(Path(path).as_uri() if path.startswith('/') else page.uri)}"


def _left(earlier: Mapping[str, Any] | None) -> list[str]:
    """Return the names that an earlier run of a job has left in its output."""
    return [] if earlier is None else [*earlier["outputs"], "manifest.json"]


def _report(run: JobRun, identity: JobIdentity, result: JobResult, name: str) -> dict[str, str]:
    """Write the page, with the flags for readers who have nothing else; return its name and description."""
    flags = "\n".join(
        f"  {key} {value}" for key, value in identity.config.items() if value not in (None, []) and value is not False
    )
    text = f"{result.text}\n{result.failed_gate}".strip()
    made = f"{manifest.now():%Y-%m-%d %H:%M} UTC"
    data = identity.inputs.get("data") or {}
    print_of = data.get("digest") or data.get("version") or "not known"
    when = f"{result.page.subtitle}; {made}; fingerprint of the data: {print_of}"
    write_report(run.files / name, replace(result.page, subtitle=when), f"{text}\n\nsparkopt {identity.job}\n{flags}")
    return {name: "the results, as a page with plots"}


def _close(
    run: JobRun,
    identity: JobIdentity,
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
        where=run.runtime.where(),
    )
    if status != UNFINISHED:
        event("ends", status=status, seconds=content["seconds"], metrics=content["metrics"])

"""Errors of tasks, raised on the driver as one line each, without the traces of Spark and Python."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

from pyspark.errors import PySparkException

from sparkopt.blocks.jvm_errors import Py4JJavaError
from sparkopt.errors import DataError, FitCancelledError, IncompatibleError, ParameterError
from sparkopt.io.secrets import mask, mask_uri

__all__ = ["data_errors", "missing_system", "path_errors", "raise_if_cancelled"]

_DATA = re.compile(r"^\S*\bDataError: (.+)$", re.MULTILINE)
_FULL = re.compile(r"^\S*\bIncompatibleError: (no space is left for blocks .+)$", re.MULTILINE)
_UNUSABLE = re.compile(r"^\S*\bParameterError: (\w+='.* cannot be used: .+)$", re.MULTILINE)
_GONE = re.compile(r"FileNotFoundException: .*?(?:File |\] )?(\S+:/\S+|/\S+)")
_CANCELLED = re.compile(r"SPARK_JOB_CANCELLED|OPERATION_CANCELED|\bJob \d+ cancelled\b|\bjob group .* cancelled\b")
_SHUT_DOWN = re.compile(r"\bcancelled because (SparkContext was shut down)")
_CHANGED = "are not what they were when the fit began"
_ADVICE = (
    "Blocks that were lost are read again: do not write to the data of a running fit, and let what makes the rows be "
    "deterministic."
)


@contextlib.contextmanager
def data_errors(source: Callable[[], str] | None = None) -> Iterator[None]:
    """Raise a task's DataError as itself, and a missing file as one.

    Parameters
    ----------
    source : callable or None, default None
        Returns what the rows are read from, for errors of tasks that do not know it.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise_known(str(error), source)
        raise
    except DataError as error:
        if source is None or _CHANGED not in str(error) or _ADVICE in str(error):
            raise
        raise DataError(_with_source(str(error), source)) from None


def raise_known(text: str, source: Callable[[], str] | None) -> None:
    """Raise what an error of Spark's is about, if that is known."""
    raise_if_cancelled(text)
    if found := _DATA.search(text):
        raise DataError(_with_source(found[1], source)) from None
    if found := _FULL.search(text):
        raise IncompatibleError(found[1]) from None
    if found := _UNUSABLE.search(text):
        raise ParameterError(found[1]) from None
    if found := _GONE.search(text):
        raise DataError(
            f"{mask(found[1])} is gone: it was deleted after the files were listed. Read them again, by spark.read "
            "or after REFRESH TABLE."
        ) from None


def raise_if_cancelled(text: str) -> None:
    """Raise FitCancelledError where an error of Spark's says that somebody cancelled a job."""
    if _CANCELLED.search(text):
        reason = _SHUT_DOWN.search(text)
        why = f"because {reason[1]}" if reason else "as Spark reports of its job"
        raise FitCancelledError(f"the fit was cancelled, {why}. With checkpointDir the same call resumes.") from None


_NO_SYSTEM = re.compile(
    r"No FileSystem for scheme \"?(\w+)"
    r"|org\.apache\.hadoop\.fs\.(s3a)\.\w+ not found"
    r"|com\.google\.cloud\.hadoop\.fs\.(gc)s\.\w+ not found"
    r"|org\.apache\.hadoop\.fs\.(azure)\w*\.\w+ not found"
)
_CONNECTORS = {
    "s3a": "--packages org.apache.hadoop:hadoop-aws:VERSION, with the version of Spark's Hadoop",
    "gs": "--packages com.google.cloud.bigdataoss:gcs-connector:hadoop3-VERSION",
    "abfss": "--packages org.apache.hadoop:hadoop-azure:VERSION, with the version of Spark's Hadoop",
}
_SCHEMES = {"s3": "s3a", "s3n": "s3a", "gc": "gs", "azure": "abfss", "abfs": "abfss"}


def missing_system(text: str) -> str:
    """Return how Spark is started with a file system that it lacks, if an error is about one, else ""."""
    found = _NO_SYSTEM.search(text)
    if found is None:
        return ""
    scheme = next(part for part in found.groups() if part)
    wanted = _SCHEMES.get(scheme, scheme)
    write = f"Write {wanted}: in place of {scheme}:, and start" if scheme in ("s3", "s3n") else "Start"
    way = f" {write} it with {_CONNECTORS[wanted]}." if wanted in _CONNECTORS else ""
    return f"Spark has no file system for {scheme}:.{way}"


@contextlib.contextmanager
def path_errors(path: str) -> Iterator[None]:
    """Raise that Spark cannot open a path's scheme as one line, with what to install.

    Raises
    ------
    ParameterError
        Naming the path.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if way := missing_system(str(error)):
            raise ParameterError(f"path={mask_uri(path)!r} cannot be used: {way}") from None
        raise


def _with_source(message: str, source: Callable[[], str] | None) -> str:
    """Add what to do, and what the rows are read from."""
    if _CHANGED not in message:
        return message
    where = "" if source is None else source()
    return f"{message}.{f' They are read from {where}.' if where else ''} {_ADVICE}"

"""A job's log on standard error, as text or as one JSON object per line; secrets are masked."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from pyspark.logger import PySparkLogger

from sparkopt.io.secrets import mask, masked
from sparkopt.solver.callbacks import progress_logger

__all__ = ["FORMATS", "event", "logger", "logging_as"]

FORMATS = ("text", "json")

logger = logging.getLogger("sparkopt.jobs")
QUERIES = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")
"""Loggers of errors that PySpark also raises; a job reports them once."""
AT_THE_END = ("while sending command.", "while receiving.")


def event(name: str, **fields: Any) -> None:  # names of fields are open: they become keys of the JSON line
    """Log an event with its figures."""
    logger.info(name, extra={"fields": fields})


class _TextFormatter(logging.Formatter):
    """Records of the job begin with its name; those of other loggers with level and logger."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self.job = job

    def format(self, record: logging.LogRecord) -> str:
        message = mask(record.getMessage())
        if record.name == progress_logger.name:
            return f"sparkopt {self.job}: {message}"
        if record.name == logger.name:
            message = " ".join([message, *_pairs(record)])
            level = "error: " if record.levelno >= logging.ERROR else ""
            return f"sparkopt {self.job}: {level}{message}"
        return f"{record.levelname} {record.name}: {' '.join(message.split())}"


class _JsonFormatter(logging.Formatter):
    """One object per line: time (UTC), level, job, logger, message and the fields of an event."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self.job = job

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "job": self.job,
            "logger": record.name,
            "message": mask(" ".join(record.getMessage().split())),
            **masked(getattr(record, "fields", {})),
        }
        if record.exc_info:
            line["traceback"] = mask("".join(traceback.format_exception(*record.exc_info)))
        return json.dumps(line, default=str)


def _pairs(record: logging.LogRecord) -> list[str]:
    return [f"{key}={value}" for key, value in masked(getattr(record, "fields", {})).items()]


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is not what Py4J says of calls that a signal or the end of the JVM interrupts."""
    return record.name != "root" or not record.getMessage().endswith(AT_THE_END)


@contextmanager
def logging_as(job: str, form: str) -> Iterator[None]:
    """Log to standard error while the job runs.

    Parameters
    ----------
    job : str
        The job's name; each line contains it.
    form : {"text", "json"}
        Text has warnings, failures and the progress of a long fit only, JSON every step too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_news)
    handler.setFormatter(_JsonFormatter(job) if form == "json" else _TextFormatter(job))
    levels: dict[logging.Logger, int] = {PySparkLogger.getLogger(name): logging.CRITICAL for name in QUERIES}
    levels[progress_logger] = logging.INFO  # of a long fit, where no bar is seen
    levels[logger] = logging.INFO if form == "json" else logging.WARNING
    before = {each: each.level for each in levels}
    logging.getLogger().addHandler(handler)
    for each, level in levels.items():
        each.setLevel(level)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for each, level in before.items():
            each.setLevel(level)
        logging.getLogger().removeHandler(handler)

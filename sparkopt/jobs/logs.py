"""What a job says on standard error: as text, or as one JSON object a line; and nothing secret in it."""

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

__all__ = ["FORMATS", "event", "logger", "logging_as"]

FORMATS = ("text", "json")

logger = logging.getLogger("sparkopt.jobs")
QUERIES = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")
"""Where PySpark logs errors of queries, which it raises too: a job says them once."""


def event(name: str, **fields: Any) -> None:  # names of fields are open: they become keys of the JSON line
    """Log one thing that happened, with its figures."""
    logger.info(name, extra={"fields": fields})


class _TextFormatter(logging.Formatter):
    """A failure of the job is one line that begins with its name; the rest says where it comes from."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self.job = job

    def format(self, record: logging.LogRecord) -> str:
        message = mask(record.getMessage())
        if record.name == logger.name:
            message = " ".join([message, *_pairs(record)])
            level = "error: " if record.levelno >= logging.ERROR else ""
            return f"sparkopt {self.job}: {level}{message}"
        return f"{record.levelname} {record.name}: {' '.join(message.split())}"


class _JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, job, logger, message, and the fields of an event."""

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


@contextmanager
def logging_as(job: str, form: str) -> Iterator[None]:
    """Log to standard error while the job runs.

    Parameters
    ----------
    job : str
        The job's name, in each line.
    form : {"text", "json"}
        As text only warnings and failures are said; as JSON each step too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(job) if form == "json" else _TextFormatter(job))
    levels: dict[logging.Logger, int] = {PySparkLogger.getLogger(name): logging.CRITICAL for name in QUERIES}
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

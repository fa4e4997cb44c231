"""What a job says on standard error: as text, or as one JSON object a line; and nothing secret in it."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from pyspark.logger import PySparkLogger

__all__ = ["FORMATS", "event", "logger", "logging_as", "mask", "masked"]

FORMATS = ("text", "json")
SENSITIVE = r"token|passw|secret|credential|(?:api|access|private)[_-]?key|\bsig"
"""Names whose values are not shown."""
MASK = "***"

logger = logging.getLogger("sparkopt.jobs")
QUERIES = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")
"""Where PySpark logs errors of queries, which it raises too: a job says them once."""


def mask(text: str) -> str:
    """Return a text without the passwords of URIs, and without the values of names that look secret.

    Examples
    --------
    >>> mask("s3a://key:abc@bucket/rows?token=xyz&part=1")
    's3a://key:***@bucket/rows?token=***&part=1'
    """
    text = re.sub(r"(//[^/:@\s]*):[^/@\s]*@", rf"\1:{MASK}@", text)
    return re.sub(
        rf"([\w.-]*(?:{SENSITIVE})[\w.-]*\s*[=:]\s*)[^\s&,;'\"]+",
        rf"\1{MASK}",
        text,
        flags=re.IGNORECASE,
    )


def masked(value: Any, name: str = "") -> Any:
    """Return plain data without secrets: values of keys that look like one, and passwords in URIs."""
    if name and re.search(SENSITIVE, name, re.IGNORECASE) and value is not None:
        return MASK
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return mask(value) if isinstance(value, str) else value


def event(name: str, **fields: Any) -> None:  # names of fields are open: they become keys of the JSON line
    """Log one thing that happened, with its figures."""
    logger.info(name, extra={"fields": fields})


class _Text(logging.Formatter):
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


class _Json(logging.Formatter):
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
    handler.setFormatter(_Json(job) if form == "json" else _Text(job))
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

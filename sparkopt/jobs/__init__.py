"""Batch jobs, which ``spark-submit jobs/….py`` and the ``sparkopt`` command run, and the pipeline that joins them.

A job is a module with a ``JOB``: its flags, checks, inputs and work. :class:`~sparkopt.jobs.frame.Job` does what all
jobs share. Start at ``frame``, then read ``train``. ``cli.COMMANDS`` lists the commands, ``choosing`` and ``choice``
decide between Spark and this machine, ``runtimes`` has what each of them does, ``sources`` the flags of data,
``locations`` publishes outputs, ``manifest`` records a run, and ``pipeline`` makes the command lines of a scheduler.

Every other package may be imported here, and none imports this one. ``pipeline`` works without Spark.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparkopt.jobs.pipeline import DataInterval, Pipeline, PipelinePlan

if TYPE_CHECKING:
    from sparkopt.jobs.choice import spark_is_running
    from sparkopt.jobs.flags import Parser
    from sparkopt.jobs.frame import Job, JobResult, JobRun
    from sparkopt.jobs.locations import JobLocation
    from sparkopt.jobs.metrics import ScoredRows
    from sparkopt.jobs.models import SavedModel, find_model, load_model
    from sparkopt.jobs.runtimes.base import InputRows, Runtime, Written
    from sparkopt.jobs.runtimes.images import ImageRows
    from sparkopt.jobs.runtimes.values import RowValues
    from sparkopt.jobs.sources import DataSource

__all__ = [
    "DataInterval",
    "DataSource",
    "ImageRows",
    "InputRows",
    "Job",
    "JobLocation",
    "JobResult",
    "JobRun",
    "Parser",
    "Pipeline",
    "PipelinePlan",
    "RowValues",
    "Runtime",
    "SavedModel",
    "ScoredRows",
    "Written",
    "find_model",
    "load_model",
    "spark_is_running",
]

_LAZY = {
    "DataSource": "sources",
    "ImageRows": "runtimes.images",
    "InputRows": "runtimes.base",
    "Job": "frame",
    "JobLocation": "locations",
    "JobResult": "frame",
    "JobRun": "frame",
    "Parser": "flags",
    "RowValues": "runtimes.values",
    "Runtime": "runtimes.base",
    "SavedModel": "models",
    "ScoredRows": "metrics",
    "Written": "runtimes.base",
    "find_model": "models",
    "load_model": "models",
    "spark_is_running": "choice",
}
"""Names whose modules need Spark, which a scheduler's own process may not have."""


def __getattr__(name: str) -> Any:
    """Import names that need Spark when they are first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)

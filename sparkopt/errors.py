"""The errors and warnings of sparkopt.

Each error also derives from the built-in exception that fits, so ``except ValueError`` catches a `ParameterError`.
This module imports nothing of sparkopt.
"""

from __future__ import annotations

__all__ = [
    "CorruptCheckpointWarning",
    "CorruptDataError",
    "CorruptImageError",
    "DataError",
    "DivergedError",
    "FitCancelledError",
    "IncompatibleError",
    "LostProcessError",
    "LostRankError",
    "MissingDependencyError",
    "NoSummaryError",
    "NotConvergedWarning",
    "ParameterError",
    "RankError",
    "SchemaError",
    "SparkoptError",
]


class SparkoptError(Exception):
    """Base class of all sparkopt errors."""


class ParameterError(SparkoptError, ValueError):
    """A parameter's value is outside its domain; the message names the parameter and the domain."""


class SchemaError(SparkoptError, ValueError):
    """A column is missing or has an unsupported type; raised before any job runs."""


class DataError(SparkoptError, ValueError):
    """A row has a value that cannot be used; the message names column, partition and row."""


class IncompatibleError(SparkoptError, ValueError):
    """Two choices cannot be combined; the message names both and what to do instead."""


class DivergedError(SparkoptError, ArithmeticError):
    """The objective is no longer finite; the message names the step and what to change."""


class CorruptDataError(SparkoptError, ValueError):
    """Encoded bytes cannot be decoded, or would exceed the bound on their size; the message names the codec."""


class CorruptImageError(CorruptDataError):
    """An image cannot be decoded; the message gives the reason."""


class MissingDependencyError(SparkoptError, ImportError):
    """An optional package is not installed; the message gives the command that installs it."""

    @classmethod
    def of(cls, feature: str, package: str, extra: str) -> MissingDependencyError:
        """Return the error that ``feature`` needs ``package``, which the extra ``extra`` of sparkopt installs."""
        return cls(f"{feature} needs {package}, which is not installed. {_remedy(extra)}")


def _remedy(extra: str) -> str:
    """Return how to install an extra: by its requirements, which an index has wherever sparkopt itself came from."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = [line.partition(";") for line in requires("sparkopt") or ()]
    except PackageNotFoundError:  # a checkout on PYTHONPATH
        lines = []
    wanted = [line.strip() for line, _, marker in lines if f'extra == "{extra}"' in marker.replace("'", '"')]
    if not wanted:
        return f"Install sparkopt with its extra {extra!r}."
    quoted = " ".join(f"'{line}'" for line in wanted)
    return f"It is in sparkopt's extra {extra!r}: pip install {quoted}"


class FitCancelledError(SparkoptError, RuntimeError):
    """The jobs of a fit were cancelled: by ``cancelAllJobs``, a job group or tag, or on Spark's own pages."""


class NoSummaryError(SparkoptError, AttributeError, RuntimeError):
    """A model was loaded, not trained in this session, so nothing is known of its training."""


class RankError(SparkoptError, RuntimeError):
    """A rank of a distributed run failed; the message names it and gives its traceback."""


class LostRankError(RankError):
    """A rank ended unexpectedly: its process was killed, or its executor, machine or network was lost."""


class LostProcessError(SparkoptError, RuntimeError):
    """A worker process of this machine ended unexpectedly, again and again; the message names the item and how."""


class NotConvergedWarning(UserWarning):
    """The solver reached its step limit before its tolerance."""


class CorruptCheckpointWarning(UserWarning):
    """A checkpoint is truncated or altered, and the previous one is used; the message names it."""

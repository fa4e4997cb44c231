"""Every error and warning that sparkopt raises on purpose.

Each derives from the built-in exception that a caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

__all__ = [
    "CorruptCheckpointWarning",
    "CorruptDataError",
    "CorruptImageError",
    "DataError",
    "DivergedError",
    "IncompatibleError",
    "LostRankError",
    "MissingDependencyError",
    "NotConvergedWarning",
    "ParameterError",
    "RankError",
    "SchemaError",
    "SparkoptError",
]


class SparkoptError(Exception):
    """Base class of all sparkopt errors."""


class ParameterError(SparkoptError, ValueError):
    """A parameter has a value outside its domain; the message names the parameter and the domain."""


class SchemaError(SparkoptError, ValueError):
    """A column is missing or has a type that cannot be used; found before any job runs."""


class DataError(SparkoptError, ValueError):
    """A row holds a value that cannot be trained on; the message names column, partition and row."""


class IncompatibleError(SparkoptError, ValueError):
    """Two choices that cannot work together; the message names both and a way out."""


class DivergedError(SparkoptError, ArithmeticError):
    """The objective stopped being finite; the message names the step and what to change."""


class CorruptDataError(SparkoptError, ValueError):
    """Encoded bytes cannot be decoded within their bounds; the message names the codec."""


class CorruptImageError(CorruptDataError):
    """An image cannot be decoded; the message gives the reason."""


class MissingDependencyError(SparkoptError, ImportError):
    """An optional package is needed; the message gives the command that installs it."""

    @classmethod
    def of(cls, feature: str, package: str, extra: str) -> MissingDependencyError:
        """Say that ``feature`` needs ``package``, which the extra ``extra`` installs."""
        return cls(f"{feature} needs {package}, which is not installed. Run: pip install 'sparkopt[{extra}]'")


class RankError(SparkoptError, RuntimeError):
    """One process of a distributed run failed; the message names its rank and gives its traceback."""


class LostRankError(RankError):
    """One process of a distributed run ended without a word: killed, or its executor, machine or network was lost."""


class NotConvergedWarning(UserWarning):
    """The solver stopped at its step limit before its tolerance was met."""


class CorruptCheckpointWarning(UserWarning):
    """A checkpoint was truncated or altered; the message names it, and the one before it is used."""

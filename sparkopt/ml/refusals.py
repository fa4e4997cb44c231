"""Refusals that code written for pyspark.ml catches: sparkopt's errors that are an IllegalArgumentException too.

`sparkopt.errors` imports no pyspark, so the estimators and models exchange the classes where an error leaves them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.errors import IllegalArgumentException

from sparkopt.errors import IncompatibleError, ParameterError, SchemaError, SparkoptError

__all__ = ["IllegalChoiceError", "IllegalColumnError", "IllegalParameterError", "illegal_arguments"]


class _Illegal(IllegalArgumentException):
    """Makes the message known to pyspark: the built-in classes come before it, and do not pass it on."""

    def __init__(self, message: str) -> None:
        IllegalArgumentException.__init__(self, message)


class IllegalParameterError(_Illegal, ParameterError):
    """A `ParameterError` of an estimator."""


class IllegalColumnError(_Illegal, SchemaError):
    """A `SchemaError` of an estimator or model."""


class IllegalChoiceError(_Illegal, IncompatibleError):
    """An `IncompatibleError` of an estimator."""


CLASSES: dict[type[SparkoptError], type[SparkoptError]] = {
    ParameterError: IllegalParameterError,
    SchemaError: IllegalColumnError,
    IncompatibleError: IllegalChoiceError,
}


@contextmanager
def illegal_arguments() -> Iterator[None]:
    """Raise parameter, column and combination errors so that pyspark's class catches them too; also a decorator."""
    try:
        yield
    except tuple(CLASSES) as error:
        if type(error) not in CLASSES:
            raise
        raise CLASSES[type(error)](str(error)).with_traceback(error.__traceback__) from error.__cause__

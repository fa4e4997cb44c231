"""Errors of the JVM's gateway, py4j, as types that exist without it: a client of Spark Connect need not have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["Py4JError", "Py4JJavaError", "Py4JNetworkError"]

if TYPE_CHECKING:
    from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
else:
    try:
        from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
    except ImportError:  # pyspark-client and databricks-connect come without

        class Py4JError(Exception):
            """Never raised."""

        class Py4JJavaError(Py4JError):
            """Never raised."""

        class Py4JNetworkError(Py4JError):
            """Never raised."""

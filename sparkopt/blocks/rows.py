"""Rows as estimators and models are given them: a Spark DataFrame, or what `Table.of` takes, which needs no Spark."""

from __future__ import annotations

from typing import Any, TypeAlias

from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from sparkopt.blocks.tables import spark_schema
from sparkopt.errors import IncompatibleError
from sparkopt.machine.table import Table

__all__ = ["Rows", "rows_of", "rows_to_fit", "schema_of"]

Rows: TypeAlias = DataFrame | Table


def rows_of(data: Any) -> Rows:
    """Return a DataFrame as it is, and anything else as a table."""
    return data if _is_spark(data) else Table.of(data)


def rows_to_fit(data: Any) -> Rows:
    """Return the same, for a fit.

    Raises
    ------
    IncompatibleError
        For a stream, which has no end.
    """
    rows = rows_of(data)
    if not isinstance(rows, Table) and rows.isStreaming:
        raise IncompatibleError(
            "a streaming DataFrame cannot be trained on, since it has no end. Fit on spark.read instead of "
            "spark.readStream, or each batch by writeStream.foreachBatch; models score streams by transform."
        )
    return rows


def schema_of(rows: Rows) -> StructType:
    """Return the columns as Spark has them."""
    return spark_schema(rows.schema) if isinstance(rows, Table) else rows.schema


def _is_spark(data: Any) -> bool:
    """Whether it is a DataFrame of Spark, of Classic or Connect."""
    return isinstance(data, DataFrame) or type(data).__module__.startswith("pyspark.sql.")

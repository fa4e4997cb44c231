"""Rows as estimators and models are given them: a Spark DataFrame, or what `Table.of` takes, which needs no Spark."""

from __future__ import annotations

from typing import Any, TypeAlias

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from sparkopt.blocks.columns import Columns, quoted
from sparkopt.blocks.tables import spark_schema
from sparkopt.machine.table import Table

__all__ = ["Rows", "rows_of", "schema_of", "training_rows"]

Rows: TypeAlias = DataFrame | Table


def rows_of(data: Any) -> Rows:
    """Return a DataFrame as it is, and anything else as a table."""
    return data if _is_spark(data) else Table.of(data)


def schema_of(rows: Rows) -> StructType:
    """Return the columns as Spark has them."""
    return spark_schema(rows.schema) if isinstance(rows, Table) else rows.schema


def training_rows(rows: Rows, columns: Columns) -> Rows:
    """Return the rows that are not for validation alone."""
    if columns.validation is None:
        return rows
    if isinstance(rows, Table):
        return rows.without(columns.validation)
    return rows.where(~F.col(quoted(columns.validation)))


def _is_spark(data: Any) -> bool:
    """Whether it is a DataFrame of Spark, of Classic or Connect."""
    return isinstance(data, DataFrame) or type(data).__module__.startswith("pyspark.sql.")
